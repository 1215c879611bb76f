//! Resize of images to the nearest pixel, by tables of the rows and columns that are taken.

use edgesmith_ir::eval::{EvalCx, evaluate_tensors, items};
use edgesmith_ir::{Error, NodeId, Result, Tensor};

use super::Call;
use crate::lower::{Lowering, last};
use crate::program::{Cost, Data, Element, Layer};

/// Pixels of an image, taken from others.
struct Nearest {
    element: Element,
    /// Columns of what is read, and channels.
    width: usize,
    channels: usize,
    rows: Vec<u16>,
    columns: Vec<u16>,
}

/// Resize of a single image to the nearest pixel.
pub(super) fn lower(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    let mode = node.string("mode").unwrap_or("nearest");
    if mode != "nearest" {
        return Err(
            Error::unsupported(format!("mode {mode} has no emitter")).hint("nearest has one")
        );
    }
    let x = l.read(id, 0)?;
    let dims = l.typed(y)?.1;
    let (&[1, channels, _, width], &[1, same, ..]) = (x.dims.as_slice(), dims.as_slice()) else {
        return Err(Error::unsupported("it has an emitter for a single image"));
    };
    if channels != same {
        return Err(Error::unsupported("channels are resized too"));
    }
    let (rows, columns) = sources(l, id, &x.dims)?;
    let x = l.channels_last(&x);
    let (element, grid) = (l.of(&x).element, l.of(&x).grid);
    let name = l.graph.value(y).name.clone();
    let mut made = l.buffer(&name, element, &dims, grid);
    made.order = last(dims.len());
    let layer = Nearest {
        element,
        width,
        channels,
        rows,
        columns,
    };
    l.step(id, &[&x], &made, layer);
    l.hold(y, made);
    Ok(())
}

/// The row and column that each row and column of the result is taken from, by the reference evaluation of
/// the node on an image of its own places.
fn sources(l: &Lowering, id: NodeId, dims: &[usize]) -> Result<(Vec<u16>, Vec<u16>)> {
    let node = l.graph.node(id);
    let (height, width) = (dims[2], dims[3]);
    let places = (0..dims[1] * height * width).map(|i| (i % (height * width)) as f32);
    let mut inputs = vec![Some(Tensor::from_vec(dims, places.collect())?)];
    for v in node.inputs().iter().skip(1) {
        inputs.push(match v {
            None => None,
            Some(v) => Some(
                l.constant(*v)
                    .cloned()
                    .ok_or_else(|| Error::unsupported("its lengths or scales are computed"))?,
            ),
        });
    }
    let inputs = items(inputs);
    let made = evaluate_tensors(&EvalCx::new(l.model, node, &inputs))?;
    let made = made
        .first()
        .ok_or_else(|| Error::internal("a Resize gives nothing"))?;
    let (&[_, _, high, wide], taken) = (made.dims(), made.to_f32()?) else {
        return Err(Error::internal("a Resize of an image gives none"));
    };
    let place = |y: usize, x: usize| taken[y * wide + x] as usize;
    let rows: Vec<usize> = (0..high).map(|y| place(y, 0) / width).collect();
    let columns: Vec<usize> = (0..wide).map(|x| place(0, x) % width).collect();
    let straight =
        (0..high).all(|y| (0..wide).all(|x| place(y, x) == rows[y] * width + columns[x]));
    let short = |all: Vec<usize>| {
        all.iter()
            .map(|&i| u16::try_from(i).ok())
            .collect::<Option<Vec<u16>>>()
    };
    match (short(rows), short(columns)) {
        (Some(rows), Some(columns)) if straight => Ok((rows, columns)),
        _ => Err(Error::unsupported(
            "it takes more than one pixel from the image for each",
        )),
    }
}

impl Nearest {
    /// For each pixel of the result the one that it is taken from.
    fn pixels(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().flat_map(move |&r| {
            self.columns
                .iter()
                .map(move |&c| usize::from(r) * self.width + usize::from(c))
        })
    }

    /// The elements of the result.
    fn moved<T: Copy>(&self, x: &[T]) -> Vec<T> {
        let pixel = |p: usize| &x[p * self.channels..(p + 1) * self.channels];
        self.pixels().flat_map(pixel).copied().collect()
    }
}

impl Layer for Nearest {
    fn kernel(&self) -> &'static str {
        "resize_nearest"
    }

    fn emit(&self, call: &mut Call) -> String {
        let rows = call.u16s("rows", &self.rows);
        let columns = call.u16s("columns", &self.columns);
        let fields = format!(
            ".in_w = {}, .out_h = {}, .out_w = {}, .bytes = {}, .rows = {rows}, .columns = {columns}",
            self.width,
            self.rows.len(),
            self.columns.len(),
            self.channels * self.element.bytes()
        );
        let layer = call.parameters("resize", &fields);
        let f = call.kernel("resize_nearest");
        format!("{f}(&{layer}, {}, {});", call.reads[0], call.write)
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        *write = match reads[0] {
            Data::I8(x) => Data::I8(self.moved(x)),
            Data::I16(x) => Data::I16(self.moved(x)),
            Data::I32(x) => Data::I32(self.moved(x)),
            Data::F32(x) => Data::F32(self.moved(x)),
            Data::F16(x) => Data::F16(self.moved(x)),
        };
    }

    fn cost(&self) -> Cost {
        Cost {
            macs: 0,
            weights: 2 * (self.rows.len() + self.columns.len()),
        }
    }
}
