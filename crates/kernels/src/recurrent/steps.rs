//! What a step of a recurrent cell does element by element, row by row, forward.

use std::ops::Range;

use crate::Ctx;
use crate::activation::{Function, Sigmoid, Tanh};
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Elements of a state that are worth a task of their own.
const GRAIN: usize = 2048;

/// Which rows take part in a step: those whose sequence is not over at this place in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live<'a> {
    pub time: usize,
    /// Steps of each row; `None`: all rows have all steps.
    pub lengths: Option<&'a [usize]>,
}

impl Live<'_> {
    /// Whether row `b` takes part.
    #[inline(always)]
    pub fn has(self, b: usize) -> bool {
        match self.lengths {
            Some(lengths) => self.time < lengths[b],
            None => true,
        }
    }

    /// From the first row of `batch` that takes part to the last; empty where none does.
    pub fn span(self, batch: usize) -> Range<usize> {
        let first = (0..batch).find(|&b| self.has(b));
        let last = (0..batch).rev().find(|&b| self.has(b));
        match (first, last) {
            (Some(first), Some(last)) => first..last + 1,
            _ => 0..0,
        }
    }
}

/// Calls `task` with parts of `rows`, each of `width` elements of the state, on threads.
pub(super) fn by_rows(
    ctx: &Ctx,
    rows: Range<usize>,
    width: usize,
    task: impl Fn(Range<usize>) + Sync,
) {
    let grain = GRAIN.div_ceil(width.max(1));
    ctx.threads().parallel_ranges(rows.len(), grain, |part| {
        task(rows.start + part.start..rows.start + part.end);
    });
}

/// Goes over rows that live, and over their elements a vector at a time.
macro_rules! each_vector {
    ($this:ident, $S:ty, |$b:ident, $at:ident, $n:ident| $work:block) => {
        for $b in $this.rows.clone() {
            if !$this.live.has($b) {
                continue;
            }
            let mut $at = 0;
            while $at < $this.width {
                let $n = ($this.width - $at).min(<$S>::LANES);
                $work
                $at += $n;
            }
        }
    };
}

/// Makes of the sums of all gates of an LSTM, `[batch, 4 * width]`, the gates; then of cells and
/// gates the cells and states behind the step, `[batch, width]`.
pub(super) fn lstm(
    ctx: &Ctx,
    live: Live,
    width: usize,
    gates: &mut [f32],
    [h, c]: [&mut [f32]; 2],
) {
    let batch = h.len() / width.max(1);
    assert_eq!((gates.len(), c.len()), (4 * h.len(), h.len()), "a row each");
    let (gates, h, c) = (Shared::new(gates), Shared::new(h), Shared::new(c));
    by_rows(ctx, live.span(batch), width, |rows| {
        let step = Lstm {
            rows,
            live,
            width,
            gates: gates.pointer(0),
            h: h.pointer(0),
            c: c.pointer(0),
        };
        dispatch(ctx.isa(), step);
    });
}

struct Lstm<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *mut f32,
    h: *mut f32,
    c: *mut f32,
}

impl Body for Lstm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        each_vector!(self, S, |b, at, n| {
            // SAFETY: `lstm` has checked that all have the row; no other task has it.
            unsafe {
                let gates = self.gates.add(4 * b * width + at);
                let (i, o) = (gates, gates.add(width));
                let (f, t) = (gates.add(2 * width), gates.add(3 * width));
                let (h, c) = (self.h.add(b * width + at), self.c.add(b * width + at));
                let input = Sigmoid.eval(s, s.load_up_to(i, n));
                let output = Sigmoid.eval(s, s.load_up_to(o, n));
                let forget = Sigmoid.eval(s, s.load_up_to(f, n));
                let turned = Tanh.eval(s, s.load_up_to(t, n));
                let kept = s.mul(forget, s.load_up_to(c, n));
                let cell = s.add(kept, s.mul(input, turned));
                s.store_up_to(i, input, n);
                s.store_up_to(o, output, n);
                s.store_up_to(f, forget, n);
                s.store_up_to(t, turned, n);
                s.store_up_to(c, cell, n);
                s.store_up_to(h, s.mul(output, Tanh.eval(s, cell)), n);
            }
        });
    }
}

/// Makes of the sums of the first two gates of a GRU, in rows of `3 * width`, the gates; and, where
/// there is room for it, of the states what is left of them by the reset gate, `[batch, width]`.
pub(super) fn gru_gates(
    ctx: &Ctx,
    live: Live,
    width: usize,
    gates: &mut [f32],
    h: &[f32],
    faded: Option<&mut [f32]>,
) {
    let batch = h.len() / width.max(1);
    assert_eq!(gates.len(), 3 * h.len(), "a row each");
    assert!(faded.as_ref().is_none_or(|f| f.len() == h.len()), "as long");
    let (gates, faded) = (Shared::new(gates), faded.map(Shared::new));
    by_rows(ctx, live.span(batch), width, |rows| {
        let step = GruGates {
            rows,
            live,
            width,
            gates: gates.pointer(0),
            h: h.as_ptr(),
            faded: faded.as_ref().map(|f| f.pointer(0)),
        };
        dispatch(ctx.isa(), step);
    });
}

struct GruGates<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *mut f32,
    h: *const f32,
    faded: Option<*mut f32>,
}

impl Body for GruGates<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        each_vector!(self, S, |b, at, n| {
            // SAFETY: `gru_gates` has checked that all have the row; no other task has it.
            unsafe {
                let update = self.gates.add(3 * b * width + at);
                let reset = update.add(width);
                let r = Sigmoid.eval(s, s.load_up_to(reset, n));
                s.store_up_to(update, Sigmoid.eval(s, s.load_up_to(update, n)), n);
                s.store_up_to(reset, r, n);
                if let Some(faded) = self.faded {
                    let h = s.load_up_to(self.h.add(b * width + at), n);
                    s.store_up_to(faded.add(b * width + at), s.mul(r, h), n);
                }
            }
        });
    }
}

/// Makes of the hidden sums of a GRU, the third part of each row of gates, the hidden gate, and the
/// states behind the step. Where `late` is given, with the products of the input in rows of `3 * width`
/// and as many elements as the states, the sums are those of the state alone: they are kept there, and
/// reset.
pub(super) fn gru_states(
    ctx: &Ctx,
    live: Live,
    width: usize,
    gates: &mut [f32],
    h: &mut [f32],
    late: Option<(&[f32], &mut [f32])>,
) {
    let batch = h.len() / width.max(1);
    assert_eq!(gates.len(), 3 * h.len(), "a row each");
    if let Some((given, sums)) = &late {
        let lengths = (given.len(), sums.len());
        assert_eq!(lengths, (gates.len(), h.len()), "a row each");
    }
    let late = late.map(|(given, sums)| (given, Shared::new(sums)));
    let (gates, h) = (Shared::new(gates), Shared::new(h));
    by_rows(ctx, live.span(batch), width, |rows| {
        let step = GruStates {
            rows,
            live,
            width,
            gates: gates.pointer(0),
            h: h.pointer(0),
            late: late.as_ref().map(|(g, s)| (g.as_ptr(), s.pointer(0))),
        };
        dispatch(ctx.isa(), step);
    });
}

struct GruStates<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *mut f32,
    h: *mut f32,
    late: Option<(*const f32, *mut f32)>,
}

impl Body for GruStates<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        let one = s.splat(1.0);
        each_vector!(self, S, |b, at, n| {
            // SAFETY: `gru_states` has checked that all have the row; no other task has it.
            unsafe {
                let row = 3 * b * width + at;
                let update = s.load_up_to(self.gates.add(row), n);
                let hidden = self.gates.add(row + 2 * width);
                let mut sum = s.load_up_to(hidden, n);
                if let Some((given, kept)) = self.late {
                    let reset = s.load_up_to(self.gates.add(row + width), n);
                    let given = s.load_up_to(given.add(row + 2 * width), n);
                    s.store_up_to(kept.add(b * width + at), sum, n);
                    sum = s.add(given, s.mul(reset, sum));
                }
                let turned = Tanh.eval(s, sum);
                let h = self.h.add(b * width + at);
                let kept = s.mul(update, s.load_up_to(h, n));
                s.store_up_to(hidden, turned, n);
                let fresh = s.mul(s.sub(one, update), turned);
                s.store_up_to(h, s.add(fresh, kept), n);
            }
        });
    }
}
