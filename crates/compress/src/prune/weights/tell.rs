//! What zeros buy, said plainly: bytes, and speed where there is any.

use edgesmith_ir::{Model, Tensor};

use super::Sparsity;
use super::pattern::Pattern;

/// Outputs and inputs from which on sparse tensor cores are worth it (NVIDIA/TensorRT#4065).
const LARGE: usize = 256;

/// The share of zeros from which on single zeros can pay on a CPU.
const SINGLE: f64 = 0.7;

/// What is to be told of a pruned model.
pub fn notes(sparsity: &Sparsity, model: &Model) -> Vec<String> {
    let is_there = |name: &String| model.graph.find_value(name).is_some();
    let is_float = sparsity.masks.all.keys().all(is_there);
    // What is rounded too has another size, which the file tells.
    let bytes = is_float.then(|| bytes(sparsity, model));
    bytes.into_iter().chain([speed(sparsity)]).collect()
}

fn bytes(sparsity: &Sparsity, model: &Model) -> String {
    let all = model
        .graph
        .values()
        .filter_map(|(_, v)| v.constant.as_ref());
    let all: usize = all.map(Tensor::byte_len).sum();
    let [gone, of] = sparsity.counts();
    // Numbers that stay, and a bit for each.
    let packed = all.saturating_sub(gone * size_of::<f32>()) + of / 8;
    let mega = |n: usize| n as f64 / 1e6;
    format!(
        "zeros are stored as zeros: the file is as large as before; compressed, its constants would take \
         about {:.2} MB of {:.2} MB (a bit for each weight, and the numbers that stay)",
        mega(packed),
        mega(all)
    )
}

fn speed(sparsity: &Sparsity) -> String {
    let [gone, of] = sparsity.counts();
    let share = gone as f64 / of.max(1) as f64;
    match sparsity.masks.pattern {
        Pattern::Unstructured if share < SINGLE => format!(
            "nothing here runs faster: products multiply zeros as they multiply numbers, and with {:.0} % \
             single zeros a sparse product is slower than a dense one",
            100.0 * share
        ),
        Pattern::Unstructured => format!(
            "dense products multiply zeros too: only sparse kernels gain by {:.0} % single zeros; --measure \
             tells what is so here",
            100.0 * share
        ),
        Pattern::Blocks { rows, columns } => format!(
            "blocks of {rows}x{columns} pay where a kernel skips whole blocks; --measure tells what is so here"
        ),
        Pattern::Of { n: 2, m: 4 } => two_of_four(sparsity),
        Pattern::Of { n, m } => {
            format!(
                "{n}:{m} is skipped by no hardware that is known here: only the file compresses"
            )
        }
    }
}

fn two_of_four(sparsity: &Sparsity) -> String {
    let is_large = |d: [usize; 2]| d.iter().all(|&n| n >= LARGE);
    let large: Vec<[usize; 2]> = sparsity.weights.iter().map(|w| w.dims).collect();
    let large: Vec<[usize; 2]> = large.into_iter().filter(|d| is_large(*d)).collect();
    let numbers: usize = large.iter().map(|d| d[0] * d[1]).sum();
    format!(
        "2:4 runs faster on GPUs with sparse tensor cores alone (NVIDIA from Ampere on), in products of {LARGE} \
         outputs and inputs or more: {} of {} pruned weights, {:.0} % of all numbers; those at most twice as \
         fast, whole models far less; not here",
        large.len(),
        sparsity.weights.len(),
        100.0 * numbers as f64 / sparsity.all.max(1) as f64
    )
}
