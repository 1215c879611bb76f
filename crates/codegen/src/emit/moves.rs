//! Transpose, Reshape and their kin: mostly only another way to read what is there.

use edgesmith_ir::{Error, NodeId, Result};

use super::Call;
use crate::arena::Overlap;
use crate::kernels::Flavour;
use crate::lower::{Held, Lowering};
use crate::program::{Data, Element, Layer};

/// Axes in another order, or a plain copy.
pub(crate) struct Permute {
    element: Element,
    /// Lengths of the result.
    dims: Vec<usize>,
    /// Elements from one to the next along each axis, in what is read.
    strides: Vec<usize>,
}

impl Permute {
    /// Axis `i` of the result is axis `perm[i]` of what is read, of lengths `laid`.
    pub fn new(element: Element, laid: &[usize], perm: &[usize]) -> Self {
        let mut steps = vec![1; laid.len()];
        for i in (1..laid.len()).rev() {
            steps[i - 1] = steps[i] * laid[i];
        }
        let mut dims: Vec<usize> = Vec::new();
        let mut strides: Vec<usize> = Vec::new();
        for &p in perm.iter().filter(|&&p| laid[p] != 1) {
            match (dims.last_mut(), strides.last_mut()) {
                (Some(d), Some(s)) if *s == steps[p] * laid[p] => {
                    *d *= laid[p];
                    *s = steps[p];
                }
                _ => {
                    dims.push(laid[p]);
                    strides.push(steps[p]);
                }
            }
        }
        if dims.is_empty() {
            (dims, strides) = (vec![1], vec![1]);
        }
        Self {
            element,
            dims,
            strides,
        }
    }

    fn sources(&self) -> Vec<usize> {
        let mut all = vec![0];
        for (&d, &s) in self.dims.iter().zip(&self.strides) {
            all = all
                .iter()
                .flat_map(|&at| (0..d).map(move |i| at + i * s))
                .collect();
        }
        all
    }

    fn is_copy(&self) -> bool {
        self.strides == [1]
    }
}

impl Layer for Permute {
    fn kernel(&self) -> &'static str {
        if self.is_copy() { "memcpy" } else { "transpose" }
    }

    fn emit(&self, call: &mut Call) -> String {
        let bytes = self.element.bytes();
        let (x, y) = (call.reads[0].clone(), call.write.clone());
        if self.is_copy() {
            return format!("(void)memcpy({y}, {x}, {}u);", self.dims[0] * bytes);
        }
        let pad = 5usize.saturating_sub(self.dims.len());
        let list = |v: &[usize], fill: usize| {
            let all = std::iter::repeat_n(fill, pad).chain(v.iter().copied());
            all.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
        };
        let fields = format!(
            ".dims = {{{}}}, .strides = {{{}}}, .bytes = {bytes}",
            list(&self.dims, 1),
            list(&self.strides, 0)
        );
        let layer = call.parameters("transpose", &fields);
        let f = call.kernel("transpose");
        format!("{f}(&{layer}, {x}, {y});")
    }

    fn eval(&self, reads: &[&Data], write: &mut Data) {
        let sources = self.sources();
        match (reads[0], write) {
            (Data::I8(x), Data::I8(y)) => *y = sources.iter().map(|&i| x[i]).collect(),
            (Data::I16(x), Data::I16(y)) => *y = sources.iter().map(|&i| x[i]).collect(),
            (Data::I32(x), Data::I32(y)) => *y = sources.iter().map(|&i| x[i]).collect(),
            (Data::F32(x), Data::F32(y)) => *y = sources.iter().map(|&i| x[i]).collect(),
            _ => {}
        }
    }

    fn overlap(&self, _: Flavour, _: usize) -> Option<Overlap> {
        None
    }
}

/// Transpose: the order of axes in memory stays as it is.
pub(crate) fn transpose(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let rank = x.dims.len();
    let perm: Vec<usize> = match node.ints("perm") {
        Some(perm) => perm.iter().map(|&p| p as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    let y = node.output(0).ok_or_else(|| Error::invalid("it has no output"))?;
    let mut order = Vec::with_capacity(rank);
    for &axis in &x.order {
        let place = perm.iter().position(|&p| p == axis);
        order.push(place.ok_or_else(|| Error::invalid("perm does not name every axis"))?);
    }
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    l.hold(
        y,
        Held {
            buffer: x.buffer,
            dims,
            order,
        },
    );
    Ok(())
}

/// Reshape, Flatten, Squeeze, Unsqueeze.
pub(crate) fn reshape(l: &mut Lowering, id: NodeId) -> Result<()> {
    l.reshaped(id)
}

/// Identity, Dropout, and casts to the same type.
pub(crate) fn identity(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let y = node.output(0).ok_or_else(|| Error::invalid("it has no output"))?;
    if node.is("Dropout") && node.output(1).is_some_and(|m| !l.graph.value(m).consumers().is_empty()) {
        return Err(Error::unsupported("the mask of Dropout is read"));
    }
    l.hold(y, x);
    Ok(())
}
