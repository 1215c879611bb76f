//! Optimizers: how a gradient moves a parameter.

use edgesmith_ir::{Error, Result};

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// The learning rate of this step.
    pub rate: f64,
    /// SGD's momentum; the other optimizers' β₁.
    pub momentum: f64,
    /// β₂.
    pub beta2: f64,
    /// What keeps a divisor from 0.
    pub epsilon: f64,
    /// The part of a parameter that decays by itself, times the rate; 0 where it does not.
    pub decay: f64,
    /// Which step this is, from 1 on.
    pub step: u64,
}

/// Moves a parameter, first, by its gradient, second, and renews its states.
pub type Update = fn(&Numbers, &mut [f32], &[f32], &mut [Vec<f32>]);

/// A row of the list of optimizers.
pub struct Optimizer {
    /// Its name.
    pub name: &'static str,
    /// One sentence with its source.
    pub about: &'static str,
    /// Numbers beside each parameter that it keeps.
    pub states: usize,
    /// What a step does.
    pub update: Update,
}

/// The momentum (β₁) where none is given.
pub const MOMENTUM: f64 = 0.9;

/// Every optimizer.
pub static OPTIMIZERS: &[&Optimizer] = &[&ADAMW, &ADAM, &SGD, &NESTEROV, &LAMB];

/// SGD with momentum (B. Polyak, 1964): v ← μv + g; w ← w − ηv. Decay is added to the gradient.
pub static SGD: Optimizer = Optimizer {
    name: "sgd",
    about: "Gradient descent with momentum (Polyak 1964); decay is part of the gradient",
    states: 1,
    update: |n, w, g, s| descend(n, w, g, &mut s[0], false),
};

/// Nesterov's momentum (I. Sutskever et al., 2013): w ← w − η(g + μv).
pub static NESTEROV: Optimizer = Optimizer {
    name: "nesterov",
    about: "Gradient descent with Nesterov's momentum (Sutskever et al. 2013)",
    states: 1,
    update: |n, w, g, s| descend(n, w, g, &mut s[0], true),
};

/// Adam (D. Kingma and J. Ba, 2015, algorithm 1); decay is added to the gradient.
pub static ADAM: Optimizer = Optimizer {
    name: "adam",
    about: "Adam (Kingma and Ba 2015); decay is part of the gradient",
    states: 2,
    update: |n, w, g, s| adam(n, w, g, s, false),
};

/// AdamW (I. Loshchilov and F. Hutter, 2019): decay apart from the gradient.
pub static ADAMW: Optimizer = Optimizer {
    name: "adamw",
    about: "Adam with decay apart from the gradient (Loshchilov and Hutter 2019)",
    states: 2,
    update: |n, w, g, s| adam(n, w, g, s, true),
};

/// LAMB (Y. You et al., 2020, algorithm 2): Adam's step in the length of the parameter.
pub static LAMB: Optimizer = Optimizer {
    name: "lamb",
    about: "Adam's direction in the length of each parameter (You et al. 2020)",
    states: 2,
    update: lamb,
};

/// The optimizer of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Optimizer> {
    let found = OPTIMIZERS.iter().copied().find(|o| o.name == name);
    found.ok_or_else(|| Error::unknown("optimizer", name, OPTIMIZERS.iter().map(|o| o.name)))
}

fn descend(n: &Numbers, w: &mut [f32], g: &[f32], v: &mut [f32], nesterov: bool) {
    let [rate, momentum, decay] = [n.rate, n.momentum, n.decay].map(|x| x as f32);
    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
        let g = g + decay * *w;
        *v = momentum * *v + g;
        let step = if nesterov { g + momentum * *v } else { *v };
        *w -= rate * step;
    }
}

/// 1 − βᵗ for both moments: what their first values are short of.
fn corrections(n: &Numbers) -> [f32; 2] {
    let t = i32::try_from(n.step).unwrap_or(i32::MAX);
    [n.momentum, n.beta2].map(|b| (1.0 - b.powi(t)) as f32)
}

fn adam(n: &Numbers, w: &mut [f32], g: &[f32], states: &mut [Vec<f32>], apart: bool) {
    let [rate, b1, b2, epsilon, decay] =
        [n.rate, n.momentum, n.beta2, n.epsilon, n.decay].map(|x| x as f32);
    let [c1, c2] = corrections(n);
    let (size, root) = (rate / c1, c2.sqrt());
    let (added, shrink) = if apart {
        (0.0, 1.0 - rate * decay)
    } else {
        (decay, 1.0)
    };
    let [m, v] = states else { return };
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
        let g = g + added * *w;
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        *w = *w * shrink - size * *m / (v.sqrt() / root + epsilon);
    }
}

fn lamb(n: &Numbers, w: &mut [f32], g: &[f32], states: &mut [Vec<f32>]) {
    let [rate, b1, b2, epsilon, decay] =
        [n.rate, n.momentum, n.beta2, n.epsilon, n.decay].map(|x| x as f32);
    let [c1, c2] = corrections(n);
    let [m, v] = states else { return };
    let direction = |w: f32, m: f32, v: f32| (m / c1) / ((v / c2).sqrt() + epsilon) + decay * w;
    let (mut lengths, mut steps) = (0.0f64, 0.0f64);
    for (((w, g), m), v) in w.iter().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        let d = f64::from(direction(*w, *m, *v));
        lengths += f64::from(*w) * f64::from(*w);
        steps += d * d;
    }
    let trust = if lengths > 0.0 && steps > 0.0 {
        (lengths / steps).sqrt() as f32
    } else {
        1.0
    };
    for ((w, m), v) in w.iter_mut().zip(m).zip(v) {
        *w -= rate * trust * direction(*w, *m, *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers {
        rate: 0.1,
        momentum: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        decay: 0.0,
        step: 1,
    };

    fn moved(o: &Optimizer, n: Numbers, steps: u64) -> f32 {
        let (mut w, mut states) = (vec![1.0f32], vec![vec![0.0f32]; o.states]);
        for step in 1..=steps {
            (o.update)(&Numbers { step, ..n }, &mut w, &[0.5], &mut states);
        }
        w[0]
    }

    #[test]
    fn momentum_adds_up() {
        // v: 0.5, 0.95; w: 1 − 0.05 − 0.095.
        assert!((moved(&SGD, NUMBERS, 2) - 0.855).abs() < 1e-6);
        // g + μv: 0.95, 1.355.
        assert!((moved(&NESTEROV, NUMBERS, 2) - 0.7695).abs() < 1e-6);
    }

    #[test]
    fn the_first_step_of_adam_is_the_rate() {
        assert!((moved(&ADAM, NUMBERS, 1) - 0.9).abs() < 1e-6);
        assert!((moved(&ADAMW, NUMBERS, 1) - 0.9).abs() < 1e-6);
    }

    #[test]
    fn decay_apart_shrinks_by_rate_times_decay() {
        let n = Numbers {
            decay: 0.5,
            ..NUMBERS
        };
        assert!((moved(&ADAMW, n, 1) - (0.95 - 0.1)).abs() < 1e-6);
    }

    #[test]
    fn lamb_moves_by_the_rate_times_the_length() {
        assert!((moved(&LAMB, NUMBERS, 1) - 0.9).abs() < 1e-6);
    }

    #[test]
    fn every_optimizer_finds_the_bottom_of_a_bowl() {
        for o in OPTIMIZERS {
            let (mut w, mut states) = (vec![3.0f32, -2.0], vec![vec![0.0f32; 2]; o.states]);
            for step in 1..=400 {
                let g: Vec<f32> = w.iter().map(|w| w - 0.5).collect();
                let rate = 0.1 * (1.0 - step as f64 / 400.0);
                (o.update)(
                    &Numbers {
                        rate,
                        step,
                        ..NUMBERS
                    },
                    &mut w,
                    &g,
                    &mut states,
                );
            }
            assert!(w.iter().all(|w| (w - 0.5).abs() < 0.05), "{} {w:?}", o.name);
        }
    }
}
