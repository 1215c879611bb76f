//! How much a run may use: bytes of values, steps, arithmetic. Model files are untrusted, so every
//! run has an end.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::{Error, Item, Result, Tensor};

/// The most that one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the values that are there at a time, those of loops included; the model's
    /// constants and the caller's inputs are not among them. What an operator needs beside its
    /// outputs may have as many elements as bytes are left.
    pub bytes: u64,
    /// Nodes that are evaluated, each turn of a loop anew.
    pub steps: u64,
    /// Multiply-accumulates, and elements read and written.
    pub work: u64,
}

impl Limits {
    /// No limits but [`crate::tensor::MAX_COUNT`]: for models that are trusted.
    pub const NONE: Self = Self {
        bytes: u64::MAX,
        steps: u64::MAX,
        work: u64::MAX,
    };
}

/// 16 GiB, 10⁹ nodes and 10¹⁵ multiply-accumulates: more than models for one machine ask for.
impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 << 30,
            steps: 1_000_000_000,
            work: 1_000_000_000_000_000,
        }
    }
}

/// What a run has used of its limits.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    held: Cell<u64>,
    steps: Cell<u64>,
    work: Cell<u64>,
}

impl Budget {
    /// Nothing used yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: Cell::new(0),
            steps: Cell::new(0),
            work: Cell::new(0),
        }
    }

    /// Bytes of the values that are there.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Bytes that values may still take.
    pub fn room(&self) -> u64 {
        self.limits.bytes.saturating_sub(self.held.get())
    }

    /// Counts `n` nodes.
    ///
    /// # Errors
    /// When the limit is passed.
    pub fn step(&self, n: u64) -> Result<()> {
        self.steps.set(self.steps.get().saturating_add(n));
        if self.steps.get() <= self.limits.steps {
            return Ok(());
        }
        let limit = self.limits.steps;
        Err(Error::invalid(format!(
            "the run evaluates more than {limit} nodes, which is its limit"
        ))
        .hint("a loop may not end; `Limits::steps` allows more"))
    }

    /// Counts `n` multiply-accumulates or elements.
    ///
    /// # Errors
    /// When the limit is passed.
    pub fn work(&self, n: u64) -> Result<()> {
        let total = self.work.get().saturating_add(n);
        if total <= self.limits.work {
            self.work.set(total);
            return Ok(());
        }
        let (used, limit) = (self.work.get(), self.limits.work);
        Err(Error::invalid(format!(
            "it needs {n} multiply-accumulates, {used} of at most {limit} are used"
        ))
        .hint("`Limits::work` allows more"))
    }

    /// Refuses what does not fit beside what is there.
    ///
    /// # Errors
    /// When `bytes` are more than there is room for.
    pub fn check(&self, bytes: u64) -> Result<()> {
        if bytes <= self.room() {
            return Ok(());
        }
        let (held, limit) = (self.held.get(), self.limits.bytes);
        Err(Error::invalid(format!(
            "it needs {bytes} bytes for values, {held} of at most {limit} are in use"
        ))
        .hint("`Limits::bytes` allows more"))
    }

    /// Counts values of so many bytes.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn hold(&self, bytes: u64) -> Result<()> {
        self.check(bytes)?;
        self.held.set(self.held.get() + bytes);
        Ok(())
    }

    /// Forgets the values that came after `held` bytes.
    pub fn release_to(&self, held: u64) {
        self.held.set(held.min(self.held.get()));
    }
}

/// Sequences and optionals hold each other at most so deep.
const MAX_NESTING: usize = 8;

/// Bytes of the values, shared memory counted anew.
pub(crate) fn bytes_of(items: &[Item]) -> u64 {
    let sizes = items.iter().map(|i| size(i, &BTreeMap::new()));
    sizes.fold(0, u64::saturating_add)
}

/// Bytes of the outputs of a node, without those that lie in its inputs.
///
/// # Errors
/// When an output nests too deep.
pub(crate) fn new_bytes(outputs: &[Item], inputs: &[Option<Item>]) -> Result<u64> {
    let mut known = BTreeMap::new();
    for input in inputs.iter().flatten() {
        each_tensor(input, &mut |t| {
            let memory = t.memory();
            let end = known.entry(memory.start).or_insert(memory.end);
            *end = memory.end.max(*end);
        });
    }
    let mut total = 0u64;
    for output in outputs {
        if depth(output) > MAX_NESTING {
            return Err(Error::invalid(format!(
                "sequences and optionals nest deeper than {MAX_NESTING}"
            )));
        }
        total = total.saturating_add(size(output, &known));
    }
    Ok(total)
}

fn size(item: &Item, known: &BTreeMap<usize, usize>) -> u64 {
    let mut total = match item {
        Item::Sequence(items) => size_of_val::<[Item]>(items) as u64,
        _ => 0,
    };
    each_tensor(item, &mut |t| {
        let memory = t.memory();
        let around = known.range(..=memory.start).next_back();
        if around.is_none_or(|(_, &end)| end < memory.end) {
            total = total.saturating_add(memory.len().max(t.byte_len()) as u64);
        }
    });
    total
}

fn each_tensor(item: &Item, show: &mut dyn FnMut(&Tensor)) {
    match item {
        Item::Tensor(t) => show(t),
        Item::Sequence(items) => items.iter().for_each(|i| each_tensor(i, show)),
        Item::Optional(item) => item.iter().for_each(|i| each_tensor(i, show)),
        Item::Map(map) => [&map.keys, &map.values].into_iter().for_each(show),
    }
}

fn depth(item: &Item) -> usize {
    match item {
        Item::Tensor(_) | Item::Map(_) | Item::Optional(None) => 0,
        Item::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Item::Optional(Some(item)) => 1 + depth(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate_within;
    use crate::text::parse;

    fn run(body: &str, limits: Limits) -> Result<Vec<Tensor>> {
        let model = parse(&format!("opset 17\ngraph g() -> (y) {{ {body} }}"))?;
        let outputs = evaluate_within(&model, &[], limits)?.into_iter();
        outputs.map(Item::into_tensor).collect()
    }

    fn said(result: Result<Vec<Tensor>>) -> String {
        result.unwrap_err().to_string()
    }

    /// A loop of nearly endless turns that carries `a`.
    fn forever(outputs: &str, body: &str) -> String {
        format!(
            "n: i64[] = {{4611686018427387904}} go: bool[] = {{true}} x: f32[1] = {{1}} \
             e: i64[1] = {{100}} {outputs} = Loop(n, go, x) \
             {{body=graph b(i: i64[], c: bool[], a: f32[1]) -> {body}}}"
        )
    }

    #[test]
    fn a_loop_without_end_ends_with_an_error() {
        let limits = Limits {
            steps: 1000,
            ..Limits::default()
        };
        let said = said(run(
            &forever("y", "(d, z) { d = Identity(c) z = Neg(a) }"),
            limits,
        ));
        assert!(said.starts_with("Loop"), "{said}");
        assert!(said.contains("more than 1000 nodes"), "{said}");
    }

    #[test]
    fn what_a_node_would_make_is_known_before_it_is_made() {
        let body = "s: i64[2] = {100000, 100000} y = ConstantOfShape(s)";
        let said = said(run(body, Limits::default()));
        assert!(said.contains("needs 40000000000 bytes"), "{said}");
        assert!(said.contains("`Limits::bytes` allows more"), "{said}");
    }

    #[test]
    fn the_turns_of_a_loop_add_up() {
        let limits = Limits {
            bytes: 1 << 20,
            ..Limits::default()
        };
        let stacked = "(d, z, w) { capture e = e d = Identity(c) z = Neg(a) w = Expand(a, e) }";
        let text = said(run(&forever("l, y", stacked), limits));
        assert!(text.contains("bytes for values"), "{text}");
        let doubled = "(d, z) { d = Identity(c) z = Concat(a, a) {axis=0} }";
        assert!(said(run(&forever("y", doubled), limits)).contains("bytes for values"));
    }

    #[test]
    fn views_of_inputs_take_nothing() {
        let limits = Limits {
            bytes: 800,
            ..Limits::default()
        };
        let body = "s: i64[1] = {100} x = ConstantOfShape(s) v = Identity(x) \
            w = Identity(v) y = Neg(w)";
        assert!(run(body, limits).is_ok());
        assert!(run(&body.replace("v = Identity", "v = Neg"), limits).is_err());
    }

    #[test]
    fn optionals_do_not_nest_without_end() {
        let body = "n: i64[] = {100000} go: bool[] = {true} x: f32[1] = {1} \
            o = Loop(n, go, x) {body=graph b(i: i64[], c: bool[], a: f32[1]) -> (d, z) \
            { d = Identity(c) z = Optional(a) }} y = Identity(x)";
        assert!(said(run(body, Limits::NONE)).contains("nest deeper"));
    }
}
