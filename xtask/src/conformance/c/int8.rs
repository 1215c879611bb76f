//! Cases in INT8: quantised by their own data, and held against the reference provider on the same file.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use edgesmith_codegen::program::{Data, Element};
use edgesmith_codegen::{Firmware, Flavour};
use edgesmith_formats::{WriteOptions, npz};
use edgesmith_ir::{DType, Error, Graph, Item, Model, Node, NodeId, Tensor, ValueId};
use edgesmith_runtime::{Options, Session};

use super::{DataSet, Made, Near, bound, first_output, lowered_whole};

/// The target whose form of integers code takes.
const TARGET: &str = "cortex-m4";

/// Operators of which all inputs are data; of others the first is, and the rest are constants.
const SEVERAL: &[&str] = &[
    "Add", "Sub", "Mul", "Div", "Concat", "Max", "Min", "Sum", "Mean",
];

/// Operators with weights, which the program quantises.
const PRODUCTS: &[&str] = &["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// A case, quantised and as C; `None` where it has no floats that could be quantised, or stays in floats.
///
/// # Errors
/// When the case cannot be quantised or lowered.
pub fn prepare(
    model: &Model,
    set: &DataSet,
    quantizer: &Path,
    prefix: &str,
    flavour: Flavour,
) -> Result<Option<Made>> {
    let ops: Vec<&str> = model.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
    let all = !ops.iter().any(|op| SEVERAL.contains(op));
    let model = match ops == ["LayerNormalization"] {
        true => first_output(model),
        false => model.clone(),
    };
    let (mut model, inputs) = bound(&model, set, all)?;
    if inputs
        .iter()
        .any(|t| t.dtype() != DType::F32 || t.count() == 0)
    {
        return Ok(None);
    }
    let mut quantised = match ops.iter().any(|op| PRODUCTS.contains(op)) {
        true if !ops.contains(&"ConvTranspose") => by_program(&model, &inputs[0], quantizer)?,
        _ => {
            surround(&mut model, &inputs, set)?;
            model
        }
    };
    let reference = Options {
        threads: 1,
        providers: vec!["reference".into()],
        ..Options::default()
    };
    let names: Vec<String> = {
        let graph = &quantised.graph;
        let name = |v: &ValueId| graph.value(*v).name.clone();
        graph.inputs.iter().map(name).collect()
    };
    let named = names.iter().map(String::as_str).zip(inputs.iter().cloned());
    let named: Vec<(&str, Item)> = named.map(|(n, t)| (n, t.into())).collect();
    let expected: Vec<Item> = Session::prepare(&quantised, &reference)?.run_items(&named)?;
    let program = lowered_whole(&mut quantised)?;
    ensure!(program.inputs.len() == inputs.len(), "inputs are lost");
    // Cases of floats, and of halves, which not every board has.
    let all_floats = program.buffers.iter().all(|b| b.element == Element::F32);
    if all_floats || program.buffers.iter().any(|b| b.element == Element::F16) {
        return Ok(None);
    }
    let given = inputs.iter().enumerate();
    let inputs: Vec<Data> = given
        .map(|(i, t)| program.input(i, t))
        .collect::<Result<_, _>>()?;
    let rust = program.run(&inputs)?;
    Ok(Some(Made {
        name: String::new(),
        near: Near::Step,
        ops: Vec::new(),
        firmware: Firmware::new(program, prefix, flavour, "the case")?,
        inputs,
        rust,
        expected,
    }))
}

/// The model as `edgesmith quantize` writes it.
fn by_program(model: &Model, input: &Tensor, quantizer: &Path) -> Result<Model> {
    let name = model.graph.value(model.graph.inputs[0]).name.clone();
    let folder = std::env::temp_dir().join(format!("edgesmith-int8-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let [float, calib, small] = ["model.onnx", "calib.npz", "int8.onnx"].map(|f| folder.join(f));
    let options = WriteOptions {
        force: true,
        ..WriteOptions::default()
    };
    edgesmith_formats::write(model, &float, &options)?;
    npz::write(&calib, &[(name, input.clone())], true)?;
    let mut command = Command::new(quantizer);
    command.arg("quantize").arg(&float).arg("-o").arg(&small);
    command.args(["--to", "int8", "--target", TARGET, "--force", "--calibrate"]);
    let output = command
        .arg(&calib)
        .output()
        .context("starting the program")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let line = said
            .lines()
            .find(|l| l.starts_with("error"))
            .unwrap_or_default();
        return Err(Error::unsupported(format!("quantize: {line}")).into());
    }
    let model = edgesmith_formats::read(&small)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(model)
}

/// Puts a pair of QuantizeLinear and DequantizeLinear behind every input and before every output, with the
/// ranges of the data.
fn surround(model: &mut Model, inputs: &[Tensor], set: &DataSet) -> Result<()> {
    if model.opset() < 10 {
        let old = format!("opset {} has no QuantizeLinear", model.opset());
        return Err(Error::unsupported(old).into());
    }
    let graph = &mut model.graph;
    let transposed = graph.nodes().filter(|(_, n)| n.op == "ConvTranspose");
    for id in transposed.map(|(id, _)| id).collect::<Vec<_>>() {
        weights(graph, id)?;
    }
    for (v, t) in graph.inputs.clone().into_iter().zip(inputs) {
        let readers = graph.value(v).consumers().to_vec();
        let pair = pair(graph, v, t)?;
        for (id, i) in readers {
            graph.set_input(id, i, Some(pair));
        }
    }
    for (at, item) in set.outputs.iter().take(graph.outputs.len()).enumerate() {
        let (Item::Tensor(t), v) = (item, graph.outputs[at]) else {
            continue;
        };
        if t.dtype() == DType::F32 && t.count() > 0 {
            graph.outputs[at] = pair(graph, v, t)?;
        }
    }
    Ok(())
}

/// Makes the weights of a node bytes of one scale.
fn weights(graph: &mut Graph, id: NodeId) -> Result<()> {
    let Some(v) = graph.node(id).input(1) else {
        return Ok(());
    };
    let Some(w) = graph.constant(v).cloned() else {
        return Ok(());
    };
    let numbers = w.to_f32()?;
    let most = numbers.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    let scale = most / 127.0;
    let bytes = numbers.iter().map(|x| (x / scale).round() as i8).collect();
    let q = graph.add_constant(
        &graph.fresh_name("w_q"),
        Tensor::from_vec::<i8>(w.dims(), bytes)?,
    );
    let scale = graph.add_constant(&graph.fresh_name("w_scale"), Tensor::scalar(scale));
    let zero = graph.add_constant(&graph.fresh_name("w_zero"), Tensor::scalar(0i8));
    let d = Node::new("DequantizeLinear", "w_dq");
    let d = graph.add_op(d, &[q, scale, zero], "w_dq");
    graph.set_input(id, 1, Some(d));
    Ok(())
}

/// Rounds `v` to signed bytes that reach over the numbers of `t` and zero.
fn pair(graph: &mut Graph, v: ValueId, t: &Tensor) -> Result<ValueId> {
    let numbers = t.to_f32()?;
    let finite = numbers.iter().copied().filter(|x| x.is_finite());
    let (low, high) = finite.fold((0f32, 0f32), |(l, h), x| (l.min(x), h.max(x)));
    let scale = ((high - low) / 255.0).max(1e-6);
    let zero = (-128.0 - low / scale).round() as i8;
    let name = graph.value(v).name.clone();
    let scale = graph.add_constant(
        &graph.fresh_name(&format!("{name}_scale")),
        Tensor::scalar(scale),
    );
    let zero = graph.add_constant(
        &graph.fresh_name(&format!("{name}_zero")),
        Tensor::scalar(zero),
    );
    let ty = graph.value(v).ty.clone();
    let q = Node::new("QuantizeLinear", &format!("{name}_q"));
    let q = graph.add_op(q, &[v, scale, zero], &format!("{name}_q"));
    let d = Node::new("DequantizeLinear", &format!("{name}_dq"));
    let d = graph.add_op(d, &[q, scale, zero], &format!("{name}_dq"));
    graph.value_mut(d).ty = ty;
    Ok(d)
}
