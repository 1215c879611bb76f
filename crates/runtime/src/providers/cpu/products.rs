//! Products of two operands that are computed, and Gemm with any of its factors.

use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::floats::Floats;
use edgesmith_kernels::gemm::{Epilogue, Side, products};

use super::conv::{Tail, tail};
use super::matmul::biased;
use super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner};

/// How operands stand, and what the product is multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Straight {
    pub turned: [bool; 2],
    pub alpha: f32,
}

/// Products of matrices of equal size.
struct Sizes {
    count: usize,
    /// M, K and N.
    size: [usize; 3],
    /// Elements from a matrix to the next; 0: one for all.
    steps: [usize; 2],
}

impl Sizes {
    /// Of operands of lengths `a` and `b`; `None` where they neither repeat as a whole nor are as
    /// many, or there is nothing to multiply.
    fn of(a: &[usize], b: &[usize], y: &[usize], turned: [bool; 2]) -> Option<Self> {
        let last = |d: &[usize], turned: bool| {
            let [rows, columns] = [d[d.len() - 2], d[d.len() - 1]];
            if turned {
                [columns, rows]
            } else {
                [rows, columns]
            }
        };
        let ([m, k], [inner, n]) = (last(a, turned[0]), last(b, turned[1]));
        let batch = |d: &[usize]| d[..d.len() - 2].iter().product::<usize>();
        let count = batch(y);
        let step = |d: &[usize], size: usize| match batch(d) {
            1 => Some(0),
            c if c == count => Some(size),
            _ => None,
        };
        let steps = [step(a, m * k)?, step(b, k * n)?];
        (inner == k && m * n * k * count > 0).then_some(Self {
            count,
            size: [m, k, n],
            steps,
        })
    }
}

/// What is added to a product.
enum Added {
    Nothing,
    /// A number for each column.
    Row(ValueId),
    /// As many numbers as the product has.
    Full(ValueId),
    /// Repeated with these steps along rows and columns.
    Spread(ValueId, [usize; 2]),
}

/// A product of two computed tensors, batch by batch, and a bias and function behind it.
pub(super) fn matmul(
    planner: &mut Planner,
    id: NodeId,
    (a, b, y): (ValueId, ValueId, ValueId),
    straight: Straight,
) -> Option<()> {
    let yd = planner.float_dims(y)?;
    let (ad, bd) = (planner.typed(a)?.1, planner.typed(b)?.1);
    let sizes = Sizes::of(&ad, &bd, &yd, straight.turned)?;
    let (add, tail) = match biased(planner, y, sizes.size[2]) {
        Some((add, bias, sum, f)) => {
            let mut tail = match f {
                Activation::None => tail(planner, id, sum, true),
                activation => Tail {
                    nodes: vec![id],
                    residual: None,
                    activation,
                    result: sum,
                },
            };
            tail.nodes.push(add);
            (Added::Row(bias), tail)
        }
        None => (Added::Nothing, tail(planner, id, y, true)),
    };
    step(planner, id, ([a, b], sizes, straight), (add, 1.0), tail)
}

/// Gemm and FusedGemm of any factors and a bias of any shape, with a function behind it.
pub(super) fn gemm(
    planner: &mut Planner,
    id: NodeId,
    straight: Straight,
    beta: f32,
    then: Activation,
) -> Option<()> {
    let node = planner.graph().node(id);
    let (a, b, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let yd = planner.float_dims(y)?;
    let (ad, bd) = (planner.typed(a)?.1, planner.typed(b)?.1);
    if ad.len() != 2 || bd.len() != 2 {
        return None;
    }
    let sizes = Sizes::of(&ad, &bd, &yd, straight.turned)?;
    let [m, _, n] = sizes.size;
    let add = match node.input(2).filter(|_| beta != 0.0) {
        None => Added::Nothing,
        Some(c) => match planner.float_dims(c)?[..] {
            [columns] | [1, columns] if columns == n => Added::Row(c),
            [rows, columns] if [rows, columns] == [m, n] && beta == 1.0 => Added::Full(c),
            ref dims => {
                let [rows, columns] = match dims {
                    [] | [1] => [1, 1],
                    [rows, columns] => [*rows, *columns],
                    _ => return None,
                };
                let fits = |have: usize, want: usize| have == 1 || have == want;
                if !fits(rows, m) || !fits(columns, n) {
                    return None;
                }
                let steps = [
                    if rows == 1 { 0 } else { columns },
                    usize::from(columns > 1),
                ];
                Added::Spread(c, steps)
            }
        },
    };
    let tail = match then {
        Activation::None => {
            let takes = matches!(add, Added::Nothing | Added::Row(_));
            tail(planner, id, y, takes)
        }
        activation => Tail {
            nodes: vec![id],
            residual: None,
            activation,
            result: y,
        },
    };
    step(planner, id, ([a, b], sizes, straight), (add, beta), tail)
}

/// What a step adds, and where it finds it.
enum Addend {
    Nothing,
    Row(Operand),
    Full(Operand),
    Spread(Operand, [usize; 2]),
}

/// Adds the step of node `id`: a product, to which `beta` times something is added, and the tail.
fn step(
    planner: &mut Planner,
    id: NodeId,
    (sides, sizes, straight): ([ValueId; 2], Sizes, Straight),
    (add, beta): (Added, f32),
    tail: Tail,
) -> Option<()> {
    let mut reads = Vec::new();
    let a = Operand::of(planner, sides[0], &mut reads)?;
    let b = Operand::of(planner, sides[1], &mut reads)?;
    let mut of = |planner: &mut Planner, v| Operand::of(planner, v, &mut reads);
    let add = match (add, tail.residual) {
        (Added::Full(c), _) => Addend::Full(of(planner, c)?),
        (Added::Spread(c, steps), _) => Addend::Spread(of(planner, c)?, steps),
        (Added::Row(c), _) => Addend::Row(of(planner, c)?),
        (Added::Nothing, _) => Addend::Nothing,
    };
    let residual = match tail.residual {
        Some(r) => Some(of(planner, r)?),
        None => None,
    };
    let Sizes { count, size, steps } = sizes;
    let (Straight { turned, alpha }, activation) = (straight, tail.activation);
    let work: Kernel = Box::new(move |ctx, x, y| {
        let c: &mut [f32] = bytemuck::cast_slice_mut(y[0]);
        let data = [a.get(x), b.get(x)];
        let sides = [0, 1].map(|i| Side {
            data: data[i],
            step: steps[i],
            turned: turned[i],
        });
        let (mut row, mut full) = (Vec::new(), Vec::new());
        let mut epilogue = Epilogue {
            activation,
            residual: residual.as_ref().map(|r| Floats::F32(r.get(x))),
            ..Epilogue::default()
        };
        match &add {
            Addend::Nothing => {}
            Addend::Row(c) if beta == 1.0 => epilogue.bias = Some(c.get(x)),
            Addend::Row(c) => {
                row.extend(c.get(x).iter().map(|c| c * beta));
                epilogue.bias = Some(&row);
            }
            Addend::Full(c) => epilogue.residual = Some(Floats::F32(c.get(x))),
            Addend::Spread(c, [down, right]) => {
                let (c, [m, _, n]) = (c.get(x), size);
                let places = (0..m).flat_map(|i| (0..n).map(move |j| i * down + j * right));
                full.extend(places.map(|at| c[at] * beta));
                epilogue.residual = Some(Floats::F32(&full));
            }
        }
        products(ctx, count, size, sides, alpha, c, &epilogue);
    });
    let to = (tail.result, Layout::Plain);
    let kernel = "gemm packed on the fly";
    planner.step_f32(id, &tail.nodes, to, kernel, reads, work)
}
