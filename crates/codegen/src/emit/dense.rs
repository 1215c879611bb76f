//! Gemm and MatMul by constant weights.

use edgesmith_ir::{DType, Error, NodeId, Result};

use super::conv::{TIMES, folded, times};
use super::{Call, c_float};
use crate::fixed::Requant;
use crate::kernels;
use crate::lower::{Bounds, Held, Lowering, Tail, Weights};
use crate::program::{Cost, Data, Element, Layer};

/// Rows of bytes by a matrix of bytes.
struct Dense8 {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Column by column.
    weights: Vec<i8>,
    bias: Vec<i32>,
    to: To,
    /// Weights have 4 bits; the kernel takes them 16 times, and so are the biases.
    nibbles: bool,
}

/// What sums become.
enum To {
    Bytes(Requant),
    /// Floats: the scale of each column, and bounds.
    Floats(Vec<f32>, Bounds),
}

/// Rows of floats by a matrix.
struct DenseF32 {
    rows: usize,
    depth: usize,
    columns: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    bounds: Bounds,
}

/// How a node multiplies.
struct Product {
    depth: usize,
    columns: usize,
    /// Weights stand column by column in the graph.
    by_columns: bool,
    alpha: f32,
    beta: f32,
}

impl Product {
    /// As the node says; an error where it has no emitter for that.
    fn of(l: &Lowering, id: NodeId) -> Result<Self> {
        let node = l.graph.node(id);
        let w = node
            .input(1)
            .ok_or_else(|| Error::invalid("it has no weights"))?;
        let dims = l.typed(w)?.1;
        let &[rows, columns] = dims.as_slice() else {
            return Err(Error::unsupported(format!(
                "weights of {} axes have no emitter",
                dims.len()
            )));
        };
        let is_gemm = node.is("Gemm");
        let set = |name: &str| is_gemm && node.int(name).unwrap_or(0) != 0;
        if set("transA") {
            return Err(Error::unsupported("a turned input (transA) has no emitter"));
        }
        let by_columns = set("transB");
        let (depth, columns) = if by_columns {
            (columns, rows)
        } else {
            (rows, columns)
        };
        Ok(Self {
            depth,
            columns,
            by_columns,
            alpha: node.float("alpha").filter(|_| is_gemm).unwrap_or(1.0),
            beta: node.float("beta").filter(|_| is_gemm).unwrap_or(1.0),
        })
    }

    /// Weights column by column.
    fn turned<T: Copy>(&self, weights: &[T]) -> Vec<T> {
        if self.by_columns {
            return weights.to_vec();
        }
        let column = |c: usize| (0..self.depth).map(move |k| weights[k * self.columns + c]);
        (0..self.columns).flat_map(column).collect()
    }
}

/// Gemm and MatMul, in the arithmetic that input, weights and result ask for.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let product = Product::of(l, id)?;
    let x = l.read(id, 0)?;
    let x = l.row_major(&x);
    if x.dims.last() != Some(&product.depth) {
        return Err(Error::invalid("rows and weights differ in length"));
    }
    if let Some(()) = wide(l, id, &x, &product, y)? {
        return Ok(());
    }
    if l.typed(y)?.0 == DType::F16 {
        let (weights, bias) = numbers(l, id, &product)?;
        return super::half::dense(l, id, &x, weights, bias, y);
    }
    let tail = l.tail(y);
    let made = match integers(l, id, &x, &product, &tail)? {
        Some(made) => made,
        None => floats(l, id, &x, &product, &tail)?,
    };
    l.finish(&tail, made);
    Ok(())
}

/// The product of integers of 16 bits by bytes, where it is one.
fn wide(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    product: &Product,
    y: edgesmith_ir::ValueId,
) -> Result<Option<()>> {
    let weights = l.graph.node(id).input(1);
    let weights = weights.and_then(|w| l.weights(w, usize::from(!product.by_columns)));
    let plain = product.alpha == 1.0 && product.beta == 1.0;
    let Some(weights) = weights.filter(|_| plain) else {
        return Ok(None);
    };
    let turned = Weights {
        data: product.turned(&weights.data),
        ..weights
    };
    super::int16::dense(l, id, x, turned, y)
}

fn integers(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    product: &Product,
    tail: &Tail,
) -> Result<Option<Held>> {
    let node = l.graph.node(id);
    let axis = usize::from(!product.by_columns);
    let weights = node.input(1).and_then(|w| l.weights(w, axis));
    let (Some(from), Some(weights)) = (l.grid(x), weights) else {
        return Ok(None);
    };
    if product.alpha <= 0.0 || product.beta != 1.0 {
        return Ok(None);
    }
    let scale = |&s: &f32| f64::from(from.scale) * f64::from(s) * f64::from(product.alpha);
    let products: Vec<f64> = weights.scales.iter().map(scale).collect();
    let bias = l.bias(node.input(2), &products)?;
    let data = product.turned(&weights.data);
    let (mut bias, mut bound) = folded(&data, &bias.0, from.zero)?;
    let mut nibbles = false;
    let (to, element) = match tail.grid {
        Some(grid) => {
            let factors = products.iter().map(|p| p / f64::from(grid.scale));
            let mut factors: Vec<f64> = factors.collect();
            nibbles = weights.nibbles && times(&mut bias, &mut bound, &mut factors);
            let (lo, hi) = tail.bounds.bytes(grid);
            (
                To::Bytes(Requant::new(&factors, bound, grid.zero, lo, hi)?),
                Element::I8,
            )
        }
        None => {
            let scales = products.iter().map(|&p| p as f32).collect();
            (To::Floats(scales, tail.bounds), Element::F32)
        }
    };
    let dims = l.typed(tail.value)?.1;
    let name = l.graph.value(tail.value).name.clone();
    let made = l.buffer(&name, element, &dims, tail.grid);
    let dense = Dense8 {
        rows: x.dims.iter().product::<usize>() / product.depth.max(1),
        depth: product.depth,
        columns: product.columns,
        weights: data,
        bias,
        to,
        nibbles,
    };
    l.step(id, &[x], &made, dense);
    Ok(Some(made))
}

/// Weights column by column and biases, in floats.
fn numbers(l: &Lowering, id: NodeId, product: &Product) -> Result<(Vec<f32>, Vec<f32>)> {
    let node = l.graph.node(id);
    let weights = node.input(1).and_then(|w| l.floats(w)).ok_or_else(|| {
        Error::unsupported("both sides are computed").hint("code is made for constant weights")
    })?;
    let bias = match node.input(2) {
        None => vec![0.0; product.columns],
        Some(b) => {
            let b = l
                .floats(b)
                .filter(|b| b.len() == product.columns || b.len() == 1);
            let b =
                b.ok_or_else(|| Error::unsupported("its bias is no constant row of columns"))?;
            (0..product.columns)
                .map(|c| b[c % b.len()] * product.beta)
                .collect()
        }
    };
    let mut weights = product.turned(&weights);
    weights.iter_mut().for_each(|w| *w *= product.alpha);
    Ok((weights, bias))
}

fn floats(l: &mut Lowering, id: NodeId, x: &Held, product: &Product, tail: &Tail) -> Result<Held> {
    let (weights, bias) = numbers(l, id, product)?;
    let dense = DenseF32 {
        rows: x.dims.iter().product::<usize>() / product.depth.max(1),
        depth: product.depth,
        columns: product.columns,
        weights,
        bias,
        bounds: tail.bounds,
    };
    let x = l.float(x)?;
    let dims = l.typed(tail.value)?.1;
    let name = l.graph.value(tail.value).name.clone();
    let made = l.buffer(&name, Element::F32, &dims, None);
    l.step(id, &[&x], &made, dense);
    Ok(l.quantized(made, tail))
}

impl Layer for Dense8 {
    fn kernel(&self) -> &'static str {
        match self.to {
            To::Bytes(_) if self.nibbles => "dense8_w4",
            To::Bytes(_) => "dense8",
            To::Floats(..) => "dense8_f32",
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let packed = match self.to {
            To::Bytes(_) if self.nibbles => {
                kernels::pack_dense_w4(call.flavour(), &self.weights, self.depth)
            }
            To::Bytes(_) => kernels::pack_dense(call.flavour(), &self.weights, self.depth),
            To::Floats(..) => self.weights.iter().map(|&w| w as u8).collect(),
        };
        let weights = call.bytes("weights", &packed);
        let sizes = format!(
            ".rows = {}, .in = {}, .out = {}",
            self.rows, self.depth, self.columns
        );
        let f = call.kernel(self.kernel());
        let layer = match &self.to {
            To::Bytes(to) => {
                let to = super::requant(call, &self.bias, to);
                call.parameters("dense", &format!("{sizes}, .to = {to}"))
            }
            To::Floats(scales, bounds) => {
                let bias = call.i32s("bias", &self.bias);
                let scales = call.f32s("scale", scales);
                let (lo, hi) = (c_float(bounds.lo), c_float(bounds.hi));
                let to = format!(".bias = {bias}, .scale = {scales}, .lo = {lo}, .hi = {hi}");
                call.parameters("dense8f", &format!("{sizes}, {to}"))
            }
        };
        format!(
            "{f}(&{layer}, {}, {weights}, {});",
            call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].i8();
        for r in 0..self.rows {
            let row = &x[r * self.depth..(r + 1) * self.depth];
            for c in 0..self.columns {
                let column = &self.weights[c * self.depth..(c + 1) * self.depth];
                let products = row
                    .iter()
                    .zip(column)
                    .map(|(&a, &b)| i32::from(a) * i32::from(b));
                let times = if self.nibbles { TIMES } else { 1 };
                let acc = self.bias[c] + times * products.sum::<i32>();
                let at = r * self.columns + c;
                match (&self.to, &mut *write) {
                    (To::Bytes(to), Data::I8(y)) => y[at] = to.apply(acc, c) as i8,
                    (To::Floats(scales, bounds), Data::F32(y)) => {
                        y[at] = (acc as f32 * scales[c]).max(bounds.lo).min(bounds.hi);
                    }
                    _ => {}
                }
            }
        }
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: (self.rows * self.depth * self.columns) as u64,
            weights: self.weights.len() / (1 + usize::from(self.nibbles)) + 8 * self.bias.len(),
        }
    }
}

impl Layer for DenseF32 {
    fn kernel(&self) -> &'static str {
        "dense_f32"
    }

    fn emit(&self, call: &mut Call) -> String {
        let packed = kernels::pack_dense_f32(&self.weights, self.depth);
        let weights = call.f32s("weights", &packed);
        let bias = call.f32s("bias", &self.bias);
        let fields = format!(
            ".rows = {}, .in = {}, .out = {}, .bias = {bias}, .lo = {}, .hi = {}",
            self.rows,
            self.depth,
            self.columns,
            c_float(self.bounds.lo),
            c_float(self.bounds.hi)
        );
        let layer = call.parameters("densef", &fields);
        let f = call.kernel("dense_f32");
        format!(
            "{f}(&{layer}, {}, {weights}, {});",
            call.reads[0], call.write
        )
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32();
        let Data::F32(y) = write else { return };
        for r in 0..self.rows {
            let row = &x[r * self.depth..(r + 1) * self.depth];
            for c in 0..self.columns {
                let column = &self.weights[c * self.depth..(c + 1) * self.depth];
                let products = row.iter().zip(column).map(|(a, b)| a * b);
                let sum = products.fold(self.bias[c], |sum, p| sum + p);
                y[r * self.columns + c] = sum.max(self.bounds.lo).min(self.bounds.hi);
            }
        }
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: (self.rows * self.depth * self.columns) as u64,
            weights: 4 * (self.weights.len() + self.bias.len()),
        }
    }
}
