//! Add, Sub, Mul and Div of two values, computed or constant, with broadcasting.

use edgesmith_ir::{Error, NodeId, Result, ValueId};

use super::Call;
use super::unary::Unary;
use crate::arena::Overlap;
use crate::fixed::Requant;
use crate::kernels::Flavour;
use crate::kernels::integer;
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

/// The second operand.
enum Side {
    Computed(Held),
    /// Numbers as they lie in memory.
    Constant(Vec<f32>),
}

/// Two operands, as kernels take them: the first fills the result, and the second starts again after
/// `period` elements.
struct Pair {
    op: Op,
    first: Held,
    second: Side,
    period: usize,
    /// The first is what the graph has second.
    swapped: bool,
}

/// Sums of bytes.
struct Add8 {
    count: usize,
    period: usize,
    sum: integer::Add8,
    zero: i32,
    bounds: [i32; 2],
    constant: Option<Vec<i8>>,
}

/// Products of bytes.
struct Mul8 {
    count: usize,
    period: usize,
    zeros: [i32; 2],
    to: Requant,
    constant: Option<Vec<i8>>,
}

/// Floats.
struct BinaryF32 {
    op: Op,
    count: usize,
    period: usize,
    constant: Option<Vec<f32>>,
    swapped: bool,
}

/// Add, Sub, Mul and Div: in bytes where both operands and the result are, else in floats.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let (Some(a), Some(b), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Err(Error::invalid("it has no two inputs or no output"));
    };
    let tail = l.tail(y);
    let dims = l.typed(y)?.1;
    let pair = pair(l, id, [a, b], &dims)?;
    let made = match integers(l, id, &pair, &tail)? {
        Some(made) => made,
        None => floats(l, id, &pair, &tail)?,
    };
    l.finish(&tail, made);
    Ok(())
}

/// The operands of a node, repeated where a kernel cannot do that.
fn pair(l: &mut Lowering, id: NodeId, values: [ValueId; 2], dims: &[usize]) -> Result<Pair> {
    let op = match l.graph.node(id).op.as_str() {
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        _ => Op::Div,
    };
    let held = |l: &Lowering, v| l.is_held(v).then(|| l.value(v)).transpose();
    let [a, b] = [held(l, values[0])?, held(l, values[1])?];
    let is_full = |h: &Option<Held>| h.as_ref().is_some_and(|h| h.dims == dims);
    // Computed before constant, whole before repeated.
    let swapped = a.is_none() || (!is_full(&a) && is_full(&b));
    let (first, second, other) = match swapped {
        true => (b, a, values[0]),
        false => (a, b, values[1]),
    };
    let first = first.ok_or_else(|| Error::unsupported("both sides are constant"))?;
    let first = l.stretched(&first, dims)?;
    let order = first.order.clone();
    let (second, period) = match second {
        Some(held) => computed(l, held, dims, &order)?,
        None => constant(l, other, dims, &order)?,
    };
    Ok(Pair {
        op,
        first,
        second,
        period,
        swapped,
    })
}

/// After how many elements in memory an operand of lengths `own` starts again in a result of lengths
/// `dims`, both in `order`; nothing where it does not run straight in between.
fn period(own: &[usize], dims: &[usize], order: &[usize]) -> Option<usize> {
    let lead = dims.len() - own.len();
    let length = |axis: usize| axis.checked_sub(lead).map_or(1, |a| own[a]);
    let mut inner = order.iter().rev().copied().peekable();
    let mut period = 1;
    while let Some(axis) = inner.next_if(|&a| length(a) == dims[a]) {
        period *= dims[axis];
    }
    inner.all(|a| length(a) == 1).then_some(period)
}

fn computed(
    l: &mut Lowering,
    held: Held,
    dims: &[usize],
    order: &[usize],
) -> Result<(Side, usize)> {
    let lead = dims.len() - held.dims.len();
    // The operand with the axes of the result.
    let full = Held {
        buffer: held.buffer,
        dims: std::iter::repeat_n(1, lead)
            .chain(held.dims.iter().copied())
            .collect(),
        order: (0..lead)
            .chain(held.order.iter().map(|a| a + lead))
            .collect(),
    };
    if let Some(period) = period(&full.dims, dims, order) {
        let laid = l.ordered(&full, order);
        return Ok((Side::Computed(laid), period));
    }
    let full = l.stretched(&full, dims)?;
    let laid = l.ordered(&full, order);
    Ok((Side::Computed(laid), dims.iter().product()))
}

fn constant(l: &Lowering, v: ValueId, dims: &[usize], order: &[usize]) -> Result<(Side, usize)> {
    let tensor = l.float_constant(v);
    let tensor =
        tensor.ok_or_else(|| Error::unsupported("an operand is neither computed nor constant"))?;
    let numbers = tensor.to_f32()?;
    let own = tensor.dims();
    let lead = dims.len().saturating_sub(own.len());
    let steps = super::moves::steps(own);
    let period = period(own, dims, order);
    let mut places = vec![0];
    for &axis in order {
        let (length, step) = match axis.checked_sub(lead) {
            Some(i) if own[i] != 1 => (dims[axis], steps[i] as usize),
            _ if period.is_some() => (1, 0),
            _ => (dims[axis], 0),
        };
        places = places
            .iter()
            .flat_map(|&at| (0..length).map(move |n| at + n * step))
            .collect();
    }
    let laid: Vec<f32> = places.iter().map(|&p| numbers[p]).collect();
    let count = laid.len();
    Ok((Side::Constant(laid), count))
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

/// The grid of a constant of bytes behind DequantizeLinear.
fn stored_grid(l: &Lowering, v: ValueId) -> Option<Grid> {
    let id = l.graph.producer_is(v, "DequantizeLinear")?;
    l.grid_of(id).ok()?
}

/// The buffer of the result, in the order of the first operand.
fn result(l: &mut Lowering, pair: &Pair, v: ValueId, element: Element, grid: Option<Grid>) -> Held {
    super::unary::like(l, &pair.first, v, element, grid)
}

fn integers(l: &mut Lowering, id: NodeId, pair: &Pair, tail: &Tail) -> Result<Option<Held>> {
    let (Some(a), Some(to)) = (l.grid(&pair.first), tail.grid) else {
        return Ok(None);
    };
    let (b, constant) = match &pair.second {
        Side::Computed(h) => match l.grid(h) {
            Some(b) => (b, None),
            None => return Ok(None),
        },
        Side::Constant(numbers) => {
            let v = l.graph.node(id).input(usize::from(!pair.swapped));
            let grid = v.and_then(|v| stored_grid(l, v));
            let grid = grid.unwrap_or_else(|| own_grid(numbers));
            let bytes: Vec<i8> = numbers.iter().map(|&x| grid.integer(x)).collect();
            (grid, Some(bytes))
        }
    };
    let (lo, hi) = tail.bounds.bytes(to);
    let count = pair.first.dims.iter().product();
    let ratio = |g: Grid| f64::from(g.scale) / f64::from(to.scale);
    let minus = |second: bool| pair.op == Op::Sub && second != pair.swapped;
    let sign = |negative: bool| if negative { -1.0 } else { 1.0 };
    let layer: Box<dyn Layer> = match pair.op {
        Op::Add | Op::Sub => {
            let factors = [ratio(a) * sign(minus(false)), ratio(b) * sign(minus(true))];
            let sum =
                integer::Add8::of(factors, [a.zero as i8, b.zero as i8]).ok_or_else(|| {
                    Error::unsupported(
                        "the scales of its operands are far larger than that of its result",
                    )
                })?;
            Box::new(Add8 {
                count,
                period: pair.period,
                sum,
                zero: to.zero,
                bounds: [lo, hi],
                constant,
            })
        }
        Op::Mul => Box::new(Mul8 {
            count,
            period: pair.period,
            zeros: [a.zero, b.zero],
            to: Requant::new(&[ratio(a) * f64::from(b.scale)], 1 << 16, to.zero, lo, hi)?,
            constant,
        }),
        Op::Div => return Ok(None),
    };
    let made = result(l, pair, tail.value, Element::I8, tail.grid);
    let mut reads = vec![&pair.first];
    if let Side::Computed(h) = &pair.second {
        reads.push(h);
    }
    l.boxed(id, &reads, &made, layer);
    Ok(Some(made))
}

fn floats(l: &mut Lowering, id: NodeId, pair: &Pair, tail: &Tail) -> Result<Held> {
    let first = l.float(&pair.first)?;
    let (second, constant) = match &pair.second {
        Side::Computed(h) => (Some(l.float(h)?), None),
        Side::Constant(n) => (None, Some(n.clone())),
    };
    let layer = BinaryF32 {
        op: pair.op,
        count: first.dims.iter().product(),
        period: pair.period,
        constant,
        swapped: pair.swapped,
    };
    let mut made = result(l, pair, tail.value, Element::F32, None);
    let reads: Vec<&Held> = std::iter::once(&first).chain(&second).collect();
    l.step(id, &reads, &made, layer);
    if tail.bounds != Bounds::NONE {
        let clip = Unary::clip(tail.bounds, made.dims.iter().product());
        let clipped = super::unary::like(l, &made, tail.value, Element::F32, None);
        l.step(id, &[&made], &clipped, clip);
        made = clipped;
    }
    Ok(l.quantized(made, tail))
}

/// What may be written over: the first operand, and the second where it is not repeated.
fn over(read: usize, count: usize, period: usize) -> Option<Overlap> {
    (read == 0 || count == period).then_some(Overlap::Behind(0))
}

/// The second operand in C.
fn operand(call: &mut Call, constant: Option<&[i8]>) -> String {
    match constant {
        Some(data) => call.bytes(
            "operand",
            &data.iter().map(|&x| x as u8).collect::<Vec<_>>(),
        ),
        None => call.reads[1].clone(),
    }
}

impl Layer for Add8 {
    fn kernel(&self) -> &'static str {
        "add8"
    }

    fn emit(&self, call: &mut Call) -> String {
        let b = operand(call, self.constant.as_deref());
        let integer::Add8 {
            mult_a,
            mult_b,
            bias,
            shift,
        } = self.sum;
        let fields = format!(
            ".count = {}, .b_count = {}, .mult_a = {mult_a}, .mult_b = {mult_b}, .bias = {}, .shift = {shift}, \
             .zero = {}, .lo = {}, .hi = {}",
            self.count,
            self.period,
            super::c_int(bias),
            self.zero,
            self.bounds[0],
            self.bounds[1]
        );
        let layer = call.parameters("add", &fields);
        let f = call.kernel("add8");
        format!("{f}(&{layer}, {}, {b}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].i8();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].i8());
        let pairs = a.iter().zip(b.iter().cycle());
        let sums = pairs.map(|(&a, &b)| self.sum.apply(a, b, self.zero, self.bounds));
        *write = Data::I8(sums.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(read, self.count, self.period)
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
        let b = operand(call, self.constant.as_deref());
        let to = super::requant(call, &[], &self.to);
        let fields = format!(
            ".count = {}, .b_count = {}, .zero_a = {}, .zero_b = {}, .to = {to}",
            self.count, self.period, self.zeros[0], self.zeros[1]
        );
        let layer = call.parameters("mul", &fields);
        let f = call.kernel("mul8");
        format!("{f}(&{layer}, {}, {b}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].i8();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].i8());
        let products = a.iter().zip(b.iter().cycle()).map(|(&a, &b)| {
            let acc = (i32::from(a) - self.zeros[0]) * (i32::from(b) - self.zeros[1]);
            self.to.apply(acc, 0) as i8
        });
        *write = Data::I8(products.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(read, self.count, self.period)
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: self.constant.as_ref().map_or(0, Vec::len) + 4,
        }
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
        let (whole, part) = (self.count / self.period.max(1), self.period);
        let full = format!("{{0, 0, 0, {part}, 1}}");
        let again = "{0, 0, 0, 0, 1}".to_owned();
        let x = call.reads[0].clone();
        let [(a, a_steps), (b, b_steps)] = match self.swapped {
            true => [(b, again), (x, full)],
            false => [(x, full), (b, again)],
        };
        let fields =
            format!(".size = {{1, 1, 1, {whole}, {part}}}, .a = {a_steps}, .b = {b_steps}");
        let layer = call.parameters("broadcast", &fields);
        let f = call.kernel(self.kernel());
        format!("{f}(&{layer}, {a}, {b}, {});", call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let a = reads[0].f32();
        let b = self.constant.as_deref().unwrap_or_else(|| reads[1].f32());
        let made = a.iter().zip(b.iter().cycle()).map(|(&a, &b)| {
            let (a, b) = if self.swapped { (b, a) } else { (a, b) };
            match self.op {
                Op::Add => a + b,
                Op::Sub => a - b,
                Op::Mul => a * b,
                Op::Div => a / b,
            }
        });
        *write = Data::F32(made.collect());
    }

    fn overlap(&self, _: Flavour, read: usize) -> Option<Overlap> {
        over(read, self.count, self.period)
    }
}

/// BatchNormalization of fixed statistics: a factor and a summand for each channel.
pub(super) fn batch_norm(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    if node.int("training_mode").unwrap_or(0) != 0 {
        return Err(Error::unsupported("a norm of training has no emitter"));
    }
    let y = l.output(id, 0)?;
    let mut numbers = Vec::with_capacity(4);
    for i in 1..5 {
        let row = node.input(i).and_then(|v| l.floats(v));
        numbers.push(row.ok_or_else(|| Error::unsupported("its statistics are computed"))?);
    }
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    let x = l.read(id, 0)?;
    let x = l.float(&x)?;
    let x = l.channels_last(&x);
    let channels = numbers[0].len();
    let factor = |c: usize| f64::from(numbers[0][c]) / (f64::from(numbers[3][c]) + epsilon).sqrt();
    let add = |c: usize| f64::from(numbers[1][c]) - f64::from(numbers[2][c]) * factor(c);
    let by_channel = |op: Op, constant: Vec<f32>| BinaryF32 {
        op,
        count: x.dims.iter().product(),
        period: channels,
        constant: Some(constant),
        swapped: false,
    };
    let scaled = super::unary::like(l, &x, y, Element::F32, None);
    let factors = by_channel(Op::Mul, (0..channels).map(|c| factor(c) as f32).collect());
    l.step(id, &[&x], &scaled, factors);
    let made = super::unary::like(l, &x, y, Element::F32, None);
    let summands = by_channel(Op::Add, (0..channels).map(|c| add(c) as f32).collect());
    l.step(id, &[&scaled], &made, summands);
    l.hold(y, made);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::period;

    #[test]
    fn operands_start_again_where_they_end() {
        let last = [0, 2, 3, 1];
        let image = [1, 8, 4, 5];
        assert_eq!(period(&image, &image, &last), Some(160));
        assert_eq!(period(&[1, 8, 1, 1], &image, &last), Some(8));
        assert_eq!(period(&[8, 1, 1], &image, &last), Some(8));
        assert_eq!(period(&[], &image, &last), Some(1));
        assert_eq!(period(&[1, 1, 4, 5], &image, &last), None);
        assert_eq!(period(&[5], &image, &[0, 1, 2, 3]), Some(5));
    }
}
