//! Scopes: over which weights scores compete, and how much each weight loses.

use edgesmith_ir::{Error, Result};

use super::select::Lengths;

/// Over what scores compete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One threshold over all weights.
    Global,
    /// Each weight loses the same share.
    Layer,
    /// Each output of each weight loses the same share.
    Row,
    /// Each weight loses a share by its lengths: small ones less (Erdős–Rényi kernel; U. Evci et
    /// al., "Rigging the Lottery", 2020, section 3).
    Erk,
}

/// Every scope by its name, with one line.
pub static SCOPES: &[(&str, Scope, &str)] = &[
    ("global", Scope::Global, "one threshold over all weights"),
    ("layer", Scope::Layer, "each weight loses the same share"),
    ("row", Scope::Row, "each output loses the same share"),
    (
        "erk",
        Scope::Erk,
        "each weight by its lengths, small ones less",
    ),
];

impl Scope {
    /// Its name.
    pub fn name(self) -> &'static str {
        let of = SCOPES.iter().find(|(_, s, _)| *s == self);
        of.map_or("", |(name, ..)| name)
    }

    /// The scope of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Self> {
        let found = SCOPES.iter().find(|(n, ..)| *n == name);
        found
            .map(|(_, scope, _)| *scope)
            .ok_or_else(|| Error::unknown("scope", name, SCOPES.iter().map(|(n, ..)| *n)))
    }

    /// The share that each weight loses, so that all together lose `amount`; with [`Scope::Global`]
    /// scores decide, and shares are those of all.
    pub fn shares(self, all: &[Lengths], amount: f64) -> Vec<f64> {
        match self {
            Self::Erk => by_lengths(all, amount),
            _ => vec![amount; all.len()],
        }
    }
}

/// Densities in proportion to (outputs + inputs + places of the window) / numbers, none above 1.
fn by_lengths(all: &[Lengths], amount: f64) -> Vec<f64> {
    let count = |of: &Lengths| (of.rows * of.columns) as f64;
    let raw = |of: &Lengths| {
        let sides = of.rows + of.columns / of.taps.max(1) + if of.taps > 1 { of.taps } else { 0 };
        sides as f64 / count(of).max(1.0)
    };
    let raw: Vec<f64> = all.iter().map(raw).collect();
    let mut dense = vec![false; all.len()];
    let wanted = (1.0 - amount) * all.iter().map(count).sum::<f64>();
    loop {
        let (mut rest, mut sum) = (wanted, 0.0);
        for (i, of) in all.iter().enumerate() {
            match dense[i] {
                true => rest -= count(of),
                false => sum += raw[i] * count(of),
            }
        }
        let factor = if sum > 0.0 { rest.max(0.0) / sum } else { 0.0 };
        let over: Vec<usize> = (0..all.len())
            .filter(|&i| !dense[i] && factor * raw[i] > 1.0)
            .collect();
        if over.is_empty() {
            let density = |i: usize| if dense[i] { 1.0 } else { factor * raw[i] };
            return (0..all.len()).map(|i| 1.0 - density(i)).collect();
        }
        over.into_iter().for_each(|i| dense[i] = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_weights_lose_less_and_all_together_lose_what_was_asked_for() {
        let of = |rows, columns, taps| Lengths {
            rows,
            columns,
            taps,
        };
        let all = [
            of(300, 784, 1),
            of(100, 300, 1),
            of(10, 100, 1),
            of(16, 144, 9),
        ];
        for amount in [0.1, 0.5, 0.9, 0.99] {
            let shares = Scope::Erk.shares(&all, amount);
            let count = |of: &Lengths| (of.rows * of.columns) as f64;
            let lost: f64 = all.iter().zip(&shares).map(|(of, s)| s * count(of)).sum();
            let numbers: f64 = all.iter().map(count).sum();
            assert!((lost / numbers - amount).abs() < 1e-9, "{shares:?}");
            assert!(
                shares.iter().all(|s| (-1e-12..=1.0).contains(s)),
                "{shares:?}"
            );
            assert!(shares[0] >= shares[1] && shares[1] >= shares[2]);
        }
        assert_eq!(Scope::Layer.shares(&all, 0.3), [0.3; 4]);
    }

    #[test]
    fn scopes_are_found_by_name() {
        for (name, scope, _) in SCOPES {
            assert_eq!(Scope::find(name).unwrap(), *scope);
            assert_eq!(scope.name(), *name);
        }
        assert!(Scope::find("everywhere").is_err());
    }
}
