//! Where the windows of convolutions and pools lie: kernel, strides, pads and dilations of each
//! spatial axis, and the length of its output.
//!
//! The rules are those of ONNX Conv and MaxPool (`auto_pad`, `pads`, `ceil_mode`).

use crate::{Error, Node, Result};

/// Kernels, strides, dilations, pads and lengths are at most so large.
const LIMIT: i64 = 1 << 31;

/// The windows of one spatial axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Length of the input.
    pub input: usize,
    /// Taps of the kernel.
    pub kernel: usize,
    /// Input elements from one window to the next.
    pub stride: usize,
    /// Input elements from one tap to the next.
    pub dilation: usize,
    /// Padding before the first element.
    pub begin: usize,
    /// Padding behind the last element.
    pub end: usize,
    /// Number of windows.
    pub output: usize,
}

impl Axis {
    /// The input element under tap `tap` of window `o`; `None` in the padding.
    pub fn source(&self, o: usize, tap: usize) -> Option<usize> {
        (o * self.stride + tap * self.dilation)
            .checked_sub(self.begin)
            .filter(|&i| i < self.input)
    }
}

/// The windows of all spatial axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// One entry for each spatial axis.
    pub axes: Vec<Axis>,
}

impl Window {
    /// The windows of a convolution or pool node over spatial lengths `input` with a kernel of
    /// lengths `kernel`, by the node's `strides`, `dilations`, `pads`, `auto_pad` and
    /// `ceil_mode`.
    ///
    /// # Errors
    /// When an attribute has another number of axes, is out of range, or leaves no output.
    pub fn of(node: &Node, input: &[usize], kernel: &[usize]) -> Result<Self> {
        let spec = WindowSpec::of(node, input.len())?;
        if kernel.len() != input.len() {
            return Err(Error::invalid(format!(
                "the kernel has {} spatial axes, the input {}",
                kernel.len(),
                input.len()
            )));
        }
        let axes = input.iter().zip(kernel).enumerate();
        let axes = axes.map(|(i, (&n, &k))| spec.axis(i, n, k));
        Ok(Self {
            axes: axes.collect::<Result<_>>()?,
        })
    }

    /// Lengths of the output.
    pub fn output(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.output).collect()
    }

    /// Taps of the kernel over all axes.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).product()
    }

    /// Input positions under the window at output position `o` (flat, row major): pairs of the
    /// flat tap and the flat input element, taps in the padding left out.
    pub fn sources(&self, o: usize, into: &mut Vec<(usize, usize)>) {
        into.clear();
        into.push((0, 0));
        let mut stride = self.axes.iter().map(|a| a.output).product::<usize>();
        let mut rest = o;
        for axis in &self.axes {
            stride /= axis.output;
            let at = rest / stride;
            rest %= stride;
            *into = into
                .iter()
                .flat_map(|&(tap, source)| {
                    (0..axis.kernel).filter_map(move |k| {
                        let i = axis.source(at, k)?;
                        Some((tap * axis.kernel + k, source * axis.input + i))
                    })
                })
                .collect();
        }
    }
}

/// How padding is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// By `pads`.
    NotSet,
    /// So that output = ceil(input / stride), the odd element at the end.
    SameUpper,
    /// So that output = ceil(input / stride), the odd element at the start.
    SameLower,
    /// None.
    Valid,
}

impl AutoPad {
    /// The node's `auto_pad`.
    ///
    /// # Errors
    /// When it is none of ONNX's words.
    pub fn of(node: &Node) -> Result<Self> {
        match node.string("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => Ok(Self::NotSet),
            "SAME_UPPER" => Ok(Self::SameUpper),
            "SAME_LOWER" => Ok(Self::SameLower),
            "VALID" => Ok(Self::Valid),
            other => Err(Error::invalid(format!(
                "auto_pad \"{other}\" is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID"
            ))),
        }
    }
}

/// The attributes that place windows, checked, before lengths are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSpec {
    /// How padding is chosen.
    pub auto_pad: AutoPad,
    /// Strides, one for each spatial axis.
    pub strides: Vec<usize>,
    /// Dilations, one for each spatial axis.
    pub dilations: Vec<usize>,
    /// Padding at both ends, one pair for each spatial axis.
    pub pads: Vec<(usize, usize)>,
    /// True where a last partial window counts.
    pub ceil: bool,
}

impl WindowSpec {
    /// The attributes of a node with `axes` spatial axes.
    ///
    /// # Errors
    /// When one has another number of axes or is out of range.
    pub fn of(node: &Node, axes: usize) -> Result<Self> {
        let pads = lengths(node, "pads", 2 * axes, 0)?;
        Ok(Self {
            auto_pad: AutoPad::of(node)?,
            strides: lengths(node, "strides", axes, 1)?,
            dilations: lengths(node, "dilations", axes, 1)?,
            pads: (0..axes).map(|i| (pads[i], pads[axes + i])).collect(),
            ceil: node.int("ceil_mode").unwrap_or(0) != 0,
        })
    }

    /// The windows of spatial axis `i` of length `input` with `kernel` taps.
    ///
    /// # Errors
    /// When a length is out of range or the kernel does not fit.
    pub fn axis(&self, i: usize, input: usize, kernel: usize) -> Result<Axis> {
        let limit = LIMIT as usize;
        if kernel == 0 || kernel > limit || input > limit {
            return Err(Error::invalid(format!(
                "spatial axis {i} has a kernel of {kernel} over a length of {input}"
            )));
        }
        let (stride, dilation) = (self.strides[i], self.dilations[i]);
        let span = (kernel - 1)
            .checked_mul(dilation)
            .ok_or_else(|| Error::invalid(format!("the kernel of spatial axis {i} is too long")))?
            + 1;
        let same = || {
            let output = input.div_ceil(stride);
            (output.saturating_sub(1) * stride + span).saturating_sub(input)
        };
        let (begin, end) = match self.auto_pad {
            AutoPad::NotSet => self.pads[i],
            AutoPad::Valid => (0, 0),
            AutoPad::SameUpper => (same() / 2, same() - same() / 2),
            AutoPad::SameLower => (same() - same() / 2, same() / 2),
        };
        let padded = input + begin + end;
        let room = padded.checked_sub(span).ok_or_else(|| {
            Error::invalid(format!(
                "a kernel spanning {span} does not fit spatial axis {i} of length {input} \
                 padded to {padded}"
            ))
        })?;
        let output = if self.ceil && self.auto_pad == AutoPad::NotSet {
            let whole = room.div_ceil(stride) + 1;
            whole - usize::from((whole - 1) * stride >= input + begin)
        } else {
            room / stride + 1
        };
        Ok(Axis {
            input,
            kernel,
            stride,
            dilation,
            begin,
            end,
            output,
        })
    }
}

/// A list attribute of `count` non-negative lengths, `default` when left out. Strides and
/// dilations (of default 1) are at least 1.
///
/// # Errors
/// When it has another number of entries or one is out of range.
pub fn lengths(node: &Node, name: &str, count: usize, default: usize) -> Result<Vec<usize>> {
    let Some(ints) = node.ints(name).filter(|v| !v.is_empty()) else {
        return Ok(vec![default; count]);
    };
    if ints.len() != count {
        return Err(Error::invalid(format!(
            "attribute \"{name}\" should have {count} entries, found {}",
            ints.len()
        )));
    }
    ints.iter()
        .map(|&v| {
            usize::try_from(v)
                .ok()
                .filter(|&u| u >= default && v <= LIMIT)
                .ok_or_else(|| Error::invalid(format!("attribute \"{name}\" has the entry {v}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attribute;

    fn node(attributes: &[(&str, &[i64])]) -> Node {
        let mut node = Node::new("MaxPool", "p");
        for (name, v) in attributes {
            node.attributes
                .push(((*name).into(), Attribute::Ints(v.to_vec())));
        }
        node
    }

    #[test]
    fn a_strided_padded_convolution_halves_its_input() {
        let n = node(&[("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]);
        assert_eq!(
            Window::of(&n, &[224, 224], &[3, 3]).unwrap().output(),
            [112, 112]
        );
    }

    #[test]
    fn same_padding_puts_the_odd_element_where_it_is_asked() {
        for (word, pads) in [("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 0))] {
            let mut n = node(&[("strides", &[2])]);
            n.attributes
                .push(("auto_pad".into(), Attribute::String(word.into())));
            let a = Window::of(&n, &[4], &[3]).unwrap().axes[0];
            assert_eq!(((a.begin, a.end), a.output), (pads, 2));
        }
    }

    #[test]
    fn a_window_that_would_start_in_the_end_padding_does_not_count() {
        let mut n = node(&[("strides", &[2]), ("pads", &[0, 1])]);
        n.attributes.push(("ceil_mode".into(), Attribute::Int(1)));
        assert_eq!(Window::of(&n, &[4], &[1]).unwrap().output(), [2]);
        assert_eq!(Window::of(&n, &[4], &[2]).unwrap().output(), [2]);
    }

    #[test]
    fn hostile_attributes_are_errors() {
        for (name, v) in [
            ("strides", [-1, 1]),
            ("strides", [0, 1]),
            ("dilations", [i64::MAX, 1]),
            ("pads", [i64::MAX, 1]),
        ] {
            assert!(Window::of(&node(&[(name, &v)]), &[8, 8], &[3, 3]).is_err());
        }
        assert!(Window::of(&node(&[]), &[8], &[0]).is_err());
        assert!(Window::of(&node(&[]), &[8], &[9]).is_err());
        assert!(Window::of(&node(&[]), &[usize::MAX], &[1]).is_err());
    }

    #[test]
    fn sources_leave_the_padding_out() {
        let n = node(&[("pads", &[1, 0, 0, 0])]);
        let w = Window::of(&n, &[2, 2], &[2, 1]).unwrap();
        let mut s = Vec::new();
        w.sources(1, &mut s);
        assert_eq!(s, [(1, 1)]);
        w.sources(3, &mut s);
        assert_eq!(s, [(0, 1), (1, 3)]);
    }
}
