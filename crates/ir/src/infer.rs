//! Shape and type inference over the operator list.
//!
//! Beside types, inference follows the *contents* of small integer tensors (shapes, axes) with
//! symbolic dimensions, so that `Shape → Gather → Concat → Reshape` is seen through.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::At;
use crate::graph::{Graph, Model, Node, ValueId};
use crate::ops;
use crate::types::{Dim, Shape, TensorType, Type};
use crate::{DType, Error, Item, Result, Tensor};

/// Subgraphs nest at most so deep; deeper models are refused.
pub const MAX_DEPTH: usize = 32;

/// Tensors have at most so many axes; a shape that is given as longer is not followed.
pub const MAX_RANK: usize = 64;

/// What inference found for one graph.
#[derive(Debug, Clone, Default)]
pub struct Inferred {
    /// The type of each value, by [`ValueId::index`].
    pub types: Vec<Option<Type>>,
    /// The contents of small integer tensors, flattened, by [`ValueId::index`].
    pub contents: Vec<Option<Vec<Dim>>>,
    /// Where the file declares another type than the rules give; the rules win.
    pub conflicts: Vec<Error>,
}

impl Inferred {
    /// Nothing is known of `graph`.
    pub fn nothing(graph: &Graph) -> Self {
        Self {
            types: vec![None; graph.value_slots()],
            contents: vec![None; graph.value_slots()],
            conflicts: Vec::new(),
        }
    }

    /// The tensor type of a value, where it is known.
    pub fn tensor(&self, v: ValueId) -> Option<&TensorType> {
        self.types[v.index()].as_ref().and_then(Type::tensor)
    }

    /// The lengths of all axes of a value, where they are known.
    pub fn dims(&self, v: ValueId) -> Option<smallvec::SmallVec<[usize; 6]>> {
        self.tensor(v)?.shape.as_ref()?.known()
    }
}

/// What a shape rule sees of one node, and where it writes.
pub struct InferCx<'a> {
    /// The node.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub version: i64,
    source: Source<'a>,
    opsets: &'a BTreeMap<String, i64>,
    depth: usize,
    outputs: Vec<(usize, Type)>,
    contents: Vec<(usize, Vec<Dim>)>,
}

/// Where a rule finds what is known of the node's inputs.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// In a graph that is looked through.
    Graph(&'a Graph, &'a Inferred),
    /// In the values of a run.
    Run(&'a [Option<Item>], &'a [Known]),
}

/// What a value of a run tells.
struct Known {
    ty: Option<Type>,
    contents: Option<Vec<Dim>>,
}

impl InferCx<'_> {
    /// Number of inputs, left-out ones included.
    pub fn inputs(&self) -> usize {
        self.node.inputs().len()
    }

    /// True where input `i` is given.
    pub fn has(&self, i: usize) -> bool {
        self.node.input(i).is_some()
    }

    /// The type of input `i`.
    pub fn ty(&self, i: usize) -> Option<&Type> {
        match self.source {
            Source::Graph(_, state) => state.types[self.node.input(i)?.index()].as_ref(),
            Source::Run(_, known) => known.get(i)?.ty.as_ref(),
        }
    }

    /// The element type of input `i`.
    pub fn dtype(&self, i: usize) -> Option<DType> {
        self.ty(i)?.tensor().map(|t| t.dtype)
    }

    /// The shape of input `i`.
    pub fn shape(&self, i: usize) -> Option<&Shape> {
        self.ty(i)?.tensor()?.shape.as_ref()
    }

    /// The data of input `i`, where it is constant.
    pub fn constant(&self, i: usize) -> Option<&Tensor> {
        match self.source {
            Source::Graph(graph, _) => graph.constant(self.node.input(i)?),
            Source::Run(items, _) => items.get(i)?.as_ref()?.as_tensor().ok(),
        }
    }

    /// The integers in input `i`, flattened, with symbols where only those are known.
    pub fn contents(&self, i: usize) -> Option<&[Dim]> {
        match self.source {
            Source::Graph(_, state) => state.contents[self.node.input(i)?.index()].as_deref(),
            Source::Run(_, known) => known.get(i)?.contents.as_deref(),
        }
    }

    /// The integers in input `i`, where all are known: from a constant (any sign) or contents.
    pub fn ints(&self, i: usize) -> Option<Vec<i64>> {
        if let Some(t) = self.constant(i) {
            return t.to_i64().ok();
        }
        self.contents(i)?
            .iter()
            .map(|d| i64::try_from(d.known()?).ok())
            .collect()
    }

    /// Says the type of output `o`.
    pub fn set(&mut self, o: usize, ty: impl Into<Type>) {
        self.outputs.push((o, ty.into()));
    }

    /// Says element type and shape (where known) of output `o`; nothing without an element type.
    pub fn set_tensor(&mut self, o: usize, dtype: Option<DType>, shape: Option<Shape>) {
        if let Some(dtype) = dtype {
            self.set(o, TensorType { dtype, shape });
        }
    }

    /// Says the integers in output `o`; more than [`MAX_CONTENTS`] are not followed.
    pub fn set_contents(&mut self, o: usize, contents: Vec<Dim>) {
        if contents.len() <= MAX_CONTENTS {
            self.contents.push((o, contents));
        }
    }

    /// The shape of unknown lengths whose rank is the length of the vector in input `i`.
    pub fn shape_of_rank(&self, i: usize) -> Option<Shape> {
        match self.shape(i)?.0.as_slice() {
            [Dim::Known(n)] if *n <= MAX_RANK => Some(Shape::unknown(*n)),
            _ => None,
        }
    }

    /// How many graphs stand around this one.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Infers the graph in attribute `name` with these types for its inputs; the types of its
    /// outputs.
    ///
    /// # Errors
    /// When the attribute is missing or a rule inside fails.
    pub fn subgraph(&self, name: &str, inputs: &[Option<Type>]) -> Result<Vec<Option<Type>>> {
        let graph = self.node.graph_of(name, inputs.len())?;
        let mut known: Vec<(ValueId, Type)> = graph
            .inputs
            .iter()
            .zip(inputs)
            .filter_map(|(&v, t)| Some((v, t.clone()?)))
            .collect();
        if let Source::Graph(_, state) = self.source {
            for c in &graph.captures {
                if let Some(t) = &state.types[c.outer.index()] {
                    known.push((c.inner, t.clone()));
                }
            }
        }
        let inner = infer_graph(graph, self.opsets, &known, self.depth + 1)?;
        Ok(graph
            .outputs
            .iter()
            .map(|v| inner.types[v.index()].clone())
            .collect())
    }
}

/// Infers the main graph. `inputs` gives types that replace those declared for graph inputs,
/// such as the shapes of one run.
///
/// # Errors
/// When the graph has a cycle or a node's inputs break its operator's rule; the error names it.
pub fn infer(model: &Model, inputs: &[(ValueId, Type)]) -> Result<Inferred> {
    infer_graph(&model.graph, &model.opsets, inputs, 0)
}

/// Infers the main graph and its subgraphs and writes the types into the values.
///
/// # Errors
/// As [`infer`]. Conflicts with declared types are returned, not errors.
pub fn annotate(model: &mut Model) -> Result<Vec<Error>> {
    let inferred = infer(model, &[])?;
    for (i, ty) in inferred.types.into_iter().enumerate() {
        let (id, _) = model
            .graph
            .values()
            .nth(i)
            .expect("types has a row for each value");
        model.graph.value_mut(id).ty = ty;
    }
    Ok(inferred.conflicts)
}

/// Infers one graph with `opsets`; `known` gives types of inputs and captures.
///
/// # Errors
/// As [`infer`].
pub fn infer_graph(
    graph: &Graph,
    opsets: &BTreeMap<String, i64>,
    known: &[(ValueId, Type)],
    depth: usize,
) -> Result<Inferred> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "subgraphs nest deeper than {MAX_DEPTH}"
        )));
    }
    let mut state = Inferred::nothing(graph);
    let inputs: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    for (id, value) in graph.values() {
        if value.producer().is_none() {
            state.types[id.index()] = value.ty.clone();
        }
        if let Some(t) = &value.constant {
            state.types[id.index()] = Some(t.ty().into());
            if !inputs.contains(&id) {
                state.contents[id.index()] = contents_of(t);
            }
        }
    }
    for (id, ty) in known {
        state.types[id.index()] = Some(ty.clone());
    }
    for id in graph.order()? {
        let node = graph.node(id);
        let (outputs, contents) =
            run_rule(graph, node, opsets, &state, depth).at(|| node.place())?;
        for (o, ty) in outputs {
            if let Some(v) = node.output(o) {
                state.types[v.index()] = Some(ty);
            }
        }
        for (o, dims) in contents {
            if let Some(v) = node.output(o) {
                state.contents[v.index()] = Some(dims);
            }
        }
        for &v in node.outputs().iter().flatten() {
            reconcile(graph, v, &mut state);
        }
    }
    Ok(state)
}

type RuleResult = (Vec<(usize, Type)>, Vec<(usize, Vec<Dim>)>);

fn run_rule(
    graph: &Graph,
    node: &Node,
    opsets: &BTreeMap<String, i64>,
    state: &Inferred,
    depth: usize,
) -> Result<RuleResult> {
    let Some(def) = ops::find(&node.domain, &node.op) else {
        return Ok(RuleResult::default());
    };
    def.check_arity(node)?;
    let version = opsets.get(&node.domain).copied().unwrap_or(1);
    let mut cx = InferCx {
        node,
        version,
        source: Source::Graph(graph, state),
        opsets,
        depth,
        outputs: Vec::new(),
        contents: Vec::new(),
    };
    (def.infer)(&mut cx)?;
    Ok((cx.outputs, cx.contents))
}

/// The types of the outputs of one node for the values of a run, by place, as its operator's rule
/// gives them; nothing for unknown operators.
///
/// # Errors
/// When the values break the rule.
pub fn infer_node(
    node: &Node,
    opsets: &BTreeMap<String, i64>,
    inputs: &[Option<Item>],
) -> Result<Vec<(usize, Type)>> {
    let Some(def) = ops::find(&node.domain, &node.op) else {
        return Ok(Vec::new());
    };
    def.check_arity(node)?;
    let known = |item: &Option<Item>| Known {
        ty: item.as_ref().and_then(Item::ty),
        contents: match item {
            Some(Item::Tensor(t)) => contents_of(t),
            _ => None,
        },
    };
    let known: Vec<Known> = inputs.iter().map(known).collect();
    let mut cx = InferCx {
        node,
        version: opsets.get(&node.domain).copied().unwrap_or(1),
        source: Source::Run(inputs, &known),
        opsets,
        depth: 0,
        outputs: Vec::new(),
        contents: Vec::new(),
    };
    (def.infer)(&mut cx)?;
    Ok(cx.outputs)
}

/// The declared type fills what the rule left open; a contradiction is noted.
fn reconcile(graph: &Graph, v: ValueId, state: &mut Inferred) {
    let value = graph.value(v);
    let (Some(declared), inferred) = (&value.ty, &mut state.types[v.index()]) else {
        return;
    };
    let Some(found) = inferred else {
        *inferred = Some(declared.clone());
        return;
    };
    let (Type::Tensor(d), Type::Tensor(f)) = (declared, &mut *found) else {
        return;
    };
    let conflict = d.dtype != f.dtype
        || match (&d.shape, &mut f.shape) {
            (Some(ds), Some(fs)) => match fs.unify(ds) {
                Some(both) => {
                    *fs = both;
                    false
                }
                None => true,
            },
            (Some(ds), open @ None) => {
                *open = Some(ds.clone());
                false
            }
            (None, _) => false,
        };
    if conflict {
        let message = format!("the file declares {declared}, its operators give {found}");
        state
            .conflicts
            .push(Error::invalid(message).at(format!("value \"{}\"", value.name)));
    }
}

/// Contents are followed for tensors of up to so many elements.
pub const MAX_CONTENTS: usize = 1024;

fn contents_of(t: &Tensor) -> Option<Vec<Dim>> {
    if t.rank() > 1 || t.count() > MAX_CONTENTS || !matches!(t.dtype(), DType::I64 | DType::I32) {
        return None;
    }
    let known = |i: i64| usize::try_from(i).map_or(Dim::Unknown, Dim::Known);
    Some(t.to_i64().ok()?.into_iter().map(known).collect())
}

/// The rule of operators whose outputs are typed like their first input.
///
/// # Errors
/// Never.
pub fn like_first(cx: &mut InferCx) -> Result<()> {
    if let Some(ty) = cx.ty(0).cloned() {
        cx.set(0, ty);
    }
    Ok(())
}

/// The rule that knows nothing: the declared types are kept.
///
/// # Errors
/// Never.
pub fn unknown(_cx: &mut InferCx) -> Result<()> {
    Ok(())
}

/// The shape that numpy-style broadcasting gives; `None` where a rank is unknown.
///
/// # Errors
/// When two lengths differ and neither is 1.
pub fn broadcast(shapes: &[Option<&Shape>]) -> Result<Option<Shape>> {
    let Some(shapes) = shapes.iter().copied().collect::<Option<Vec<&Shape>>>() else {
        return Ok(None);
    };
    let rank = shapes.iter().map(|s| s.rank()).max().unwrap_or(0);
    let mut out = Shape(smallvec::smallvec![Dim::Known(1); rank]);
    for shape in shapes {
        let shift = rank - shape.rank();
        for (i, d) in shape.iter().enumerate() {
            let o = &mut out.0[shift + i];
            *o = match (&*o, d) {
                (Dim::Known(1), _) => d.clone(),
                (_, Dim::Known(1)) => o.clone(),
                (Dim::Known(a), Dim::Known(b)) if a != b => {
                    return Err(Error::invalid(format!(
                        "lengths {a} and {b} do not broadcast"
                    )));
                }
                (Dim::Known(_), _) => o.clone(),
                (_, Dim::Known(_)) => d.clone(),
                (a, b) if a.same(b) => o.clone(),
                _ => Dim::Unknown,
            };
        }
    }
    Ok(Some(out))
}

/// `axis` counted from the front, negative ones from the back.
///
/// # Errors
/// When it is outside `-rank..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let r = i64::try_from(rank).map_err(|_| Error::invalid("the rank is too large"))?;
    if (-r..r).contains(&axis) {
        Ok(usize::try_from(if axis < 0 { axis + r } else { axis }).expect("the axis is in range"))
    } else {
        Err(Error::invalid(format!(
            "axis {axis} is outside a tensor of {rank} axes"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_length_wins_over_a_symbol_when_broadcasting() {
        let a = Shape(smallvec::smallvec![Dim::symbol("n"), Dim::Known(3)]);
        let b = Shape::fixed(&[4, 1]);
        let c = broadcast(&[Some(&a), Some(&b)]).unwrap().unwrap();
        assert_eq!(c, Shape::fixed(&[4, 3]));
        assert!(broadcast(&[Some(&Shape::fixed(&[2])), Some(&Shape::fixed(&[3]))]).is_err());
    }

    #[test]
    fn negative_axes_count_from_the_back() {
        assert_eq!(axis(-1, 3).unwrap(), 2);
        assert!(axis(3, 3).is_err());
    }
}
