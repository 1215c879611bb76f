//! Values that a student has under its teacher's names, for losses that compare two values.

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
    let find = loss.same.ok_or_else(|| {
        Error::usage(format!(
            "{} does not know which values are the same",
            loss.name
        ))
        .hint(format!("{} WEIGHT STUDENT : TEACHER", loss.name))
    })?;
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

/// The softmax of each attention, with the product that reads it and its values.
fn attentions(model: &Model) -> Vec<(NodeId, NodeId)> {
    let graph = &model.graph;
    let softmax = graph.nodes().filter(|(_, n)| n.is("Softmax"));
    let read = softmax.filter_map(|(id, node)| {
        let (reader, place) = graph.sole_consumer(node.output(0)?)?;
        (place == 0 && graph.node(reader).is("MatMul")).then_some((id, reader))
    });
    read.collect()
}

/// The scores of each attention before the softmax.
pub(super) fn scores(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(softmax, _)| model.graph.node(softmax).input(0);
    Ok(attentions(model).into_iter().filter_map(of).collect())
}

/// The probabilities of each attention.
pub(super) fn probabilities(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(softmax, _)| model.graph.node(softmax).output(0);
    Ok(attentions(model).into_iter().filter_map(of).collect())
}

/// The values of each attention.
pub(super) fn values(model: &Model) -> Result<Vec<ValueId>> {
    let of = |(_, product)| model.graph.node(product).input(1);
    Ok(attentions(model).into_iter().filter_map(of).collect())
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

    #[test]
    fn a_student_of_fewer_layers_is_paired_with_the_layers_that_it_kept() {
        let spec = Spec {
            input: "input_ids".into(),
            dims: vec![6],
            vocabulary: Some(20),
            classes: 2,
            seed: 0,
        };
        let teacher = (architectures::find("encoder-4").unwrap().build)(&spec).unwrap();
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
