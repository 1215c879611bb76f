//! One step of RNN, GRU and LSTM: the weights of a direction, and what they make of a state.

use super::functions::Function;
use crate::Result;

/// What tells the three operators apart.
pub struct Cell {
    /// Gates, each of as many rows of weights as the state has elements.
    pub gates: usize,
    /// The functions of one direction where the node names none.
    pub defaults: &'static [&'static str],
    /// Makes the state after an input of the state before it.
    pub step: fn(&Direction, &[f64], &mut State),
}

/// RNN.
pub static RNN: Cell = Cell {
    gates: 1,
    defaults: &["Tanh"],
    step: rnn_step,
};

/// GRU; gates in the order update, reset, hidden.
pub static GRU: Cell = Cell {
    gates: 3,
    defaults: &["Sigmoid", "Tanh"],
    step: gru_step,
};

/// LSTM; gates in the order input, output, forget, cell.
pub static LSTM: Cell = Cell {
    gates: 4,
    defaults: &["Sigmoid", "Tanh", "Tanh"],
    step: lstm_step,
};

/// A rounding of numbers together.
pub type Narrow = fn(&[f64]) -> Result<Vec<f64>>;

/// The state of one sample.
#[derive(Clone)]
pub struct State {
    /// What is shown as output.
    pub hidden: Vec<f64>,
    /// The cell of an LSTM.
    pub cell: Vec<f64>,
}

/// The weights and functions of one direction.
pub struct Direction {
    /// Width of the hidden state.
    pub size: usize,
    /// Width of the input.
    pub width: usize,
    /// Weights of the input, row by row, gate by gate.
    pub w: Vec<f64>,
    /// Weights of the recurrence.
    pub r: Vec<f64>,
    /// Biases of the input, then of the recurrence, by gate.
    pub bias: Vec<f64>,
    /// Weights of the cell for the gates input, output and forget; none where it has none.
    pub peephole: Vec<f64>,
    /// Functions see nothing beyond this, of either sign.
    pub clip: f64,
    /// The functions, in ONNX's order.
    pub functions: Vec<Function>,
    /// GRU's attribute of that name.
    pub linear_before_reset: bool,
    /// LSTM's attribute of that name.
    pub input_forget: bool,
}

impl Direction {
    /// The input and the recurrent part of gate `g`, biases included.
    pub fn gate(&self, g: usize, x: &[f64], h: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let dot = |m: &[f64], v: &[f64]| m.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
        let half = self.bias.len() / 2;
        let row = |k: usize| g * self.size + k;
        let from_x = (0..self.size)
            .map(|k| dot(&self.w[row(k) * self.width..][..self.width], x) + self.bias[row(k)]);
        let from_h = (0..self.size)
            .map(|k| dot(&self.r[row(k) * self.size..][..self.size], h) + self.bias[half + row(k)]);
        (from_x.collect(), from_h.collect())
    }

    /// Both parts of gate `g` together.
    pub fn sums(&self, g: usize, x: &[f64], h: &[f64]) -> Vec<f64> {
        let (a, b) = self.gate(g, x, h);
        a.iter().zip(&b).map(|(a, b)| a + b).collect()
    }

    /// Function `f` of a clipped sum.
    pub fn apply(&self, f: usize, x: f64) -> f64 {
        self.functions[f].at(x.clamp(-self.clip, self.clip))
    }

    /// Function `f` of clipped sums.
    pub fn apply_all(&self, f: usize, sums: &[f64]) -> Vec<f64> {
        sums.iter().map(|&v| self.apply(f, v)).collect()
    }

    /// The weight of cell element `k` for a gate: 0 is input, 1 output, 2 forget.
    pub fn peep(&self, gate: usize, k: usize) -> f64 {
        let weight = self.peephole.get(gate * self.size + k);
        weight.copied().unwrap_or(0.0)
    }
}

fn rnn_step(d: &Direction, x: &[f64], s: &mut State) {
    s.hidden = d.apply_all(0, &d.sums(0, x, &s.hidden));
}

fn gru_step(d: &Direction, x: &[f64], s: &mut State) {
    let [update, reset] = [0, 1].map(|g| d.apply_all(0, &d.sums(g, x, &s.hidden)));
    let inner: Vec<f64> = if d.linear_before_reset {
        let (from_x, from_h) = d.gate(2, x, &s.hidden);
        (0..d.size)
            .map(|k| from_x[k] + reset[k] * from_h[k])
            .collect()
    } else {
        let faded: Vec<f64> = reset.iter().zip(&s.hidden).map(|(r, h)| r * h).collect();
        d.sums(2, x, &faded)
    };
    for (k, h) in s.hidden.iter_mut().enumerate() {
        *h = (1.0 - update[k]) * d.apply(1, inner[k]) + update[k] * *h;
    }
}

fn lstm_step(d: &Direction, x: &[f64], s: &mut State) {
    let [input, output, forget, cell] = [0, 1, 2, 3].map(|g| d.sums(g, x, &s.hidden));
    for k in 0..d.size {
        let old = s.cell[k];
        let i = d.apply(0, input[k] + d.peep(0, k) * old);
        let f = match d.input_forget {
            true => 1.0 - i,
            false => d.apply(0, forget[k] + d.peep(2, k) * old),
        };
        s.cell[k] = f * old + i * d.apply(1, cell[k]);
        let o = d.apply(0, output[k] + d.peep(1, k) * s.cell[k]);
        s.hidden[k] = o * d.functions[2].at(s.cell[k]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_one_neuron_is_its_activation() {
        let d = Direction {
            size: 1,
            width: 1,
            w: vec![2.0],
            r: vec![1.0],
            bias: vec![0.25, 0.25],
            peephole: Vec::new(),
            clip: 1.0,
            functions: vec![Function::named("affine").unwrap()],
            linear_before_reset: false,
            input_forget: false,
        };
        let mut s = State {
            hidden: vec![-2.0],
            cell: Vec::new(),
        };
        rnn_step(&d, &[1.0], &mut s);
        assert_eq!(s.hidden, [0.5]);
        rnn_step(&d, &[1.0], &mut s);
        assert_eq!(s.hidden, [1.0]);
    }
}
