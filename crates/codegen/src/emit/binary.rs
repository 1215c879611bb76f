//! Add, Sub, Mul and Div of two values, computed or constant, with broadcasting.

use edgesmith_ir::{Error, NodeId, Result};

use super::unary::like;
use super::{Call, c_float};
use crate::arena::Overlap;
use crate::fixed::Requant;
use crate::kernels::Flavour;
use crate::lower::{Bounds, Held, Lowering, Tail};
use crate::program::{Cost, Data, Element, Grid, Layer};

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

/// How the elements of two operands meet: both are walked along the same axes, those of the result in
/// memory, with a stride of 0 where an operand is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Walk {
    dims: Vec<usize>,
    strides: [Vec<usize>; 2],
}

/// An operand.
enum Side {
    Computed(Held),
    /// Numbers with lengths, row-major.
    Constant(Vec<f32>, Vec<usize>),
}

/// Sums of bytes: `clamp((a * ma + b * mb + c) >> shift, lo, hi)`, where `c` holds both zero points, that of
/// the result, and the half that rounds.
struct Add8 {
    walk: Walk,
    mult: [i32; 2],
    add: i32,
    shift: u32,
    lo: i32,
    hi: i32,
    constant: Option<Vec<i8>>,
    swapped: bool,
}

/// Products of bytes.
struct Mul8 {
    walk: Walk,
    zeros: [i32; 2],
    to: Requant,
    constant: Option<Vec<i8>>,
}

/// Floats.
struct BinaryF32 {
    op: Op,
    walk: Walk,
    bounds: Bounds,
    constant: Option<Vec<f32>>,
    swapped: bool,
}

pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let op = match node.op.as_str() {
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        _ => Op::Div,
    };
    let (Some(a), Some(b), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Err(Error::invalid("it has no two inputs or no output"));
    };
    let tail = l.tail(y);
    let dims = l.typed(y)?.1;
    let mut sides = [side(l, a)?, side(l, b)?];
    let swapped = matches!(sides[0], Side::Constant(..));
    if swapped {
        sides.swap(0, 1);
    }
    let [Side::Computed(first), second] = sides else {
        return Err(Error::unsupported("both sides are constant"));
    };
    let first_full = first.dims == dims;
    // The result has the order of an operand that fills it.
    let order = match (&second, first_full) {
        (_, true) => first.order.clone(),
        (Side::Computed(s), _) if s.dims == dims => s.order.clone(),
        _ => (0..dims.len()).collect(),
    };
    let (first, second) = aligned(l, &first, second, &order, &dims);
    let made = match integers(l, id, op, swapped, &first, &second, &order, &dims, &tail)? {
        Some(made) => made,
        None => floats(l, id, op, swapped, &first, &second, &order, &dims, &tail)?,
    };
    l.finish(&tail, made);
    Ok(())
}

fn side(l: &Lowering, v: edgesmith_ir::ValueId) -> Result<Side> {
    if l.is_held(v) {
        return Ok(Side::Computed(l.value(v)?));
    }
    let tensor = l.float_constant(v);
    let tensor = tensor.ok_or_else(|| Error::unsupported("an operand is neither computed nor constant"))?;
    Ok(Side::Constant(
        tensor.to_f32()?.into_owned(),
        tensor.dims().to_vec(),
    ))
}

/// Operands that fill the result, in its order.
fn aligned(l: &mut Lowering, first: &Held, second: Side, order: &[usize], dims: &[usize]) -> (Held, Side) {
    let mut turn = |h: &Held| match h.dims == dims {
        true => l.ordered(h, order),
        false => h.clone(),
    };
    let first = turn(first);
    let second = match second {
        Side::Computed(h) => Side::Computed(turn(&h)),
        constant => constant,
    };
    (first, second)
}

impl Walk {
    fn of(dims: &[usize], order: &[usize], sides: [(&[usize], &[usize]); 2]) -> Self {
        let strides = sides.map(|(own, own_order)| {
            let mut steps = vec![0; own.len()];
            let mut step = 1;
            for &axis in own_order.iter().rev() {
                steps[axis] = if own[axis] == 1 { 0 } else { step };
                step *= own[axis];
            }
            let lead = dims.len() - own.len();
            let along = |&axis: &usize| axis.checked_sub(lead).map_or(0, |a| steps[a]);
            order.iter().map(along).collect::<Vec<_>>()
        });
        let mut walk = Self {
            dims: Vec::new(),
            strides: [Vec::new(), Vec::new()],
        };
        for (i, &axis) in order.iter().enumerate().filter(|(_, a)| dims[**a] != 1) {
            let (a, b) = (strides[0][i], strides[1][i]);
            let last = walk.dims.len().checked_sub(1);
            let joins = last.is_some_and(|n| {
                walk.strides[0][n] == a * dims[axis] && walk.strides[1][n] == b * dims[axis]
            });
            match (joins, last) {
                (true, Some(n)) => {
                    walk.dims[n] *= dims[axis];
                    walk.strides[0][n] = a;
                    walk.strides[1][n] = b;
                }
                _ => {
                    walk.dims.push(dims[axis]);
                    walk.strides[0].push(a);
                    walk.strides[1].push(b);
                }
            }
        }
        if walk.dims.is_empty() {
            walk.dims.push(1);
            walk.strides.iter_mut().for_each(|s| s.push(1));
        }
        walk
    }

    /// Pairs of places, in the order of the result.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let mut all = vec![(0, 0)];
        for (i, &d) in self.dims.iter().enumerate() {
            let (s, t) = (self.strides[0][i], self.strides[1][i]);
            all = all
                .iter()
                .flat_map(|&(a, b)| (0..d).map(move |n| (a + n * s, b + n * t)))
                .collect();
        }
        all
    }

    /// Whether operand `i` is read once, in order.
    fn is_straight(&self, i: usize) -> bool {
        self.dims.len() == 1 && self.strides[i] == [1]
    }

    /// The arguments of a kernel that walks: up to four axes, outermost first.
    fn text(&self) -> String {
        let pad = 4usize.saturating_sub(self.dims.len());
        let list = |v: &[usize], fill: usize| {
            let all = std::iter::repeat_n(fill, pad).chain(v.iter().copied());
            all.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
        };
        format!(
            ".dims = {{{}}}, .a = {{{}}}, .b = {{{}}}",
            list(&self.dims, 1),
            list(&self.strides[0], 0),
            list(&self.strides[1], 0)
        )
    }
}

fn walk(first: &Held, second: &Side, order: &[usize], dims: &[usize]) -> Result<Walk> {
    let walk = match second {
        Side::Computed(h) => Walk::of(dims, order, [(&first.dims, &first.order), (&h.dims, &h.order)]),
        Side::Constant(_, own) => {
            let plain: Vec<usize> = (0..own.len()).collect();
            Walk::of(dims, order, [(&first.dims, &first.order), (own, &plain)])
        }
    };
    match walk.dims.len() {
        ..=4 => Ok(walk),
        n => Err(Error::unsupported(format!("operands meet along {n} axes; code walks 4"))),
    }
}

/// The scale that constants of bytes get: around 0.
fn own_grid(numbers: &[f32]) -> Grid {
    let most = numbers.iter().fold(0f32, |m, x| m.max(x.abs()));
    Grid {
        scale: if most > 0.0 { most / 127.0 } else { 1.0 },
        zero: 0,
        unsigned: false,
    }
}

#[allow(clippy::too_many_arguments, reason = "what a node is about to become")]
fn integers(
    l: &mut Lowering,
    id: NodeId,
    op: Op,
    swapped: bool,
    first: &Held,
    second: &Side,
    order: &[usize],
    dims: &[usize],
    tail: &Tail,
) -> Result<Option<Held>> {
    let (Some(a), Some(to)) = (l.grid(first), tail.grid) else {
        return Ok(None);
    };
    let (b, constant) = match second {
        Side::Computed(h) => match l.grid(h) {
            Some(b) => (b, None),
            None => return Ok(None),
        },
        Side::Constant(numbers, _) => {
            let node = l.graph.node(id);
            let v = node.input(usize::from(!swapped));
            let stored = v.and_then(|v| stored_grid(l, v));
            let grid = stored.unwrap_or_else(|| own_grid(numbers));
            (grid, Some(numbers.iter().map(|&x| grid.integer(x)).collect::<Vec<i8>>()))
        }
    };
    let walk = walk(first, second, order, dims)?;
    let (lo, hi) = tail.bounds.bytes(to);
    let name = l.graph.value(tail.value).name.clone();
    let mut made = l.buffer(&name, Element::I8, dims, tail.grid);
    made.order = order.to_vec();
    let reads: Vec<&Held> = match second {
        Side::Computed(h) => vec![first, h],
        Side::Constant(..) => vec![first],
    };
    match op {
        Op::Add | Op::Sub => {
            let layer = Add8::new(walk, (a, b, to), op == Op::Sub, swapped, (lo, hi), constant)?;
            l.step(id, &reads, &made, layer);
        }
        Op::Mul => {
            let factor = f64::from(a.scale) * f64::from(b.scale) / f64::from(to.scale);
            let layer = Mul8 {
                walk,
                zeros: [a.zero, b.zero],
                to: Requant::new(&[factor], 1 << 16, to.zero, lo, hi)?,
                constant,
            };
            l.step(id, &reads, &made, layer);
        }
        Op::Div => return Ok(None),
    }
    Ok(Some(made))
}

/// The grid of a constant of bytes behind DequantizeLinear.
fn stored_grid(l: &Lowering, v: edgesmith_ir::ValueId) -> Option<Grid> {
    let id = l.graph.producer_is(v, "DequantizeLinear")?;
    l.grid_of(id).ok()?
}

impl Add8 {
    fn new(
        walk: Walk,
        (a, b, to): (Grid, Grid, Grid),
        minus: bool,
        swapped: bool,
        (lo, hi): (i32, i32),
        constant: Option<Vec<i8>>,
    ) -> Result<Self> {
        let sign = |negative: bool| if negative { -1.0 } else { 1.0 };
        let real = [
            f64::from(a.scale) / f64::from(to.scale) * sign(minus && swapped),
            f64::from(b.scale) / f64::from(to.scale) * sign(minus && !swapped),
        ];
        let fits = |shift: u32| {
            let m = real.map(|r| (r * 2f64.powi(shift as i32)).round());
            let half = if shift == 0 { 0.0 } else { 2f64.powi(shift as i32 - 1) };
            let add = f64::from(to.zero) * 2f64.powi(shift as i32) + half
                - f64::from(a.zero) * m[0]
                - f64::from(b.zero) * m[1];
            let most = 128.0 * (m[0].abs() + m[1].abs()) + add.abs();
            (most < 2f64.powi(31)).then_some((m, add))
        };
        let found = (0..=20).rev().find_map(|shift| fits(shift).map(|f| (shift, f)));
        let (shift, (m, add)) = found.ok_or_else(|| {
            Error::unsupported("the scales of its operands are far larger than that of its result")
        })?;
        Ok(Self {
            walk,
            mult: m.map(|m| m as i32),
            add: add as i32,
            shift,
            lo,
            hi,
            constant,
            swapped,
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "what a node is about to become")]
fn floats(
    l: &mut Lowering,
    id: NodeId,
    op: Op,
    swapped: bool,
    first: &Held,
    second: &Side,
    order: &[usize],
    dims: &[usize],
    tail: &Tail,
) -> Result<Held> {
    let first = l.float(first);
    let second = match second {
        Side::Computed(h) => Side::Computed(l.float(h)),
        Side::Constant(n, d) => Side::Constant(n.clone(), d.clone()),
    };
    let layer = BinaryF32 {
        op,
        walk: walk(&first, &second, order, dims)?,
        bounds: tail.bounds,
        constant: match &second {
            Side::Constant(numbers, _) => Some(numbers.clone()),
            Side::Computed(_) => None,
        },
        swapped,
    };
    let plain = Held {
        dims: dims.to_vec(),
        order: order.to_vec(),
        ..first.clone()
    };
    let made = like(l, &plain, tail.value, Element::F32, None);
    let reads: Vec<&Held> = match &second {
        Side::Computed(h) => vec![&first, h],
        Side::Constant(..) => vec![&first],
    };
    l.step(id, &reads, &made, layer);
    Ok(l.quantized(made, tail))
}

/// Operands that are walked straight may be written over.
fn over(walk: &Walk, read: usize, bytes: [usize; 2]) -> Option<Overlap> {
    (walk.is_straight(read) && bytes[0] <= bytes[1]).then_some(Overlap::Behind(0))
}

impl Layer for Add8 {
    fn kernel(&self) -> &'static str {
        "add8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let b = match &self.constant {
            Some(data) => call.bytes("operand", &data.iter().map(|&x| x as u8).collect::<Vec<_>>()),
            None => call.reads[1].clone(),
        };
        let walk = self.walk.text();
        let fields = format!(
            "{walk}, .mult_a = {}, .mult_b = {}, .add = {}, .shift = {}, .lo = {}, .hi = {}",
            self.mult[0], self.mult[1], self.add, self.shift, self.lo, self.hi
        );
        let layer = call.parameters("add", &fields);
        let f = call.kernel("add8");
        format!("{f}(&{layer}, {}, {b}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].i8();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].i8());
        let pairs = self.walk.pairs();
        let sums = pairs.iter().map(|&(i, j)| {
            let sum = i32::from(a[i]) * self.mult[0] + i32::from(b[j]) * self.mult[1] + self.add;
            (sum >> self.shift).clamp(self.lo, self.hi) as i8
        });
        *write = Data::I8(sums.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(&self.walk, read, [1, 1])
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: self.constant.as_ref().map_or(0, Vec::len),
        }
    }
}

impl Layer for Mul8 {
    fn kernel(&self) -> &'static str {
        "mul8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let b = match &self.constant {
            Some(data) => call.bytes("operand", &data.iter().map(|&x| x as u8).collect::<Vec<_>>()),
            None => call.reads[1].clone(),
        };
        let walk = self.walk.text();
        let to = &self.to;
        let fields = format!(
            "{walk}, .zero_a = {}, .zero_b = {}, .mult = {}, .shift = {}, .zero = {}, .lo = {}, .hi = {}",
            self.zeros[0], self.zeros[1], to.mult[0], to.shift, to.zero, to.lo, to.hi
        );
        let layer = call.parameters("mul", &fields);
        let f = call.kernel("mul8");
        format!("{f}(&{layer}, {}, {b}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].i8();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].i8());
        let pairs = self.walk.pairs();
        let products = pairs.iter().map(|&(i, j)| {
            let acc = (i32::from(a[i]) - self.zeros[0]) * (i32::from(b[j]) - self.zeros[1]);
            self.to.apply(acc, 0) as i8
        });
        *write = Data::I8(products.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(&self.walk, read, [1, 1])
    }
}

impl Layer for BinaryF32 {
    fn kernel(&self) -> &'static str {
        match self.op {
            Op::Add => "add_f32",
            Op::Sub => "sub_f32",
            Op::Mul => "mul_f32",
            Op::Div => "div_f32",
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let b = match &self.constant {
            Some(data) => call.f32s("operand", data),
            None => call.reads[1].clone(),
        };
        let mut walk = self.walk.clone();
        let mut sides = [call.reads[0].clone(), b];
        if self.swapped {
            walk.strides.swap(0, 1);
            sides.swap(0, 1);
        }
        let fields = format!(
            "{}, .lo = {}, .hi = {}",
            walk.text(),
            c_float(self.bounds.lo),
            c_float(self.bounds.hi)
        );
        let layer = call.parameters("binary", &fields);
        let f = call.kernel(self.kernel());
        format!("{f}(&{layer}, {}, {}, {});", sides[0], sides[1], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].f32();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].f32());
        let pairs = self.walk.pairs();
        let made = pairs.iter().map(|&(i, j)| {
            let (a, b) = if self.swapped { (b[j], a[i]) } else { (a[i], b[j]) };
            let y = match self.op {
                Op::Add => a + b,
                Op::Sub => a - b,
                Op::Mul => a * b,
                Op::Div => a / b,
            };
            y.max(self.bounds.lo).min(self.bounds.hi)
        });
        *write = Data::F32(made.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(&self.walk, read, [4, 4])
    }
}
