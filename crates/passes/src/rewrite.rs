//! What passes share: walking all graphs, fresh names, and edits that stay cheap on large graphs.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use edgesmith_ir::infer::{Inferred, infer_graph};
use edgesmith_ir::{
    Function, Graph, Model, Node, NodeId, Result, Shape, Tensor, TensorType, Type, ValueId,
};

use crate::pass::PassCx;

/// The names of values in all graphs of a model. New names differ from all of them, so that no
/// graph hides a name of the graph around it.
#[derive(Default)]
pub(crate) struct Names {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Names {
    fn of(graph: &Graph) -> Self {
        let mut names = Self::default();
        names.add(graph);
        names
    }

    fn add(&mut self, graph: &Graph) {
        self.taken
            .extend(graph.values().map(|(_, v)| v.name.clone()));
        for inner in graph.nodes().flat_map(|(_, n)| n.subgraphs()) {
            self.add(inner);
        }
    }

    /// `wanted`, or `wanted_1`, …: a name that no value has, taken from now on.
    pub(crate) fn fresh(&mut self, wanted: &str) -> String {
        if self.taken.insert(wanted.to_owned()) {
            return wanted.to_owned();
        }
        let next = self.next.entry(wanted.to_owned()).or_insert(0);
        loop {
            *next += 1;
            let name = format!("{wanted}_{next}");
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// What a pass sees beside the graph that it changes.
pub(crate) struct Scope<'a> {
    pub(crate) opsets: &'a BTreeMap<String, i64>,
    pub(crate) functions: &'a [Function],
    pub(crate) names: &'a mut Names,
    /// What stands for values of the graph around this one; empty for the main graph.
    known: Vec<(ValueId, Type)>,
    depth: usize,
    main_types: &'a RefCell<Option<Rc<Inferred>>>,
}

impl Scope<'_> {
    /// The opset version of the default domain.
    pub(crate) fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(1)
    }

    /// Types and contents of the graph as it was when the pass began, which is as it is now where
    /// a pass asks before its first change.
    pub(crate) fn infer(&self, graph: &Graph) -> Result<Rc<Inferred>> {
        if self.depth > 0 {
            // A branch that does not fit what is known is never taken, and stays as it is.
            let types = infer_graph(graph, self.opsets, &self.known, self.depth);
            return Ok(Rc::new(types.unwrap_or_else(|_| Inferred::nothing(graph))));
        }
        if let Some(types) = &*self.main_types.borrow()
            && types.types.len() == graph.value_slots()
        {
            return Ok(types.clone());
        }
        let types = Rc::new(infer_graph(graph, self.opsets, &[], 0)?);
        self.main_types.replace(Some(types.clone()));
        Ok(types)
    }
}

/// A change of one graph; how many changes it made.
pub(crate) type Change<'f> = &'f mut dyn FnMut(&mut Graph, &mut Scope) -> Result<usize>;

/// Changes the main graph and every subgraph, inner ones first; the sum of the changes.
pub(crate) fn each_graph(model: &mut Model, cx: &PassCx, change: Change) -> Result<usize> {
    let mut graph = std::mem::take(&mut model.graph);
    let mut names = cx.names.borrow_mut();
    let mut scope = Scope {
        opsets: &model.opsets,
        functions: &model.functions,
        names: names.get_or_insert_with(|| Names::of(&graph)),
        known: Vec::new(),
        depth: 0,
        main_types: &cx.types,
    };
    let result = visit(&mut graph, &mut scope, change);
    model.graph = graph;
    result
}

fn visit(graph: &mut Graph, scope: &mut Scope, change: Change) -> Result<usize> {
    let with_subgraphs: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| n.subgraphs().next().is_some())
        .map(|(id, _)| id)
        .collect();
    let mut changes = 0;
    if !with_subgraphs.is_empty() {
        let types = scope.infer(graph)?;
        for id in with_subgraphs {
            for inner in graph.node_mut(id).subgraphs_mut() {
                let known = inner
                    .captures
                    .iter()
                    .filter_map(|c| Some((c.inner, types.types[c.outer.index()].clone()?)))
                    .collect();
                let mut inner_scope = Scope {
                    opsets: scope.opsets,
                    functions: scope.functions,
                    names: &mut *scope.names,
                    known,
                    depth: scope.depth + 1,
                    main_types: scope.main_types,
                };
                changes += visit(inner, &mut inner_scope, change)?;
            }
        }
    }
    Ok(changes + change(graph, scope)?)
}

/// Edits of one graph that know which of its values are seen from outside or from subgraphs.
pub(crate) struct Editor<'g> {
    pub(crate) graph: &'g mut Graph,
    outputs: HashSet<ValueId>,
    inputs: HashSet<ValueId>,
    captured: HashSet<ValueId>,
}

impl<'g> Editor<'g> {
    pub(crate) fn new(graph: &'g mut Graph) -> Self {
        Self {
            outputs: graph.outputs.iter().copied().collect(),
            inputs: graph.inputs.iter().copied().collect(),
            captured: graph.captured().into_iter().collect(),
            graph,
        }
    }

    pub(crate) fn is_output(&self, v: ValueId) -> bool {
        self.outputs.contains(&v)
    }

    /// The data of `v`, where it is the same in every run.
    pub(crate) fn constant(&self, v: ValueId) -> Option<&Tensor> {
        if self.inputs.contains(&v) {
            return None;
        }
        self.graph.constant(v)
    }

    /// The integers that older opsets give as attribute `name` and newer ones as input `i`, where
    /// they are the same in every run.
    pub(crate) fn ints(&self, id: NodeId, name: &str, i: usize) -> Option<Vec<i64>> {
        let node = self.graph.node(id);
        if let Some(ints) = node.ints(name) {
            return Some(ints.to_vec());
        }
        self.constant(node.input(i)?)?.to_i64().ok()
    }

    /// The node that makes input `i` of `id`, where it is one of `ops` of the default domain,
    /// whoever else reads it.
    pub(crate) fn source(&self, id: NodeId, i: usize, ops: &[&str]) -> Option<NodeId> {
        let v = self.graph.node(id).input(i)?;
        let (source, 0) = self.graph.value(v).producer()? else {
            return None;
        };
        let node = self.graph.node(source);
        ops.iter().any(|op| node.is(op)).then_some(source)
    }

    /// Puts `new` in place of the node `old`, whose outputs it makes and whose names it has where
    /// it has none of its own.
    pub(crate) fn swap_node(&mut self, old: NodeId, mut new: Node, inputs: &[Option<ValueId>]) {
        let node = self.graph.node(old);
        if new.name.is_empty() {
            new.name.clone_from(&node.name);
        }
        if new.metadata.is_empty() {
            new.metadata.clone_from(&node.metadata);
        }
        let outputs = node.outputs().to_vec();
        self.graph.remove_node(old);
        self.graph.add_node(new, inputs, &outputs);
    }

    /// Writes down what is known of the type of `v`, for inference to keep where an edit hides it.
    pub(crate) fn keep_type(&mut self, v: ValueId, types: &Inferred) {
        if let Some(Some(ty)) = types.types.get(v.index()) {
            self.graph.value_mut(v).ty = Some(ty.clone());
        }
    }

    /// The node that makes input `i` of `id`, where it is an `op` of the default domain that
    /// nobody else looks at: no other node, no graph output, no subgraph.
    pub(crate) fn only_source(&self, id: NodeId, i: usize, ops: &[&str]) -> Option<NodeId> {
        let v = self.graph.node(id).input(i)?;
        let (source, 0) = self.graph.value(v).producer()? else {
            return None;
        };
        let node = self.graph.node(source);
        let matches = ops.iter().any(|op| node.is(op));
        let unseen_rest = node.outputs().iter().skip(1).flatten().next().is_none();
        (matches && unseen_rest && self.has_one_reader(v)).then_some(source)
    }

    /// True where one input of one node is all that reads `v`.
    pub(crate) fn has_one_reader(&self, v: ValueId) -> bool {
        self.graph.value(v).consumers().len() == 1
            && !self.outputs.contains(&v)
            && !self.captured.contains(&v)
    }

    /// True where `v` is a graph output, or read by a subgraph.
    pub(crate) fn is_seen_outside(&self, v: ValueId) -> bool {
        self.outputs.contains(&v) || self.captured.contains(&v)
    }

    /// True where nothing but inputs of these nodes reads `v`.
    pub(crate) fn is_read_only_by(&self, v: ValueId, nodes: &[NodeId]) -> bool {
        let mut readers = self.graph.value(v).consumers().iter();
        readers.all(|(id, _)| nodes.contains(id)) && !self.is_seen_outside(v)
    }

    /// True where nothing at all reads `v`.
    pub(crate) fn is_unread(&self, v: ValueId) -> bool {
        self.graph.value(v).consumers().is_empty()
            && !self.outputs.contains(&v)
            && !self.captured.contains(&v)
    }

    /// Lets all that reads `old`, subgraphs too, read `new`. Graph outputs stay.
    pub(crate) fn replace(&mut self, old: ValueId, new: ValueId) {
        if self.captured.remove(&old) {
            self.graph.replace_uses(old, new);
            self.captured.insert(new);
        } else {
            self.graph.replace_reads(old, new);
        }
    }

    /// Removes a node whose only output that matters, `made`, always equals `same`; false, and
    /// nothing changed, where a graph output would lose its name.
    pub(crate) fn bypass(&mut self, id: NodeId, made: ValueId, same: ValueId) -> bool {
        if !self.is_output(made) {
            self.graph.remove_node(id);
            self.replace(made, same);
            return true;
        }
        let Some((source, o)) = self.graph.value(same).producer() else {
            return false;
        };
        if self.is_output(same) {
            return false;
        }
        self.graph.remove_node(id);
        self.graph.set_output(source, o, Some(made));
        self.replace(same, made);
        true
    }

    /// Moves a node of one input behind the only `reader` of what it makes, which reads it at `input`
    /// and has one output.
    pub(crate) fn move_behind(
        &mut self,
        id: NodeId,
        (reader, input): (NodeId, usize),
        names: &mut Names,
    ) -> Option<()> {
        let source = self.graph.node(id).input(0)?;
        let made = self.graph.node(reader).output(0)?;
        self.graph.set_input(reader, input, Some(source));
        let name = names.fresh(&self.graph.value(made).name.clone());
        let inner = self.graph.add_value(&name, None);
        self.graph.set_output(reader, 0, Some(inner));
        self.graph.set_output(id, 0, Some(made));
        self.graph.set_input(id, 0, Some(inner));
        Some(())
    }

    /// Lets input `i` of a node be `data`: in the constant that it has, where nothing else reads
    /// that, or in a new one called `name`.
    pub(crate) fn set_constant(
        &mut self,
        id: NodeId,
        i: usize,
        data: Tensor,
        name: &str,
        names: &mut Names,
    ) {
        let current = self.graph.node(id).input(i);
        if let Some(v) = current
            && self.has_one_reader(v)
            && !self.inputs.contains(&v)
            && self.graph.value(v).constant.is_some()
        {
            let value = self.graph.value_mut(v);
            value.ty = Some(data.ty().into());
            value.constant = Some(data);
            return;
        }
        let v = self.graph.add_constant(&names.fresh(name), data);
        self.graph.set_input(id, i, Some(v));
    }
}

/// The tensor type of `v`, also for values that are younger than `types`.
pub(crate) fn tensor_type(types: &Inferred, v: ValueId) -> Option<&TensorType> {
    types.types.get(v.index())?.as_ref()?.tensor()
}

/// The shape of `v`, where its rank is known.
pub(crate) fn shape(types: &Inferred, v: ValueId) -> Option<&Shape> {
    tensor_type(types, v)?.shape.as_ref()
}

/// True where both are surely the same shape in every run.
pub(crate) fn same_shape(a: &Shape, b: &Shape) -> bool {
    a.rank() == b.rank() && a.iter().zip(b.iter()).all(|(x, y)| x.same(y))
}

/// The number of axes of `v`.
pub(crate) fn rank(types: &Inferred, v: ValueId) -> Option<usize> {
    Some(shape(types, v)?.rank())
}

/// The ids of the nodes of an operator of the default domain, in the order of the file.
pub(crate) fn nodes_of(graph: &Graph, ops: &[&str]) -> Vec<NodeId> {
    graph
        .nodes()
        .filter(|(_, n)| ops.iter().any(|op| n.is(op)))
        .map(|(id, _)| id)
        .collect()
}
