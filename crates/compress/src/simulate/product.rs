//! A product of bytes: the window of each output, and the sums over it.

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{DType, Error, Graph, Item, Node, NodeId, Result, Tensor, ValueId};

use super::pairs::Row;
use crate::target::PairSums;

/// A product of an activation of bytes and a constant weight of signed bytes.
pub(super) struct Product {
    /// The bytes of the activation.
    x: ValueId,
    /// What is added to them to make them unsigned.
    shift: i16,
    scale: f32,
    /// Their zero point, once unsigned.
    zero: i16,
    bias: Option<ValueId>,
    /// A row for each output channel.
    rows: Vec<Row>,
    /// One, or as many as rows.
    scales: Vec<f32>,
    kind: Kind,
}

enum Kind {
    /// The last axis of the activation meets the rows.
    Matrix,
    /// The lengths of the weight: filters, channels of a group, kernel.
    Conv { dims: Vec<usize>, groups: usize },
}

/// A DequantizeLinear with constant parameters and without blocks.
struct Dequantized {
    ints: ValueId,
    scales: Vec<f32>,
    zeros: Vec<i64>,
    axis: i64,
}

fn dequantized(graph: &Graph, v: ValueId) -> Result<Option<Dequantized>> {
    let Some(id) = graph.producer_is(v, "DequantizeLinear") else {
        return Ok(None);
    };
    let node = graph.node(id);
    if !node.domain.is_empty() || node.int("block_size").unwrap_or(0) != 0 {
        return Ok(None);
    }
    let (Some(ints), Some(scale)) = (node.input(0), node.input(1).and_then(|v| graph.constant(v)))
    else {
        return Ok(None);
    };
    let zeros = match node.input(2) {
        None => Vec::new(),
        Some(v) => match graph.constant(v) {
            Some(t) => t.to_i64()?,
            None => return Ok(None),
        },
    };
    Ok(Some(Dequantized {
        ints,
        scales: scale.to_f32()?.into_owned(),
        zeros,
        axis: node.int("axis").unwrap_or(1),
    }))
}

/// True where a node multiplies two dequantised values.
pub(super) fn multiplies(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let is_dequantized = |i: usize| {
        let v = node.input(i);
        v.is_some_and(|v| graph.producer_is(v, "DequantizeLinear").is_some())
    };
    is_product(node) && is_dequantized(0) && is_dequantized(1) && !is_depthwise(graph, node)
}

fn is_product(node: &Node) -> bool {
    node.is("Conv") || node.is("MatMul") || node.is("Gemm")
}

fn groups(node: &Node) -> usize {
    usize::try_from(node.int("group").unwrap_or(1)).map_or(1, |g| g.max(1))
}

/// True where each output channel reads one input channel, of several.
fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let weight = node.input(1).and_then(|v| graph.value(v).producer());
    let ints = weight.and_then(|(id, _)| graph.constant(graph.node(id).input(0)?));
    let depth = ints.and_then(|t| t.dims().get(1).copied());
    node.is("Conv") && groups(node) > 1 && depth == Some(1)
}

impl Product {
    /// The product at `id`, where its sums are simulated.
    pub fn of(graph: &Graph, id: NodeId) -> Result<Option<Self>> {
        let node = graph.node(id);
        if !is_product(node) || !node.domain.is_empty() || is_depthwise(graph, node) {
            return Ok(None);
        }
        let (Some(x), Some(w)) = (node.input(0), node.input(1)) else {
            return Ok(None);
        };
        let (Some(x), Some(w)) = (dequantized(graph, x)?, dequantized(graph, w)?) else {
            return Ok(None);
        };
        let Some(weight) = graph.constant(w.ints).filter(|t| t.dtype() == DType::I8) else {
            return Ok(None);
        };
        let Some((rows, axis, kind)) = rows(node, weight)? else {
            return Ok(None);
        };
        let one = |s: &[f32]| s.len() == 1;
        let rank = weight.rank() as i64;
        let on_rows = w.scales.len() == rows.len() && (w.axis + rank) % rank == axis;
        let shift = match unsigned(graph, &x) {
            Some(shift) if one(&x.scales) && (one(&w.scales) || on_rows) => shift,
            _ => return Ok(None),
        };
        if w.zeros.iter().any(|&z| z != 0) {
            return Ok(None);
        }
        let zero = x.zeros.first().copied().unwrap_or(0) as i16;
        Ok(Some(Self {
            x: x.ints,
            shift,
            scale: x.scales[0],
            zero: zero + shift,
            bias: node.input(2),
            rows,
            scales: w.scales,
            kind,
        }))
    }

    /// The values that a run needs.
    pub fn reads(&self) -> Vec<ValueId> {
        std::iter::once(self.x).chain(self.bias).collect()
    }

    /// The result in f32, and how many sums of pairs were made and saturated.
    pub fn run(
        &self,
        node: &Node,
        values: &[Option<Item>],
        pairs: PairSums,
        threads: usize,
    ) -> Result<(Tensor, [u64; 2])> {
        let tensor = |v: ValueId| match &values[v.index()] {
            Some(Item::Tensor(t)) => Ok(t),
            _ => Err(Error::invalid("an input is no tensor")),
        };
        let x = tensor(self.x)?;
        let bias = self.bias.map(tensor).transpose()?;
        let bytes: Vec<i16> = match x.dtype() {
            DType::U8 => x.data::<u8>()?.iter().map(|&b| i16::from(b)).collect(),
            _ => {
                let data = x.data::<i8>()?;
                data.iter().map(|&b| i16::from(b) + self.shift).collect()
            }
        };
        let windows = Windows::of(self, node, x.dims())?;
        let lines = self.lines(&windows, &bytes, pairs, threads);
        let line = self.rows.len();
        let sums = lines.iter().map(|(_, counts)| *counts);
        let counts = sums.fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
        let all: Vec<i64> = lines.into_iter().flat_map(|(sums, _)| sums).collect();
        let bias = match bias {
            None => Vec::new(),
            Some(b) => b.to_f32()?.into_owned(),
        };
        if !bias.is_empty() && bias.len() != 1 && bias.len() != line {
            return Err(Error::unsupported(
                "a bias that is not one number a channel",
            ));
        }
        let mut y = vec![0.0f32; all.len()];
        for (i, &sum) in all.iter().enumerate() {
            let (o, c) = (i / line, i % line);
            let scale = f64::from(self.scale) * f64::from(self.scales[c % self.scales.len()]);
            let b = bias
                .get(c % bias.len().max(1))
                .map_or(0.0, |&b| f64::from(b));
            y[windows.place(o, c, line)] = (sum as f64 * scale + b) as f32;
        }
        Ok((Tensor::from_vec(&windows.dims, y)?, counts))
    }

    /// The sums of all outputs, channels fastest, with the counts, in parts by thread.
    fn lines(
        &self,
        windows: &Windows,
        bytes: &[i16],
        pairs: PairSums,
        threads: usize,
    ) -> Vec<(Vec<i64>, [u64; 2])> {
        let share = windows.count.div_ceil(threads.max(1)).max(1);
        let work = |part: std::ops::Range<usize>| {
            let mut sums = Vec::with_capacity(part.len() * self.rows.len());
            let mut counts = [0, 0];
            let mut window = Vec::new();
            for o in part {
                for (g, rows) in self.rows.chunks(windows.filters).enumerate() {
                    windows.gather(o, g, bytes, self.zero, &mut window);
                    counts[0] += (rows.len() * window.len().div_ceil(2)) as u64;
                    let zero = i64::from(self.zero);
                    let row = |r: &Row| r.sum(&window, zero, pairs, &mut counts[1]);
                    sums.extend(rows.iter().map(row));
                }
            }
            (sums, counts)
        };
        std::thread::scope(|scope| {
            let starts = (0..windows.count).step_by(share);
            let parts = starts.map(|s| s..(s + share).min(windows.count));
            let handles: Vec<_> = parts.map(|p| scope.spawn(|| work(p))).collect();
            let joined = handles.into_iter().map(|h| match h.join() {
                Ok(part) => part,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        })
    }
}

/// What to add to the bytes of an activation to make them unsigned; `None` where they are none.
fn unsigned(graph: &Graph, x: &Dequantized) -> Option<i16> {
    let (id, _) = graph.value(x.ints).producer()?;
    let node = graph.node(id);
    let zero = node.is("QuantizeLinear").then(|| node.input(2)).flatten();
    let zero = zero.and_then(|v| graph.constant(v)).map(Tensor::dtype);
    let declared = || graph.value(x.ints).tensor_type().map(|t| t.dtype);
    match zero.or_else(declared)? {
        DType::U8 => Some(0),
        DType::I8 => Some(128),
        _ => None,
    }
}

/// The rows of a weight, the axis of its output channels, and how the product goes.
fn rows(node: &Node, weight: &Tensor) -> Result<Option<(Vec<Row>, i64, Kind)>> {
    let (dims, data) = (weight.dims(), weight.data::<i8>()?);
    if data.is_empty() {
        return Ok(None);
    }
    if node.is("Conv") {
        let groups = groups(node);
        if dims.len() < 3 || dims[0] % groups != 0 {
            return Ok(None);
        }
        let (depth, taps) = (dims[1], dims[2..].iter().product::<usize>());
        let row = |filter: &[i8]| {
            let at = |i: usize| filter[i % depth * taps + i / depth];
            Row::new(&(0..filter.len()).map(at).collect::<Vec<_>>())
        };
        let rows = data.chunks_exact(depth * taps).map(row).collect();
        let dims = dims.to_vec();
        return Ok(Some((rows, 0, Kind::Conv { dims, groups })));
    }
    let plain = |name| node.float(name).unwrap_or(1.0) == 1.0;
    if dims.len() != 2 || node.int("transA").unwrap_or(0) != 0 || !plain("alpha") || !plain("beta")
    {
        return Ok(None);
    }
    let transposed = node.is("Gemm") && node.int("transB").unwrap_or(0) != 0;
    let (k, n) = if transposed {
        (dims[1], dims[0])
    } else {
        (dims[0], dims[1])
    };
    let at = |i: usize, o: usize| data[if transposed { o * k + i } else { i * n + o }];
    let row = |o: usize| Row::new(&(0..k).map(|i| at(i, o)).collect::<Vec<_>>());
    let axis = i64::from(!transposed);
    Ok(Some(((0..n).map(row).collect(), axis, Kind::Matrix)))
}

/// Where the numbers of each sum lie.
struct Windows {
    /// Outputs without their channels.
    count: usize,
    /// Rows that share a window.
    filters: usize,
    /// Lengths of the result.
    dims: Vec<usize>,
    /// Numbers of a sum.
    length: usize,
    conv: Option<Spatial>,
}

/// The windows of a convolution.
struct Spatial {
    window: Window,
    plane: usize,
    area: usize,
    depth: usize,
    channels: usize,
}

impl Windows {
    fn of(product: &Product, node: &Node, x: &[usize]) -> Result<Self> {
        let wrong = || Error::invalid("its input does not fit its weight");
        let outputs = product.rows.len();
        let Kind::Conv { dims, groups } = &product.kind else {
            let (&k, outer) = x.split_last().ok_or_else(wrong)?;
            if product.rows.iter().any(|r| r.len() != k) {
                return Err(wrong());
            }
            return Ok(Self {
                count: outer.iter().product(),
                filters: outputs,
                dims: [outer, &[outputs]].concat(),
                length: k,
                conv: None,
            });
        };
        if x.len() != dims.len() || Some(x[1]) != dims[1].checked_mul(*groups) {
            return Err(wrong());
        }
        let window = Window::of(node, &x[2..], &dims[2..])?;
        let output = window.output();
        let plane: usize = output.iter().product();
        let dims_out = [&[x[0], outputs], &output[..]].concat();
        Ok(Self {
            count: x[0] * plane,
            filters: outputs / groups,
            dims: dims_out,
            length: dims[1] * window.taps(),
            conv: Some(Spatial {
                window,
                plane,
                area: x[2..].iter().product(),
                depth: dims[1],
                channels: x[1],
            }),
        })
    }

    /// The activations of output `o` and group `group`, padding as `zero`.
    fn gather(&self, o: usize, group: usize, x: &[i16], zero: i16, into: &mut Vec<i16>) {
        into.clear();
        let Some(s) = &self.conv else {
            into.extend_from_slice(&x[o * self.length..][..self.length]);
            return;
        };
        into.resize(self.length, zero);
        let (n, at) = (o / s.plane, o % s.plane);
        let first = (n * s.channels + group * s.depth) * s.area;
        let mut sources = Vec::new();
        s.window.sources(at, &mut sources);
        for (tap, i) in sources {
            let taken = &mut into[tap * s.depth..][..s.depth];
            for (c, x_out) in taken.iter_mut().enumerate() {
                *x_out = x[first + c * s.area + i];
            }
        }
    }

    /// Where channel `c` of output `o` lies in the result.
    fn place(&self, o: usize, c: usize, channels: usize) -> usize {
        match &self.conv {
            None => o * channels + c,
            Some(s) => (o / s.plane * channels + c) * s.plane + o % s.plane,
        }
    }
}
