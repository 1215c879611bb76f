//! Networks with fewer layers: some of the blocks that repeat stay, the others are passed by.

use std::str::FromStr;

use edgesmith_ir::{Error, Model, Node, Result, ValueId};
use edgesmith_passes::{Level, RunOptions, optimize};

use super::blocks::{self, Run};

/// Which blocks stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// Every other one, as DistilBERT begins (V. Sanh et al., 2019): with the first, and counted
    /// from the end in the second half, so that the last stays: of 12 layers 0, 2, 4, 7, 9 and 11.
    Alternate,
    /// So many at equal distances, the last among them: layer m of N is the teacher's m·M/N, as
    /// TinyBERT maps them (X. Jiao et al., 2020).
    Uniform(usize),
    /// So many from the beginning.
    First(usize),
    /// These, counted from 0 over all blocks of the model.
    These(Vec<usize>),
}

impl FromStr for Layers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = || {
            Error::usage(format!("\"{text}\" is no choice of layers"))
                .hint("alternate, uniform:N, first:N, or numbers such as 0,2,5")
        };
        let count = |n: &str| n.trim().parse().ok().filter(|&n| n > 0).ok_or_else(fault);
        match text.trim().split_once(':') {
            Some(("uniform", n)) => Ok(Self::Uniform(count(n)?)),
            Some(("first", n)) => Ok(Self::First(count(n)?)),
            Some(_) => Err(fault()),
            None if text.trim() == "alternate" => Ok(Self::Alternate),
            None => {
                let numbers = text.split(',').map(|n| n.trim().parse());
                let numbers: std::result::Result<Vec<usize>, _> = numbers.collect();
                numbers.map(Self::These).map_err(|_| fault())
            }
        }
    }
}

impl Layers {
    /// Which blocks of a run stay, that has so many and begins with block `first` of the model.
    fn of(&self, count: usize, first: usize) -> Vec<usize> {
        match self {
            Self::Alternate => {
                let left = count.div_ceil(2);
                let front = left.div_ceil(2);
                let back = left - front;
                let front = (0..front).map(|i| 2 * i);
                let back = (0..back).rev().map(|i| count - 1 - 2 * i);
                front.chain(back).collect()
            }
            Self::Uniform(n) if *n < count => (1..=*n).map(|m| m * count / n - 1).collect(),
            Self::First(n) if *n < count => (0..*n).collect(),
            Self::Uniform(_) | Self::First(_) => (0..count).collect(),
            Self::These(list) => (0..count).filter(|i| list.contains(&(first + i))).collect(),
        }
    }
}

/// The model with some of its blocks, and what was done.
///
/// # Errors
/// When it has no blocks that repeat, or not those that are asked for.
pub(super) fn shorten(model: &Model, layers: &Layers) -> Result<(Model, Vec<String>)> {
    let runs = blocks::runs(model)?;
    if runs.is_empty() {
        return Err(Error::unsupported("no blocks of the model repeat")
            .hint("a block adds to what it takes, gives the same shape, and stands behind one of the same form"));
    }
    let count: usize = runs.iter().map(Run::count).sum();
    if let Layers::These(list) = layers
        && (list.is_empty() || list.iter().any(|&i| i >= count))
    {
        let what = format!("the model has blocks 0 to {}", count - 1);
        return Err(Error::usage(what));
    }
    let mut out = model.clone();
    let (mut notes, mut first) = (Vec::new(), 0);
    for run in &runs {
        let stay = layers.of(run.count(), first);
        notes.push(told(model, run, &stay, first));
        // From the last on, so that what reads a block's result is known when it goes.
        for block in (0..run.count()).rev().filter(|b| !stay.contains(b)) {
            pass_by(&mut out, run.values[block], run.values[block + 1]);
        }
        first += run.count();
    }
    let only = ["remove_dead_nodes"];
    let options = RunOptions {
        only: &only,
        ..RunOptions::default()
    };
    optimize(&mut out, Level::Basic, &options)?;
    Ok((out, notes))
}

fn told(model: &Model, run: &Run, stay: &[usize], first: usize) -> String {
    let name = |v: &ValueId| model.graph.value(*v).name.as_str();
    let ends = [run.values.first(), run.values.last()].map(|v| v.map_or("", name));
    let numbers: Vec<String> = stay.iter().map(|i| (first + i).to_string()).collect();
    let numbers = if numbers.is_empty() {
        "none".into()
    } else {
        numbers.join(", ")
    };
    format!(
        "blocks {first} to {} from \"{}\" to \"{}\": {numbers} stay",
        first + run.count() - 1,
        ends[0],
        ends[1]
    )
}

/// Who reads `to` reads `from` instead; an output of the model keeps its name.
pub fn pass_by(out: &mut Model, from: ValueId, to: ValueId) {
    let graph = &mut out.graph;
    graph.replace_uses(to, from);
    if !graph.is_output(to) {
        return;
    }
    if let Some((id, o)) = graph.value(to).producer() {
        let name = graph.fresh_name("left_out");
        let left_out = graph.add_value(&name, None);
        graph.set_output(id, o, Some(left_out));
        let node = Node::new("Identity", &graph.value(to).name.clone());
        graph.add_node(node, &[Some(from)], &[Some(to)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_layer_stays_as_distilbert_begins() {
        let of = |count| Layers::Alternate.of(count, 0);
        assert_eq!(of(12), [0, 2, 4, 7, 9, 11]);
        assert_eq!(of(6), [0, 2, 5]);
        assert_eq!(of(4), [0, 3]);
        assert_eq!([of(3), of(2), of(5)], [vec![0, 2], vec![0], vec![0, 2, 4]]);
    }

    #[test]
    fn layers_at_equal_distances_have_the_last_among_them() {
        assert_eq!(Layers::Uniform(4).of(12, 0), [2, 5, 8, 11]);
        assert_eq!(Layers::Uniform(2).of(5, 0), [1, 4]);
        assert_eq!(Layers::Uniform(7).of(3, 0), [0, 1, 2]);
        assert_eq!(Layers::These(vec![1, 4, 5]).of(3, 3), [1, 2]);
    }

    #[test]
    fn a_choice_of_layers_is_read_or_refused() {
        assert_eq!("uniform:3".parse::<Layers>().unwrap(), Layers::Uniform(3));
        assert_eq!("0, 2".parse::<Layers>().unwrap(), Layers::These(vec![0, 2]));
        for text in ["", "every", "first:0", "uniform:", "last:2", "1,x"] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
    }
}
