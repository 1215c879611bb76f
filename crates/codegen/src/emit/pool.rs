//! MaxPool, AveragePool and their global kin, and ReduceMean over whole images.

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use crate::arena::Overlap;
use crate::fixed::Requant;
use crate::kernels::{Flavour, Geometry};
use crate::lower::{Held, Lowering, Tail, last};
use crate::program::{Cost, Data, Element, Grid, Layer};

/// What a window gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Max,
    /// The mean of what is in the image.
    Mean,
    /// The mean of the window, padding counted as zeros.
    MeanOfAll,
}

/// Windows of bytes.
#[derive(Clone)]
struct Pool8 {
    kind: Kind,
    geometry: Geometry,
    in_zero: i32,
    /// Windows at the border have a mean of fewer elements, and multipliers are by how many, from 1; else
    /// there is one multiplier.
    counted: bool,
    to: Requant,
}

/// Windows of floats.
struct PoolF32 {
    kind: Kind,
    geometry: Geometry,
}

/// Pools, and means over whole images.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    if node.output(1).is_some() {
        return Err(Error::unsupported(
            "the places of the greatest elements are asked for",
        ));
    }
    let x = l.read(id, 0)?;
    let kind = match node.op.as_str() {
        "MaxPool" | "GlobalMaxPool" => Kind::Max,
        "AveragePool" if node.int("count_include_pad").unwrap_or(0) != 0 => Kind::MeanOfAll,
        _ => Kind::Mean,
    };
    let geometry = match node.op.as_str() {
        "ReduceMean" if is_whole(l, id, &x)? => all(&x.dims)?,
        "ReduceMean" => return super::norm::reduce(l, id),
        "GlobalAveragePool" | "GlobalMaxPool" => all(&x.dims)?,
        _ => windows(l, id, &x.dims)?,
    };
    let x = l.channels_last(&x);
    make(l, id, &x, kind, geometry, y)
}

fn make(
    l: &mut Lowering,
    id: NodeId,
    x: &Held,
    kind: Kind,
    geometry: Geometry,
    y: edgesmith_ir::ValueId,
) -> Result<()> {
    let tail = l.tail(y);
    let dims = l.typed(y)?.1;
    // A maximum keeps its grid; what follows may change it. It is one of integers without a grid too.
    let keeps = kind == Kind::Max;
    let is_bytes = l.of(x).element == Element::I8;
    let plain = Grid {
        scale: 1.0,
        zero: 0,
        unsigned: false,
    };
    if let Some(from) = l.grid(x).or((keeps && is_bytes).then_some(plain)) {
        let grid = if keeps { Some(from) } else { tail.grid };
        if let Some(to) = grid {
            let taps = geometry.kernel[0] * geometry.kernel[1];
            let ratio = f64::from(from.scale) / f64::from(to.scale);
            let counted = kind == Kind::Mean && is_cut(&geometry);
            let from_count = if counted { 1 } else { taps };
            let factors: Vec<f64> = (from_count..=taps).map(|n| ratio / n as f64).collect();
            let (lo, hi) = match keeps {
                true => (-128, 127),
                false => tail.bounds.bytes(to),
            };
            let layer = Pool8 {
                kind,
                geometry,
                in_zero: from.zero,
                counted,
                to: Requant::new(&factors, 256 * taps as i64, to.zero, lo, hi)?,
            };
            let value = if keeps { y } else { tail.value };
            let own = if keeps { l.of(x).grid } else { Some(to) };
            let made = result(l, value, Element::I8, &dims, own);
            l.step(id, &[x], &made, layer);
            match keeps {
                true => l.hold(y, made),
                false => l.finish(&tail, made),
            }
            return Ok(());
        }
    }
    let x = l.float(x)?;
    let made = result(l, y, Element::F32, &dims, None);
    l.step(id, &[&x], &made, PoolF32 { kind, geometry });
    let plain = Tail {
        nodes: Vec::new(),
        value: y,
        ..tail
    };
    l.finish(&plain, made);
    Ok(())
}

/// The buffer of the result: channels-last where it has the axes of an image.
fn result(
    l: &mut Lowering,
    v: edgesmith_ir::ValueId,
    element: Element,
    dims: &[usize],
    grid: Option<Grid>,
) -> Held {
    let name = l.graph.value(v).name.clone();
    let mut made = l.buffer(&name, element, dims, grid);
    if dims.len() > 2 {
        made.order = last(dims.len());
    }
    made
}

/// Whether a window reaches over the border.
fn is_cut(g: &Geometry) -> bool {
    let reach = |i: usize, input: usize, output: usize| {
        g.pad[i] > 0 || (output.saturating_sub(1)) * g.stride[i] + g.kernel[i] > input + g.pad[i]
    };
    reach(0, g.in_h, g.out_h) || reach(1, g.in_w, g.out_w)
}

/// The fields of `es_pool`.
fn fields(g: &Geometry) -> String {
    format!(
        ".in_h = {}, .in_w = {}, .in_c = {}, .out_h = {}, .out_w = {}, .kernel_h = {}, .kernel_w = {}, \
         .stride_h = {}, .stride_w = {}, .pad_top = {}, .pad_left = {}",
        g.in_h,
        g.in_w,
        g.in_c,
        g.out_h,
        g.out_w,
        g.kernel[0],
        g.kernel[1],
        g.stride[0],
        g.stride[1],
        g.pad[0],
        g.pad[1]
    )
}

/// Rows and columns of a single image; rows are one where it has one axis.
fn image(dims: &[usize]) -> Result<[usize; 2]> {
    match *dims {
        [1, _, w] => Ok([1, w]),
        [1, _, h, w] => Ok([h, w]),
        _ => Err(Error::unsupported(format!(
            "an input of lengths {dims:?} is no single image"
        ))),
    }
}

/// One window over the whole image.
fn all(dims: &[usize]) -> Result<Geometry> {
    let [h, w] = image(dims)?;
    Ok(Geometry {
        in_h: h,
        in_w: w,
        in_c: dims[1],
        out_h: 1,
        out_w: 1,
        out_c: dims[1],
        kernel: [h, w],
        stride: [1, 1],
        pad: [0, 0],
        dilation: [1, 1],
        groups: dims[1],
    })
}

/// Whether a mean is over every spatial axis of one image, and no other.
fn is_whole(l: &Lowering, id: NodeId, x: &Held) -> Result<bool> {
    let spatial: Vec<usize> = (2..x.dims.len()).collect();
    let axes = super::norm::axes(l, id, x.dims.len())?;
    Ok((3..=4).contains(&x.dims.len()) && x.dims[0] == 1 && axes == spatial)
}

/// The windows of a node.
fn windows(l: &Lowering, id: NodeId, dims: &[usize]) -> Result<Geometry> {
    let node = l.graph.node(id);
    image(dims)?;
    let kernel: Vec<usize> = node
        .ints("kernel_shape")
        .ok_or_else(|| Error::invalid("it has no kernel_shape"))?
        .iter()
        .map(|&k| usize::try_from(k).unwrap_or(0))
        .collect();
    let window = Window::of(node, &dims[2..], &kernel)?;
    if window.axes.iter().any(|a| a.dilation != 1 && a.kernel != 1) {
        return Err(Error::unsupported(
            "windows with gaps (dilations) have no emitter",
        ));
    }
    let reaches_past = window.axes.iter().any(|a| {
        let reach = (a.output.saturating_sub(1)) * a.stride + (a.kernel - 1) * a.dilation + 1;
        reach > a.begin + a.input + a.end
    });
    if reaches_past && node.int("count_include_pad").unwrap_or(0) != 0 {
        return Err(Error::unsupported("ceil_mode with count_include_pad"));
    }
    Ok(Geometry::of(&window, [dims[1]; 2], dims[1]))
}

/// Calls `window` for each output element with its place and the places in its window.
fn each(g: &Geometry, mut window: impl FnMut(usize, &[usize])) {
    let mut places = Vec::new();
    let place = |o: usize, k: usize, axis: usize, length: usize| {
        (o * g.stride[axis] + k * g.dilation[axis])
            .checked_sub(g.pad[axis])
            .filter(|&i| i < length)
    };
    for p in 0..g.out_h * g.out_w {
        for c in 0..g.out_c {
            places.clear();
            for ky in 0..g.kernel[0] {
                for kx in 0..g.kernel[1] {
                    let y = place(p / g.out_w, ky, 0, g.in_h);
                    let x = place(p % g.out_w, kx, 1, g.in_w);
                    places.extend(y.zip(x).map(|(y, x)| (y * g.in_w + x) * g.in_c + c));
                }
            }
            window(p * g.out_c + c, &places);
        }
    }
}

impl Layer for Pool8 {
    fn kernel(&self) -> &'static str {
        if self.kind == Kind::Max {
            "maxpool8"
        } else {
            "avgpool8"
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let at = fields(&self.geometry);
        let f = call.kernel(self.kernel());
        let layer = match self.kind {
            Kind::Max => call.parameters("pool", &at),
            _ => {
                let to = super::requant(call, &[], &self.to);
                let fields = format!(
                    ".at = {{{at}}}, .in_zero = {}, .counted = {}, .to = {to}",
                    self.in_zero,
                    i32::from(self.counted)
                );
                call.parameters("avgpool", &fields)
            }
        };
        format!("{f}(&{layer}, {}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].i8();
        let Data::I8(y) = write else { return };
        each(&self.geometry, |at, places| {
            let numbers = places.iter().map(|&i| i32::from(x[i]));
            y[at] = match self.kind {
                Kind::Max => numbers.max().unwrap_or(-128) as i8,
                _ => {
                    let acc: i32 = numbers.map(|x| x - self.in_zero).sum();
                    let of = if self.counted {
                        places.len().max(1) - 1
                    } else {
                        0
                    };
                    self.to.apply(acc, of) as i8
                }
            };
        });
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        let g = &self.geometry;
        (g.out_h * g.out_w == 1 || g.kernel == [1, 1]).then_some(Overlap::Behind(0))
    }

    fn windows(&self) -> Option<&Geometry> {
        Some(&self.geometry)
    }

    fn band(&self, geometry: Geometry) -> Option<Box<dyn Layer>> {
        Some(Box::new(Self {
            geometry,
            ..self.clone()
        }))
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: if self.kind == Kind::Max {
                0
            } else {
                4 * self.to.mult.len()
            },
        }
    }
}

impl Layer for PoolF32 {
    fn kernel(&self) -> &'static str {
        if self.kind == Kind::Max {
            "maxpool_f32"
        } else {
            "avgpool_f32"
        }
    }

    fn emit(&self, call: &mut Call) -> String {
        let at = fields(&self.geometry);
        let layer = call.parameters("pool", &at);
        let f = call.kernel(self.kernel());
        let (x, y) = (&call.reads[0], &call.write);
        match self.kind {
            Kind::Max => format!("{f}(&{layer}, {x}, {y});"),
            kind => format!(
                "{f}(&{layer}, {}, {x}, {y});",
                i32::from(kind == Kind::Mean)
            ),
        }
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let x = reads[0].f32();
        let Data::F32(y) = write else { return };
        let taps = self.geometry.kernel[0] * self.geometry.kernel[1];
        each(&self.geometry, |at, places| {
            let numbers = places.iter().map(|&i| x[i]);
            y[at] = match self.kind {
                Kind::Max => numbers.fold(f32::MIN, f32::max),
                Kind::Mean => numbers.sum::<f32>() * (1.0 / places.len() as f32),
                Kind::MeanOfAll => numbers.sum::<f32>() * (1.0 / taps as f32),
            };
        });
    }
}
