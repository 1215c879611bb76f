//! Gemm and MatMul, in floats or integers.

use std::sync::Arc;

use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::floats::{of_bytes, of_bytes_mut};
use edgesmith_kernels::gemm::{Epilogue, Order, PackedF32, PackedI8, gemm_mixed, gemm8};
use edgesmith_kernels::sparse::{SparseF32, SparseI8};

use super::block_weights;
use super::conv::{Integer, Run, Sums, Tail, integer_step, tail};
use super::dequantize::{self, Weights, bytes};
use super::products::{self, Straight};
use crate::plan::{ByLines, Kernel, Layout, OfStrip, Packed, Planner, rows};

pub(crate) fn gemm(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let factor = |name: &str| node.float(name).unwrap_or(1.0);
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    let straight = Straight {
        turned: [set("transA"), set("transB")],
        alpha: factor("alpha"),
    };
    let then = match node.op.as_str() {
        "FusedGemm" => super::activations::fused(node)?,
        _ => Activation::None,
    };
    let beta = factor("beta");
    plain_gemm(planner, id, then).or_else(|| products::gemm(planner, id, straight, beta, then))
}

/// Gemm without factors, of rows with constant weights.
fn plain_gemm(planner: &mut Planner, id: NodeId, then: Activation) -> Option<()> {
    let node = planner.graph().node(id);
    let one = |name: &str| node.float(name).is_none_or(|x| x == 1.0);
    if node.int("transA").unwrap_or(0) != 0 || !one("alpha") || !one("beta") {
        return None;
    }
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let ad = planner.typed(a)?.1;
    let bd = planner.typed(b)?.1;
    let transposed = node.int("transB").unwrap_or(0) != 0;
    let (k, n) = if transposed {
        (*bd.get(1)?, bd[0])
    } else {
        (bd[0], *bd.get(1)?)
    };
    let m = *ad.first()?;
    let order = if transposed { Order::NK } else { Order::KN };
    let bias = node.input(2);
    if bias.is_some_and(|c| {
        planner
            .typed(c)
            .is_none_or(|(_, d)| d.iter().product::<usize>() != n || d.last() != Some(&n))
    }) {
        return None;
    }
    if block_weights::dequantized(planner, id, bias, order, then).is_some() {
        return Some(());
    }
    product(planner, id, (a, b, bias, y), [m, k, n], order, then)
}

pub(crate) fn matmul(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let (ad, bd) = (planner.typed(a)?.1, planner.typed(b)?.1);
    if ad.len() < 2 || bd.len() < 2 {
        return None;
    }
    let (k, n) = (bd[bd.len() - 2], bd[bd.len() - 1]);
    if bd.len() == 2 {
        let m = ad[..ad.len() - 1].iter().product();
        let plain = Activation::None;
        if block_weights::dequantized(planner, id, None, Order::KN, plain).is_some() {
            return Some(());
        }
        let added = biased(planner, y, n).filter(|&(_, v, ..)| planner.constant(v).is_some());
        if let Some((add, bias, sum, Activation::None)) = added
            && m != 0
            && k != 0
            && let Some(bias) = planner.floats(bias)
            && integer(
                planner,
                id,
                (a, b, sum),
                [m, k, n],
                Order::KN,
                Bias::Floats(add, bias),
            )
            .is_some()
        {
            return Some(());
        }
        if planner.constant(b).is_some()
            && let Some((add, bias, sum, f)) = added
            && product(
                planner,
                id,
                (a, b, Some(bias), sum),
                [m, k, n],
                Order::KN,
                f,
            )
            .is_some()
        {
            planner.fused(&[add], id);
            planner.follow(&[add], id);
            return Some(());
        }
        if product(planner, id, (a, b, None, y), [m, k, n], Order::KN, plain).is_some() {
            return Some(());
        }
    }
    let straight = Straight {
        turned: [false; 2],
        alpha: 1.0,
    };
    products::matmul(planner, id, (a, b, y), straight)
}

/// FusedMatMul whose operands may have their last two axes swapped.
pub(crate) fn fused(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let (ad, bd) = (planner.typed(a)?.1, planner.typed(b)?.1);
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    if set("transBatchA") || set("transBatchB") || ad.len() < 2 || bd.len() < 2 {
        return None;
    }
    let turned = Straight {
        turned: [set("transA"), set("transB")],
        alpha: node.float("alpha").unwrap_or(1.0),
    };
    let order = if turned.turned[1] {
        Order::NK
    } else {
        Order::KN
    };
    let plain = Activation::None;
    if !turned.turned[0]
        && turned.alpha == 1.0
        && bd.len() == 2
        && block_weights::dequantized(planner, id, None, order, plain).is_some()
    {
        return Some(());
    }
    products::matmul(planner, id, (a, b, y), turned)
}

/// The node that alone reads `y` and adds one number for each column: the node, the numbers (which
/// are constant, or there), the sum, and a function of it.
pub(super) fn biased(
    planner: &Planner,
    y: ValueId,
    n: usize,
) -> Option<(NodeId, ValueId, ValueId, Activation)> {
    let id = planner.only_reader(y)?;
    let node = planner.graph().node(id);
    let bias = match (node.input(0)?, node.input(1)?) {
        (a, b) if a == y => b,
        (a, b) if b == y => a,
        _ => return None,
    };
    let (dtype, dims) = planner.typed(bias)?;
    let f = match node.domain.as_str() {
        "" if node.op == "Add" && node.int("axis").is_none() => Activation::None,
        "com.microsoft" if node.input(0) == Some(y) => super::fused::biased(&node.op)?,
        _ => return None,
    };
    let fits = (planner.constant(bias).is_some() || planner.is_ready(bias))
        && dtype == edgesmith_ir::DType::F32
        && dims.last() == Some(&n)
        && dims.iter().product::<usize>() == n
        && dims.len() <= planner.typed(y)?.1.len();
    fits.then_some((id, bias, node.output(0)?, f))
}

/// A product with constant B.
fn product(
    planner: &mut Planner,
    id: NodeId,
    (a, b, bias, y): (ValueId, ValueId, Option<ValueId>, ValueId),
    [m, k, n]: [usize; 3],
    order: Order,
    then: Activation,
) -> Option<()> {
    if k == 0 || n == 0 || m == 0 {
        return None;
    }
    if then == Activation::None {
        let bias = Bias::Sums(bias);
        if integer(planner, id, (a, b, y), [m, k, n], order, bias).is_some() {
            return Some(());
        }
    } else if planner.constant(b).is_none() {
        // Weights that are stored as integers: the product is taken in them, without the function.
        return None;
    }
    planner.float_dims(y)?;
    let weights = planner.weights_to_pack(id, b)?;
    let bias = match bias {
        Some(b) => Some(planner.float_weights(b)?.into_owned()),
        None => None,
    };
    let packed = planner.packed(id, |ctx| {
        let lists = SparseF32::new(ctx, m, &weights, order, k, n);
        Some(match lists {
            Some(lists) => Packed::Sparse(Arc::new(lists)),
            None => Packed::Gemm(Arc::new(PackedF32::new(ctx, &weights, order, k, n))),
        })
    })?;
    let right = Right::of(packed)?;
    let tail = match then {
        Activation::None => tail(planner, id, y, true),
        activation => Tail {
            nodes: vec![id],
            residual: None,
            activation,
            result: y,
        },
    };
    let rounds = right.rounded();
    let to_rounded = rounds && planner.may_round(tail.result);
    let (slot, a_rounded) = planner.read_floats(a, Layout::Plain, rounds)?;
    let mut reads = vec![slot];
    let residual = match tail.residual {
        Some(r) => {
            let (slot, rounded) = planner.read_floats(r, Layout::Plain, rounds)?;
            reads.push(slot);
            Some(rounded)
        }
        None => None,
    };
    let (kernel, told) = (right.kernel_name(), right.told());
    let nodes = tail.nodes;
    let sizes = [a_rounded, to_rounded].map(|rounded| if rounded { 2 } else { 4 });
    let run: OfStrip = Arc::new(move |ctx, _, x, y| {
        let m = y.len() / (n * sizes[1]);
        let epilogue = Epilogue {
            bias: bias.as_deref(),
            residual: residual.map(|rounded| of_bytes(x[1], rounded)),
            activation: tail.activation,
        };
        match &right {
            Right::Dense(b) => {
                let (a, c) = (of_bytes(x[0], a_rounded), of_bytes_mut(y, to_rounded));
                gemm_mixed(ctx, m, a, k, b, c, n, &epilogue);
            }
            Right::Lists(b) => {
                let (a, c) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y));
                b.run(ctx, m, a, k, c, n, &epilogue);
            }
        }
    });
    let whole = Arc::clone(&run);
    let work: Kernel = Box::new(move |ctx, x, y| whole(ctx, None, x, y[0]));
    let step = if to_rounded {
        Planner::step_rounded
    } else {
        Planner::step_f32
    };
    let to = (tail.result, Layout::Plain);
    step(planner, id, &nodes, to, kernel, reads, work)?;
    planner.tell(&nodes, told);
    planner.by_lines(ByLines::of_rows([m, k, n], sizes, run));
    Some(())
}

/// The constant side of a product of floats.
enum Right {
    Dense(Arc<PackedF32>),
    Lists(Arc<SparseF32>),
}

impl Right {
    fn of(packed: Packed) -> Option<Self> {
        match packed {
            Packed::Gemm(b) => Some(Self::Dense(b)),
            Packed::Sparse(b) => Some(Self::Lists(b)),
            _ => None,
        }
    }

    /// Whether its products take and give BF16.
    fn rounded(&self) -> bool {
        matches!(self, Self::Dense(b) if b.rounded())
    }

    fn kernel_name(&self) -> &'static str {
        match self {
            Self::Dense(b) => b.kernel_name(),
            Self::Lists(b) => b.kernel_name(),
        }
    }

    /// What is left of it, where zeros are skipped.
    fn told(&self) -> Option<String> {
        match self {
            Self::Dense(_) => None,
            Self::Lists(b) => Some(b.told()),
        }
    }
}

/// What is added to the columns of a product of bytes.
enum Bias {
    /// Integers of the scale of the sums, if any.
    Sums(Option<ValueId>),
    /// Floats, by this node.
    Floats(NodeId, Vec<f32>),
}

fn integer(
    planner: &mut Planner,
    id: NodeId,
    (a, b, y): (ValueId, ValueId, ValueId),
    [m, k, n]: [usize; 3],
    order: Order,
    bias: Bias,
) -> Option<()> {
    // Before the weights, which are copied.
    dequantize::source(planner, a)?;
    let weights = dequantize::weights(planner, b, if order == Order::NK { 0 } else { 1 })?;
    let sums = match bias {
        Bias::Sums(bias) => Sums::of(planner, a, &weights, bias, n)?,
        Bias::Floats(add, floats) => Sums {
            added: Some((add, floats)),
            ..Sums::of(planner, a, &weights, None, n)?
        },
    };
    let with = byte_product(planner, id, &weights, [m, k, n], order)?;
    integer_step(planner, id, y, sums, with)
}

/// The product of rows of bytes with the constant weights of node `id`.
pub(crate) fn byte_product(
    planner: &mut Planner,
    id: NodeId,
    weights: &Weights,
    [m, k, n]: [usize; 3],
    order: Order,
) -> Option<Integer> {
    let packed = planner.packed(id, |ctx| {
        let (data, zeros) = (bytes(&weights.data, weights.signed), &weights.zeros);
        let lists = SparseI8::new(ctx, m, data, order, k, n, zeros);
        Some(match lists {
            Some(lists) => Packed::Sparse8(Arc::new(lists)),
            None => Packed::Gemm8(Arc::new(PackedI8::new(ctx, data, order, k, n, zeros))),
        })
    })?;
    let (kernel, told): (_, Option<String>);
    let run: Run = match packed {
        Packed::Gemm8(b) => {
            (kernel, told) = (b.kernel_name(), None);
            Box::new(move |ctx, _, x, bias, out| gemm8(ctx, out.len() / n, x, k, &b, bias, out, n))
        }
        Packed::Sparse8(b) => {
            (kernel, told) = (b.kernel_name(), Some(b.told()));
            Box::new(move |ctx, _, x, bias, out| b.run(ctx, out.len() / n, x, k, bias, out, n))
        }
        _ => return None,
    };
    Some(Integer {
        kernel,
        told,
        layout: Layout::Plain,
        images: Some((rows([m, k, n]), 1)),
        run,
    })
}
