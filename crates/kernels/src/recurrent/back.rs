//! What a step of a recurrent cell does element by element on the way back: from the gradient of a
//! state to those of the sums of its gates.
//!
//! In all of them `slope` holds gradients of states behind the step, `[batch, width]`, to which those of the
//! outputs, `dy`, are added; what the step before sees of them without a product stays there. Rows
//! that do not take part keep it, and their sums have no gradient.

use std::ops::Range;

use super::steps::{Live, by_rows};
use crate::Ctx;
use crate::activation::{Function, Tanh};
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Goes over rows and their elements, a vector at a time, of rows that live; the others of `$out`, rows of
/// `$gates` parts, become 0.
macro_rules! each_back {
    ($this:ident, $S:ty, [$($out:expr, $gates:expr);*], |$b:ident, $at:ident, $n:ident| $work:block) => {
        for $b in $this.rows.clone() {
            if !$this.live.has($b) {
                $(
                    // SAFETY: the row is one of this task.
                    unsafe { $out.add($gates * $b * $this.width).write_bytes(0, $gates * $this.width) };
                )*
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

/// `y (1 - y)`, the derivative of a sigmoid by its value.
#[inline(always)]
fn bent<S: Simd>(s: S, y: S::F) -> S::F {
    s.mul(y, s.sub(s.splat(1.0), y))
}

/// `1 - y^2`, the derivative of tanh by its value.
#[inline(always)]
fn turned<S: Simd>(s: S, y: S::F) -> S::F {
    s.sub(s.splat(1.0), s.mul(y, y))
}

/// The slope at `at` with the gradient of the output, where there is one.
///
/// # Safety
/// `n` floats are readable at `at` of both.
#[inline(always)]
unsafe fn shown<S: Simd>(
    s: S,
    slope: *const f32,
    dy: Option<*const f32>,
    at: usize,
    n: usize,
) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let slope = s.load_up_to(slope.add(at), n);
        match dy {
            Some(dy) => s.add(slope, s.load_up_to(dy.add(at), n)),
            None => slope,
        }
    }
}

/// Gates of an LSTM and the cells before and behind the step become, in `sums`, the gradients of the sums of
/// gates, `[batch, 4 * width]`. Of the slope of states nothing stays; that of cells becomes that of
/// those before.
pub(super) fn lstm(
    ctx: &Ctx,
    live: Live,
    width: usize,
    (gates, cells): (&[f32], [&[f32]; 2]),
    dy: Option<&[f32]>,
    [slope, of_cells]: [&mut [f32]; 2],
    sums: &mut [f32],
) {
    let size = slope.len();
    assert_eq!([gates.len(), sums.len()], [4 * size; 2], "a row each");
    assert_eq!(
        [cells[0].len(), cells[1].len(), of_cells.len()],
        [size; 3],
        "a row each"
    );
    assert!(dy.is_none_or(|dy| dy.len() == size), "a row each");
    let [slope, of_cells, sums] = [slope, of_cells, sums].map(Shared::new);
    by_rows(ctx, 0..size / width.max(1), width, |rows| {
        let step = Lstm {
            rows,
            live,
            width,
            gates: gates.as_ptr(),
            cells: [cells[0].as_ptr(), cells[1].as_ptr()],
            dy: dy.map(<[f32]>::as_ptr),
            slope: slope.pointer(0),
            of_cells: of_cells.pointer(0),
            sums: sums.pointer(0),
        };
        dispatch(ctx.isa(), step);
    });
}

struct Lstm<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *const f32,
    /// Before and behind.
    cells: [*const f32; 2],
    dy: Option<*const f32>,
    slope: *mut f32,
    of_cells: *mut f32,
    sums: *mut f32,
}

impl Body for Lstm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        each_back!(self, S, [self.sums, 4], |b, at, n| {
            // SAFETY: `lstm` has checked that all have the row; no other task has it.
            unsafe {
                let (row, from) = (b * width + at, 4 * b * width + at);
                let gate = self.gates.add(from);
                let input = s.load_up_to(gate, n);
                let output = s.load_up_to(gate.add(width), n);
                let forget = s.load_up_to(gate.add(2 * width), n);
                let fresh = s.load_up_to(gate.add(3 * width), n);
                let before = s.load_up_to(self.cells[0].add(row), n);
                let squashed = Tanh.eval(s, s.load_up_to(self.cells[1].add(row), n));
                let dh = shown(s, self.slope, self.dy, row, n);
                let through = s.mul(s.mul(dh, output), turned(s, squashed));
                let dc = s.add(s.load_up_to(self.of_cells.add(row), n), through);
                let to = self.sums.add(from);
                let doutput = s.mul(s.mul(dh, squashed), bent(s, output));
                s.store_up_to(to, s.mul(s.mul(dc, fresh), bent(s, input)), n);
                s.store_up_to(to.add(width), doutput, n);
                let dforget = s.mul(s.mul(dc, before), bent(s, forget));
                s.store_up_to(to.add(2 * width), dforget, n);
                let dfresh = s.mul(s.mul(dc, input), turned(s, fresh));
                s.store_up_to(to.add(3 * width), dfresh, n);
                s.store_up_to(self.of_cells.add(row), s.mul(dc, forget), n);
                s.store_up_to(self.slope.add(row), s.splat(0.0), n);
            }
        });
    }
}

/// The hidden sums that states made, `[batch, width]`, and where the gradients of all sums that they make go,
/// `[batch, 3 * width]`.
pub(super) type OfState<'a> = (&'a [f32], &'a mut [f32]);

/// The gradients of the sums of the update and the hidden gate of a GRU, in rows of `3 * width` of `sums`;
/// where the reset gate works late, also that of the reset gate, and those of the sums of the state.
/// `gates` are those of the step, `before` the states before it. Of the slope stays what the update
/// gate keeps.
pub(super) fn gru(
    ctx: &Ctx,
    live: Live,
    width: usize,
    (gates, before): (&[f32], &[f32]),
    dy: Option<&[f32]>,
    slope: &mut [f32],
    (sums, late): (&mut [f32], Option<OfState>),
) {
    let size = slope.len();
    assert_eq!([gates.len(), sums.len()], [3 * size; 2], "a row each");
    assert!(dy.is_none_or(|dy| dy.len() == size), "a row each");
    assert_eq!(before.len(), size, "a row each");
    if let Some((kept, of_state)) = &late {
        let lengths = [kept.len(), of_state.len()];
        assert_eq!(lengths, [size, 3 * size], "a row each");
    }
    let late = late.map(|(kept, of_state)| (kept, Shared::new(of_state)));
    let [slope, sums] = [slope, sums].map(Shared::new);
    by_rows(ctx, 0..size / width.max(1), width, |rows| {
        let step = Gru {
            rows,
            live,
            width,
            gates: gates.as_ptr(),
            before: before.as_ptr(),
            dy: dy.map(<[f32]>::as_ptr),
            slope: slope.pointer(0),
            sums: sums.pointer(0),
            late: late.as_ref().map(|(k, o)| (k.as_ptr(), o.pointer(0))),
        };
        match step.late {
            Some(late) => dispatch(ctx.isa(), Late { step, late }),
            None => dispatch(ctx.isa(), step),
        }
    });
}

struct Gru<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *const f32,
    before: *const f32,
    dy: Option<*const f32>,
    slope: *mut f32,
    sums: *mut f32,
    late: Option<(*const f32, *mut f32)>,
}

impl Gru<'_> {
    /// Writes the gradients of the sums of update and hidden gate at element `at` of row `b`; gives
    /// that of the hidden gate and that of the update gate.
    ///
    /// # Safety
    /// As `gru` checks it.
    #[inline(always)]
    unsafe fn outer<S: Simd>(&self, s: S, b: usize, at: usize, n: usize) -> [S::F; 2] {
        let width = self.width;
        // SAFETY: the caller's promise.
        unsafe {
            let (row, from) = (b * width + at, 3 * b * width + at);
            let update = s.load_up_to(self.gates.add(from), n);
            let fresh = s.load_up_to(self.gates.add(from + 2 * width), n);
            let before = s.load_up_to(self.before.add(row), n);
            let dh = shown(s, self.slope, self.dy, row, n);
            let taken = s.mul(dh, s.sub(s.splat(1.0), update));
            let dfresh = s.mul(taken, turned(s, fresh));
            let dupdate = s.mul(s.mul(dh, s.sub(before, fresh)), bent(s, update));
            s.store_up_to(self.sums.add(from), dupdate, n);
            s.store_up_to(self.sums.add(from + 2 * width), dfresh, n);
            s.store_up_to(self.slope.add(row), s.mul(dh, update), n);
            [dfresh, dupdate]
        }
    }
}

impl Body for Gru<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        each_back!(self, S, [self.sums, 3], |b, at, n| {
            // SAFETY: `gru` has checked that all have the row; no other task has it.
            unsafe { self.outer(s, b, at, n) };
        });
    }
}

/// A step whose reset gate works late.
struct Late<'a> {
    step: Gru<'a>,
    late: (*const f32, *mut f32),
}

impl Body for Late<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (this, width) = (&self.step, self.step.width);
        let (kept, of_state) = self.late;
        each_back!(this, S, [this.sums, 3; of_state, 3], |b, at, n| {
            // SAFETY: `gru` has checked that all have the row; no other task has it.
            unsafe {
                let (row, from) = (b * width + at, 3 * b * width + at);
                let [dfresh, dupdate] = this.outer(s, b, at, n);
                let reset = s.load_up_to(this.gates.add(from + width), n);
                let kept = s.load_up_to(kept.add(row), n);
                let dreset = s.mul(s.mul(dfresh, kept), bent(s, reset));
                s.store_up_to(this.sums.add(from + width), dreset, n);
                s.store_up_to(of_state.add(from), dupdate, n);
                s.store_up_to(of_state.add(from + width), dreset, n);
                s.store_up_to(of_state.add(from + 2 * width), s.mul(dfresh, reset), n);
            }
        });
    }
}

/// The gradient of the sum of the reset gate of a GRU, where that works on the state before the product:
/// of `faded`, the gradient of what it leaves of the states. The slope gets what goes through it; `of_state`
/// gets the gradients of the sums of update and reset gate, `[batch, 2 * width]`.
pub(super) fn gru_reset(
    ctx: &Ctx,
    live: Live,
    width: usize,
    (gates, before, faded): (&[f32], &[f32], &[f32]),
    slope: &mut [f32],
    [sums, of_state]: [&mut [f32]; 2],
) {
    let size = slope.len();
    assert_eq!([gates.len(), sums.len()], [3 * size; 2], "a row each");
    assert_eq!([before.len(), faded.len()], [size; 2], "a row each");
    assert_eq!(of_state.len(), 2 * size, "a row each");
    let [slope, sums, of_state] = [slope, sums, of_state].map(Shared::new);
    by_rows(ctx, 0..size / width.max(1), width, |rows| {
        let step = Reset {
            rows,
            live,
            width,
            gates: gates.as_ptr(),
            before: before.as_ptr(),
            faded: faded.as_ptr(),
            slope: slope.pointer(0),
            sums: sums.pointer(0),
            of_state: of_state.pointer(0),
        };
        dispatch(ctx.isa(), step);
    });
}

struct Reset<'a> {
    rows: Range<usize>,
    live: Live<'a>,
    width: usize,
    gates: *const f32,
    before: *const f32,
    faded: *const f32,
    slope: *mut f32,
    sums: *mut f32,
    of_state: *mut f32,
}

impl Body for Reset<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        each_back!(self, S, [self.of_state, 2], |b, at, n| {
            // SAFETY: `gru_reset` has checked that all have the row; no other task has it.
            unsafe {
                let (row, from) = (b * width + at, 3 * b * width + at);
                let reset = s.load_up_to(self.gates.add(from + width), n);
                let before = s.load_up_to(self.before.add(row), n);
                let faded = s.load_up_to(self.faded.add(row), n);
                let dreset = s.mul(s.mul(faded, before), bent(s, reset));
                let slope = s.load_up_to(self.slope.add(row), n);
                let slope = s.add(slope, s.mul(faded, reset));
                s.store_up_to(self.slope.add(row), slope, n);
                s.store_up_to(self.sums.add(from + width), dreset, n);
                let to = self.of_state.add(2 * b * width + at);
                let dupdate = s.load_up_to(self.sums.add(from), n);
                s.store_up_to(to, dupdate, n);
                s.store_up_to(to.add(width), dreset, n);
            }
        });
    }
}
