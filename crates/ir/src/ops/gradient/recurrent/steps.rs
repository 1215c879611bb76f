//! One step back of RNN, GRU and LSTM: from the gradient of the state after it to that of the
//! state before it.

use crate::ops::recurrent::cell::{Direction, State};

/// Takes the state before a step, and makes the gradient of the state after it that of the state
/// before it.
pub type Step = fn(&mut At, &State, &mut State);

/// The gradients of the weights of one direction.
pub struct Sums {
    /// Of the weights of the input.
    pub w: Vec<f64>,
    /// Of those of the recurrence.
    pub r: Vec<f64>,
    /// Of the biases.
    pub bias: Vec<f64>,
    /// Of the weights of the cell, whether the direction has some or not.
    pub peephole: Vec<f64>,
}

impl Sums {
    /// Zeros for the weights of `d`.
    pub fn of(d: &Direction) -> Self {
        Self {
            w: vec![0.0; d.w.len()],
            r: vec![0.0; d.r.len()],
            bias: vec![0.0; d.bias.len()],
            peephole: vec![0.0; 3 * d.size],
        }
    }

    /// Runs `back` at the step whose input is `x`; the gradient of that is added to `dx`.
    pub fn step(&mut self, d: &Direction, x: &[f64], dx: &mut [f64], back: impl FnOnce(&mut At)) {
        back(&mut At {
            d,
            x,
            dx,
            sums: self,
        });
    }
}

/// A step of one sample.
pub struct At<'a> {
    d: &'a Direction,
    x: &'a [f64],
    dx: &'a mut [f64],
    sums: &'a mut Sums,
}

impl At<'_> {
    /// Adds what comes by gate `g`, whose recurrence read `h`, when its two parts have the
    /// gradients `from_x` and `from_h`; the gradient of `h`.
    fn gate(&mut self, g: usize, h: &[f64], from_x: &[f64], from_h: &[f64]) -> Vec<f64> {
        let (d, half) = (self.d, self.sums.bias.len() / 2);
        let mut dh = vec![0.0; d.size];
        for k in 0..d.size {
            let row = g * d.size + k;
            let (own, recurrent) = (row * d.width, row * d.size);
            for j in 0..d.width {
                self.sums.w[own + j] += from_x[k] * self.x[j];
                self.dx[j] += from_x[k] * d.w[own + j];
            }
            for j in 0..d.size {
                self.sums.r[recurrent + j] += from_h[k] * h[j];
                dh[j] += from_h[k] * d.r[recurrent + j];
            }
            self.sums.bias[row] += from_x[k];
            self.sums.bias[half + row] += from_h[k];
        }
        dh
    }
}

/// The derivative of function `f` at a sum, which is 0 where the sum is clipped.
fn slope(d: &Direction, f: usize, x: f64) -> f64 {
    if x.abs() > d.clip {
        return 0.0;
    }
    d.functions[f].slope(x)
}

fn add(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

/// One step back of RNN.
pub fn rnn(at: &mut At, before: &State, grad: &mut State) {
    let sums = at.d.sums(0, at.x, &before.hidden);
    let each = sums.iter().zip(&grad.hidden);
    let inner: Vec<f64> = each.map(|(&s, dh)| dh * slope(at.d, 0, s)).collect();
    grad.hidden = at.gate(0, &before.hidden, &inner, &inner);
}

/// One step back of GRU.
pub fn gru(at: &mut At, before: &State, grad: &mut State) {
    let (d, h) = (at.d, &before.hidden);
    let sums = [0, 1].map(|g| d.sums(g, at.x, h));
    let [update, reset] = [0, 1].map(|g| d.apply_all(0, &sums[g]));
    let faded: Vec<f64> = reset.iter().zip(h).map(|(r, h)| r * h).collect();
    let read = if d.linear_before_reset { h } else { &faded };
    let (from_x, from_h) = d.gate(2, at.x, read);
    let inner = |k: usize| match d.linear_before_reset {
        true => from_x[k] + reset[k] * from_h[k],
        false => from_x[k] + from_h[k],
    };
    let (mut dnew, mut dupdate) = (vec![0.0; d.size], vec![0.0; d.size]);
    for (k, dh) in grad.hidden.iter_mut().enumerate() {
        let sum = inner(k);
        dnew[k] = *dh * (1.0 - update[k]) * slope(d, 1, sum);
        dupdate[k] = *dh * (h[k] - d.apply(1, sum)) * slope(d, 0, sums[0][k]);
        *dh *= update[k];
    }
    let mut dreset: Vec<f64> = if d.linear_before_reset {
        let recurrent: Vec<f64> = dnew.iter().zip(&reset).map(|(n, r)| n * r).collect();
        add(&mut grad.hidden, &at.gate(2, h, &dnew, &recurrent));
        dnew.iter().zip(&from_h).map(|(n, h)| n * h).collect()
    } else {
        let dfaded = at.gate(2, &faded, &dnew, &dnew);
        let kept: Vec<f64> = dfaded.iter().zip(&reset).map(|(f, r)| f * r).collect();
        add(&mut grad.hidden, &kept);
        dfaded.iter().zip(h).map(|(f, h)| f * h).collect()
    };
    for (v, &sum) in dreset.iter_mut().zip(&sums[1]) {
        *v *= slope(d, 0, sum);
    }
    for (g, inner) in [(0, &dupdate), (1, &dreset)] {
        add(&mut grad.hidden, &at.gate(g, h, inner, inner));
    }
}

/// One step back of LSTM.
pub fn lstm(at: &mut At, before: &State, grad: &mut State) {
    let (d, n) = (at.d, at.d.size);
    let sums = [0, 1, 2, 3].map(|g| d.sums(g, at.x, &before.hidden));
    let mut inner = [0; 4].map(|_| vec![0.0; n]);
    for k in 0..n {
        let old = before.cell[k];
        let input = sums[0][k] + d.peep(0, k) * old;
        let forget = sums[2][k] + d.peep(2, k) * old;
        let i = d.apply(0, input);
        let f = if d.input_forget {
            1.0 - i
        } else {
            d.apply(0, forget)
        };
        let g = d.apply(1, sums[3][k]);
        let cell = f * old + i * g;
        let output = sums[1][k] + d.peep(1, k) * cell;
        let shown = d.functions[2];
        let dh = grad.hidden[k];
        let doutput = dh * shown.at(cell) * slope(d, 0, output);
        let dcell =
            grad.cell[k] + dh * d.apply(0, output) * shown.slope(cell) + doutput * d.peep(1, k);
        // What is forgotten is what is not let in where the two gates are one.
        let (di, dforget) = match d.input_forget {
            true => (dcell * (g - old), 0.0),
            false => (dcell * g, dcell * old * slope(d, 0, forget)),
        };
        let dinput = di * slope(d, 0, input);
        inner[0][k] = dinput;
        inner[1][k] = doutput;
        inner[2][k] = dforget;
        inner[3][k] = dcell * i * slope(d, 1, sums[3][k]);
        grad.cell[k] = dcell * f + dinput * d.peep(0, k) + dforget * d.peep(2, k);
        for (gate, v) in [(0, dinput * old), (1, doutput * cell), (2, dforget * old)] {
            at.sums.peephole[gate * n + k] += v;
        }
    }
    grad.hidden = vec![0.0; n];
    for (g, inner) in inner.iter().enumerate() {
        add(&mut grad.hidden, &at.gate(g, &before.hidden, inner, inner));
    }
}
