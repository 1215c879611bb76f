//! What one run of a recurrent operator reads: lengths, weights by direction, states and the
//! order of steps.

use super::cell::{Cell, Direction, State};
use super::functions::functions;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, expect_rank, floats};
use crate::{Error, Result, checked_count};

/// The number of directions that attribute `direction` names.
///
/// # Errors
/// When it is none of ONNX's words.
pub fn direction(word: Option<&str>) -> Result<usize> {
    match word.unwrap_or("forward") {
        "forward" | "reverse" => Ok(1),
        "bidirectional" => Ok(2),
        other => Err(Error::invalid(format!(
            "direction \"{other}\" is none of forward, reverse, bidirectional"
        ))),
    }
}

/// Input `i` of these lengths, zeros where it is left out.
///
/// # Errors
/// When it has other lengths, or holds no floats.
pub fn or_zeros(cx: &EvalCx, i: usize, dims: &[usize]) -> Result<Vec<f64>> {
    match cx.optional(i) {
        None => Ok(vec![0.0; checked_count(dims)?]),
        Some(t) => {
            expect_dims(&format!("input {i}"), t, dims)?;
            floats(t)
        }
    }
}

/// Lengths of one run, and where its elements lie.
pub struct Extent {
    steps: usize,
    batch: usize,
    /// Width of the input.
    pub width: usize,
    /// Width of the hidden state.
    pub size: usize,
    /// 1 or 2.
    pub directions: usize,
    /// The batch is the first axis.
    batch_first: bool,
}

impl Extent {
    fn of(cx: &EvalCx, gates: usize) -> Result<Self> {
        let (x, r) = (cx.input(0)?, cx.input(2)?);
        expect_rank("the input", x, 3..=3)?;
        expect_rank("the recurrence weight", r, 3..=3)?;
        let batch_first = cx.int("layout", 0) != 0;
        let (steps, batch) = match batch_first {
            true => (x.dims()[1], x.dims()[0]),
            false => (x.dims()[0], x.dims()[1]),
        };
        let (width, size) = (x.dims()[2], r.dims()[2]);
        let directions = direction(cx.node.string("direction"))?;
        let rows = size.saturating_mul(gates);
        expect_dims("the weight", cx.input(1)?, &[directions, rows, width])?;
        expect_dims("the recurrence weight", r, &[directions, rows, size])?;
        Ok(Self {
            steps,
            batch,
            width,
            size,
            directions,
            batch_first,
        })
    }

    /// Where the state of sample `b` in direction `d` lies in a state tensor.
    pub fn state(&self, d: usize, b: usize) -> std::ops::Range<usize> {
        let index = match self.batch_first {
            true => b * self.directions + d,
            false => d * self.batch + b,
        };
        index * self.size..(index + 1) * self.size
    }

    /// Lengths of a state tensor.
    pub fn state_dims(&self) -> [usize; 3] {
        match self.batch_first {
            true => [self.batch, self.directions, self.size],
            false => [self.directions, self.batch, self.size],
        }
    }

    /// Where the output of step `t` lies.
    pub fn output(&self, t: usize, d: usize, b: usize) -> std::ops::Range<usize> {
        let index = match self.batch_first {
            true => (b * self.steps + t) * self.directions + d,
            false => (t * self.directions + d) * self.batch + b,
        };
        index * self.size..(index + 1) * self.size
    }

    /// Lengths of the outputs of all steps.
    pub fn output_dims(&self) -> [usize; 4] {
        match self.batch_first {
            true => [self.batch, self.steps, self.directions, self.size],
            false => [self.steps, self.directions, self.batch, self.size],
        }
    }

    /// Where the input of step `t` lies.
    pub fn input(&self, t: usize, b: usize) -> std::ops::Range<usize> {
        let index = match self.batch_first {
            true => b * self.steps + t,
            false => t * self.batch + b,
        };
        index * self.width..(index + 1) * self.width
    }
}

/// The inputs of a run.
pub struct Run {
    /// Lengths and places.
    pub extent: Extent,
    /// The elements of the input.
    pub x: Vec<f64>,
    /// Hidden states before the first step, then what a run makes of them.
    pub hidden: Vec<f64>,
    /// As `hidden`, the cells.
    pub cells: Vec<f64>,
    /// The weights of each direction.
    pub weights: Vec<Direction>,
    lens: Vec<usize>,
    reverse: bool,
}

impl Run {
    /// The inputs in ONNX's order.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn of(cx: &EvalCx, cell: &Cell) -> Result<Self> {
        let extent = Extent::of(cx, cell.gates)?;
        let lens = match cx.optional(4) {
            None => vec![extent.steps; extent.batch],
            Some(t) => {
                expect_dims("sequence_lens", t, &[extent.batch])?;
                let len = |l: i64| usize::try_from(l).unwrap_or(0).min(extent.steps);
                t.to_i64()?.into_iter().map(len).collect()
            }
        };
        Ok(Self {
            x: floats(cx.input(0)?)?,
            hidden: or_zeros(cx, 5, &extent.state_dims())?,
            cells: or_zeros(cx, 6, &extent.state_dims())?,
            weights: directions(cx, &extent, cell)?,
            lens,
            reverse: cx.node.string("direction") == Some("reverse"),
            extent,
        })
    }

    /// Every direction and sample.
    pub fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let batch = self.extent.batch;
        (0..self.extent.directions).flat_map(move |d| (0..batch).map(move |b| (d, b)))
    }

    /// The places in time of a sample's steps, in the order in which direction `d` takes them.
    pub fn times(&self, d: usize, b: usize) -> Vec<usize> {
        let len = self.lens[b];
        match d == 1 || self.reverse {
            true => (0..len).rev().collect(),
            false => (0..len).collect(),
        }
    }

    /// The state of a sample.
    pub fn state(&self, d: usize, b: usize) -> State {
        let at = self.extent.state(d, b);
        State {
            hidden: self.hidden[at.clone()].to_vec(),
            cell: self.cells[at].to_vec(),
        }
    }

    /// Puts the state of a sample in its place.
    pub fn set_state(&mut self, d: usize, b: usize, state: &State) {
        let at = self.extent.state(d, b);
        self.hidden[at.clone()].copy_from_slice(&state.hidden);
        self.cells[at].copy_from_slice(&state.cell);
    }
}

fn directions(cx: &EvalCx, e: &Extent, cell: &Cell) -> Result<Vec<Direction>> {
    let functions = functions(cx, cell.defaults, e.directions)?;
    let bias = or_zeros(cx, 3, &[e.directions, 2 * cell.gates * e.size])?;
    let peephole = match cx.optional(7) {
        Some(_) => or_zeros(cx, 7, &[e.directions, 3 * e.size])?,
        None => Vec::new(),
    };
    let (w, r) = (floats(cx.input(1)?)?, floats(cx.input(2)?)?);
    let part =
        |v: &[f64], d: usize| v[v.len() / e.directions * d..][..v.len() / e.directions].to_vec();
    let each = cell.defaults.len();
    let clip = cx
        .node
        .float("clip")
        .map_or(f64::INFINITY, |c| f64::from(c.abs()));
    if clip.is_nan() {
        return Err(Error::invalid("the clip is no number"));
    }
    Ok((0..e.directions)
        .map(|d| Direction {
            size: e.size,
            width: e.width,
            w: part(&w, d),
            r: part(&r, d),
            bias: part(&bias, d),
            peephole: part(&peephole, d),
            clip,
            functions: functions[d * each..][..each].to_vec(),
            linear_before_reset: cx.int("linear_before_reset", 0) != 0,
            input_forget: cx.int("input_forget", 0) != 0,
        })
        .collect())
}
