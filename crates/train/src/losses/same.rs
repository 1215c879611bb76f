//! Values of student and teacher that belong together, for losses that compare two values: those of
//! one name, or those that stand as far along.

use std::collections::BTreeSet;

use edgesmith_ir::{Error, Model, NodeId, Result, ValueId};

use super::Loss;
use crate::student::{blocks, prepared, stream};

/// Finds the values of a teacher that a loss may compare with those of the same names.
pub type Find = fn(&Model) -> Result<Vec<ValueId>>;

/// The names of the values that a loss compares where it is told `same`.
///
/// # Errors
/// When the loss does not say which values are meant, or the two have none in common.
pub fn names(loss: &Loss, student: &Model, teacher: &Model) -> Result<Vec<String>> {
    let find = finder(loss)?;
    let teacher = prepared(teacher)?;
    let found = find(&teacher)?;
    let names = found.iter().map(|&v| &teacher.graph.value(v).name);
    let is_there = |name: &&String| {
        let v = student.graph.find_value(name);
        v.is_some_and(|v| student.graph.value(v).producer().is_some())
    };
    let shared: Vec<String> = names.filter(is_there).cloned().collect();
    if shared.is_empty() {
        let what = format!(
            "of the teacher's {} values for {} the student has none of the same name",
            found.len(),
            loss.name
        );
        return Err(Error::invalid(what)
            .hint("`edgesmith student` keeps names; name the values of other students"));
    }
    Ok(shared)
}

fn finder(loss: &Loss) -> Result<Find> {
    loss.same.ok_or_else(|| {
        Error::usage(format!(
            "{} does not know which values are the same",
            loss.name
        ))
        .hint(format!("{} WEIGHT STUDENT : TEACHER", loss.name))
    })
}

/// The names of the values that a loss compares where it is told `uniform`, the student's and the
/// teacher's: of M blocks of the student the m-th with the teacher's g(m) = m·N/M of N, and what the
/// first block takes with what the teacher's takes, g(0) = 0 (X. Jiao et al., TinyBERT, 2020,
/// section 3.1). Networks of several stages, each of its own shape, are paired stage by stage. Attentions
/// are counted in the order in which they run.
///
/// # Errors
/// When the loss does not say which values are meant, or one has none of them.
pub fn uniform(loss: &Loss, student: &Model, teacher: &Model) -> Result<Vec<(String, String)>> {
    let find = finder(loss)?;
    let models = [prepared(student)?, prepared(teacher)?];
    let is_station = std::ptr::fn_addr_eq(find, stations as Find);
    let mut stages = Vec::new();
    for (model, whose) in models.iter().zip(["student", "teacher"]) {
        let found: Vec<Vec<ValueId>> = match is_station {
            true => staged(model)?,
            false => vec![find(model)?],
        };
        let found: Vec<Vec<ValueId>> = found.into_iter().filter(|s| !s.is_empty()).collect();
        if found.is_empty() {
            let what = format!(
                "the {whose} has no values for {}: no blocks repeat",
                loss.name
            );
            return Err(Error::invalid(what).hint("name the values of both"));
        }
        stages.push(found);
    }
    let [own, theirs] = [&stages[0], &stages[1]];
    if own.len() != theirs.len() {
        let what = format!(
            "the student has {} stages of blocks that repeat, the teacher {}",
            own.len(),
            theirs.len()
        );
        return Err(Error::invalid(what).hint("name the values of both"));
    }
    let name = |i: usize, v: ValueId| models[i].graph.value(v).name.clone();
    // What the first block takes stands before all blocks.
    let before = usize::from(is_station);
    let mut pairs = Vec::new();
    for (own, theirs) in own.iter().zip(theirs) {
        let (m, n) = (own.len() - before, theirs.len() - before);
        for (i, &v) in own.iter().enumerate() {
            let block = i + 1 - before;
            let there = as_far(block, m, n) + before;
            pairs.push((name(0, v), name(1, theirs[there.saturating_sub(1)])));
        }
    }
    Ok(pairs)
}

/// g(m) = m·N/M, of whole blocks; at least one block, unless m is 0.
fn as_far(block: usize, of: usize, there: usize) -> usize {
    match of {
        0 => 0,
        _ => (block * there / of).max(block.min(1)),
    }
}

/// The stations of each run of blocks that repeat, or those of the whole where none do.
fn staged(model: &Model) -> Result<Vec<Vec<ValueId>>> {
    let runs = blocks::runs(model)?;
    match runs.is_empty() {
        true => Ok(vec![stations(model)?]),
        false => Ok(runs.into_iter().map(|r| r.values).collect()),
    }
}

/// What blocks that repeat take and give; where there are none, the sums in the residual stream.
pub(super) fn stations(model: &Model) -> Result<Vec<ValueId>> {
    let runs = blocks::runs(model)?;
    let values: BTreeSet<ValueId> = runs.into_iter().flat_map(|r| r.values).collect();
    if !values.is_empty() {
        return Ok(values.into_iter().collect());
    }
    let is_sum = |v: &ValueId| {
        let sum = model.graph.producer_is(*v, "Add");
        let operands = sum.map(|id| model.graph.node(id).inputs());
        operands.is_some_and(|o| {
            o.iter()
                .flatten()
                .all(|&v| model.graph.constant(v).is_none())
        })
    };
    Ok(stream::cuts(model)?.into_iter().filter(is_sum).collect())
}

/// The softmax of each attention, with the product that reads it and its values, in the order in
/// which they run.
fn attentions(model: &Model) -> Result<Vec<(NodeId, NodeId)>> {
    let graph = &model.graph;
    let order = graph.order()?;
    let softmax = order.into_iter().filter(|id| graph.node(*id).is("Softmax"));
    let read = softmax.filter_map(|id| {
        let (reader, place) = graph.sole_consumer(graph.node(id).output(0)?)?;
        (place == 0 && graph.node(reader).is("MatMul")).then_some((id, reader))
    });
    Ok(read.collect())
}

/// The scores of each attention before the softmax.
pub(super) fn scores(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(softmax, _)| model.graph.node(softmax).input(0);
    Ok(attentions(model)?.into_iter().filter_map(of).collect())
}

/// The probabilities of each attention.
pub(super) fn probabilities(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(softmax, _)| model.graph.node(softmax).output(0);
    Ok(attentions(model)?.into_iter().filter_map(of).collect())
}

/// The values of each attention.
pub(super) fn values(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(_, product)| model.graph.node(product).input(1);
    Ok(attentions(model)?.into_iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{self, Spec};
    use crate::losses;
    use crate::student::{Options, student};

    fn shared(loss: &str, student: &Model, teacher: &Model) -> Vec<String> {
        names(losses::find(loss).unwrap(), student, teacher).unwrap()
    }

    fn encoder() -> Model {
        let spec = Spec {
            input: "input_ids".into(),
            dims: vec![6],
            vocabulary: Some(20),
            classes: 2,
            seed: 0,
        };
        (architectures::find("encoder-4").unwrap().build)(&spec).unwrap()
    }

    #[test]
    fn a_student_of_fewer_layers_is_paired_with_the_layers_that_it_kept() {
        let teacher = encoder();
        let options = Options {
            layers: Some("1,3".parse().unwrap()),
            ..Options::default()
        };
        let (small, _) = student(&teacher, &options).unwrap();
        // The embeddings, and what layers 1 and 3 give.
        assert_eq!(shared("hint", &small, &teacher).len(), 3);
        assert_eq!(shared("hint", &teacher, &teacher).len(), 5);
        for loss in ["attention-scores", "attention", "value-relation"] {
            assert_eq!(shared(loss, &small, &teacher).len(), 2, "{loss}");
        }
        let kd = losses::find("kd").unwrap();
        assert!(names(kd, &small, &teacher).is_err());
    }

    #[test]
    fn blocks_of_a_student_that_was_brought_are_paired_at_equal_distances() {
        let teacher = encoder();
        let options = Options {
            layers: Some("1,2".parse().unwrap()),
            ..Options::default()
        };
        let (mut small, _) = student(&teacher, &options).unwrap();
        let slots: Vec<ValueId> = small.graph.values().map(|(v, _)| v).collect();
        let given = small.graph.inputs.clone();
        for v in slots.into_iter().filter(|v| !given.contains(v)) {
            let value = small.graph.value_mut(v);
            value.name = format!("own/{}", value.name);
        }
        let of = |loss: &str| uniform(losses::find(loss).unwrap(), &small, &teacher).unwrap();
        let run = &blocks::runs(&prepared(&teacher).unwrap()).unwrap()[0];
        let teacher_graph = prepared(&teacher).unwrap().graph;
        let at = |i: usize| teacher_graph.value(run.values[i]).name.clone();
        let hints = of("hint");
        let there: Vec<String> = hints.iter().map(|(_, t)| t.clone()).collect();
        assert_eq!(there, [at(0), at(2), at(4)]);
        assert!(hints.iter().all(|(s, _)| s.starts_with("own/")));
        // Layers 1 and 3 of 0 to 3: the second and the fourth.
        let second: Vec<(String, String)> = of("attention");
        let all = probabilities(&prepared(&teacher).unwrap()).unwrap();
        let all: Vec<&String> = all.iter().map(|&v| &teacher_graph.value(v).name).collect();
        assert_eq!([&second[0].1, &second[1].1], [all[1], all[3]]);
        assert!(names(losses::find("hint").unwrap(), &small, &teacher).is_err());
        let map: Vec<usize> = (0..=4).map(|m| as_far(m, 4, 6)).collect();
        assert_eq!(map, [0, 1, 3, 4, 6]);
        assert_eq!([as_far(1, 6, 4), as_far(6, 6, 4)], [1, 4]);
    }

    #[test]
    fn a_narrow_student_is_paired_at_its_sums() {
        let spec = Spec {
            input: "x".into(),
            dims: vec![3, 8, 8],
            classes: 4,
            ..Spec::default()
        };
        let teacher = (architectures::find("resnet-8").unwrap().build)(&spec).unwrap();
        let options = Options {
            width: Some(0.5),
            ..Options::default()
        };
        let (small, _) = student(&teacher, &options).unwrap();
        assert_eq!(shared("hint", &small, &teacher).len(), 3);
    }
}
