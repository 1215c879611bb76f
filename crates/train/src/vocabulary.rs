//! The rows of the tables that ids of an input go to: the vocabulary that a model is made for.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Error, Model, Result, ValueId};

/// Operators that hand ids on, by their first input.
static HANDED_ON: &[&str] = &[
    "Cast",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// What is numbered beside words.
static BESIDE: &[&str] = &["attention_mask", "position_ids", "token_type_ids"];

/// The table and the ids of an operator that looks rows up, and which axis of the table those are.
fn lookups(op: &str) -> &'static [(usize, usize)] {
    match op {
        "Gather" => &[(0, 1)],
        "GatherBlockQuantized" => &[(0, 1)],
        "EmbedLayerNormalization" => &[(2, 0), (4, 1)],
        _ => &[],
    }
}

/// The rows of the smallest table that ids of each input go to, by the name of the input.
///
/// # Errors
/// When the graph has a cycle.
pub fn rows(model: &Model) -> Result<BTreeMap<String, usize>> {
    let graph = &model.graph;
    let mut of: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let given: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    for &v in given.iter().filter(|&&v| graph.constant(v).is_none()) {
        of.insert(v, v);
    }
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for id in graph.order()? {
        let node = graph.node(id);
        for &(table, ids) in lookups(&node.op) {
            let axis = node.int("axis").or(node.int("gather_axis")).unwrap_or(0);
            let input = node.input(ids).and_then(|v| of.get(&v));
            let table = node.input(table).and_then(|v| table_of(model, v));
            if let (Some(&input), Some(rows), 0) = (input, table, axis) {
                let least = found.entry(graph.value(input).name.clone());
                let least = least.or_insert(rows);
                *least = rows.min(*least);
            }
        }
        if HANDED_ON.contains(&node.op.as_str())
            && let (Some(x), Some(y)) = (node.input(0), node.output(0))
            && let Some(&input) = of.get(&x)
        {
            of.insert(y, input);
        }
    }
    Ok(found)
}

/// The rows of a constant table, which may be dequantised.
fn table_of(model: &Model, v: ValueId) -> Option<usize> {
    let graph = &model.graph;
    let data = graph.constant(v).or_else(|| {
        let node = graph.node(graph.producer_is(v, "DequantizeLinear")?);
        graph.constant(node.input(0)?)
    })?;
    data.dims().first().copied().filter(|_| data.rank() > 1)
}

/// Refuses a teacher whose ids are others than the student's: tables of other rows are of another
/// tokenizer.
///
/// # Errors
/// When rows differ; both are named.
pub fn check_alike(student: &Model, teacher: &Model) -> Result<()> {
    let own = rows(student)?;
    for (input, theirs) in rows(teacher)? {
        if let Some(&rows) = own.get(&input).filter(|r| **r != theirs) {
            return Err(Error::invalid(format!(
                "ids of \"{input}\" have {rows} rows in the student's table, {theirs} in the teacher's: they are of different vocabularies"
            ))
            .hint("student and teacher read the same ids: both need the tokenizer of one of them"));
        }
    }
    Ok(())
}

/// Refuses ids of a tokenizer that has more of them than a table has rows.
///
/// # Errors
/// When it has; both are named.
pub fn check_tokenizer(model: &Model, tokens: usize) -> Result<()> {
    for (input, rows) in rows(model)? {
        if rows < tokens && !BESIDE.contains(&input.as_str()) {
            return Err(Error::invalid(format!(
                "the tokenizer has {tokens} tokens, the table of \"{input}\" {rows} rows: they are of different vocabularies"
            ))
            .hint("--tokenizer takes the vocabulary that the model was made for"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use super::*;
    use crate::draft::{Draft, Options};

    fn reader(rows: usize) -> Model {
        let zeros = vec!["0"; rows * 2].join(",");
        parse(&format!(
            "opset 17 graph g(input_ids: i64[batch,3], token_type_ids: i64[batch,3]) -> (y) {{
            e: f32[{rows},2] = {{{zeros}}} t: f32[2,2] = {{1,2,3,4}} p: f32[5,2] = {{1,2,3,4,5,6,7,8,9,1}}
            at: i64[3] = {{0,1,2}} i = Cast(input_ids) {{to=6}}
            a = Gather(e, i) b = Gather(t, token_type_ids) c = Gather(p, at)
            ab = Add(a, b) y = Add(ab, c) }}"
        ))
        .unwrap()
    }

    #[test]
    fn the_rows_of_tables_are_those_that_ids_go_to() {
        let found = rows(&reader(7)).unwrap();
        let expected = [("input_ids", 7), ("token_type_ids", 2)];
        let expected = expected.map(|(n, r)| (n.to_owned(), r));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn a_teacher_or_a_tokenizer_of_another_vocabulary_is_refused_before_the_first_step() {
        let mut draft = Draft::new(&reader(7), &Options::default()).unwrap();
        draft.set_teacher(&reader(7)).unwrap();
        let error = draft.set_teacher(&reader(9)).unwrap_err().to_string();
        assert!(
            error.contains("7 rows") && error.contains("9 in the"),
            "{error}"
        );
        assert!(check_tokenizer(&reader(7), 7).is_ok());
        let error = check_tokenizer(&reader(7), 8).unwrap_err().to_string();
        assert!(error.contains("8 tokens"), "{error}");
    }
}
