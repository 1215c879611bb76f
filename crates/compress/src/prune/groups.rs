//! Groups: what of a model can be removed only together, of which kind it is, and what stays and why.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::channels::{
    Axis, Class, Dimension, Held, Options, Shuffle, Split, Ties, as_places, is_of_squares,
};
use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::pattern::matches;
use edgesmith_ir::{Error, Graph, Model, NodeId, Result, ValueId};
use edgesmith_train::student;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// Channels of convolutions, hidden units of products and of recurrent layers.
    Channel,
    /// Heads of attention; where keys are shared, a key with all the heads that share it.
    Head,
    /// Numbers of every head, of queries and keys or of values; rotated ones in pairs.
    HeadWidth,
    /// The width of a transformer itself, which its norms go over.
    Width,
}

/// Every structure, with its name.
pub static STRUCTURES: &[(&str, Structure)] = &[
    ("channel", Structure::Channel),
    ("head", Structure::Head),
    ("head-width", Structure::HeadWidth),
    ("width", Structure::Width),
];

impl Structure {
    /// That of a name.
    pub fn named(name: &str) -> Option<Self> {
        let found = STRUCTURES.iter().find(|(n, _)| *n == name);
        found.map(|(_, s)| *s)
    }

    /// How ties are found for it.
    fn options(self) -> Options {
        Options {
            split: match self {
                Self::HeadWidth => Split::Inner,
                Self::Channel | Self::Head | Self::Width => Split::Outer,
            },
            means: self == Self::Width,
        }
    }
}

/// Channels, units or heads of which any can go, each with all that is tied to it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The nodes that make it, by name, the first few.
    pub name: String,
    /// What goes together.
    pub dimension: Dimension,
    /// The weights that make it.
    pub makers: Vec<Axis>,
    /// What reads it and sums it up: the node, which of its inputs, and the axis of that.
    pub readers: Vec<(NodeId, usize, Axis)>,
    /// Layers add to it, as those of a residual stream do.
    pub is_stream: bool,
    /// A norm goes over it.
    pub is_normed: bool,
    /// What groups of the same form have in common.
    pub form: String,
    /// Without some of it, a norm computes something else.
    pub is_inexact: bool,
}

impl Group {
    /// How many can go or stay.
    pub fn count(&self) -> usize {
        self.dimension.classes.len()
    }

    /// The weights and other constants that lose a part.
    pub fn axes(&self) -> impl Iterator<Item = Axis> + '_ {
        let first = self.dimension.classes.first();
        first.into_iter().flat_map(Class::keys).copied()
    }
}

/// A weight that keeps all of its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The nodes that it belongs to.
    pub nodes: Vec<String>,
    /// Why.
    pub why: String,
}

/// A model made ready for pruning, with its groups of one structure.
pub struct Groups {
    /// The model: without what hides its form.
    pub model: Model,
    /// Its types and shapes.
    pub inferred: Inferred,
    /// What is tied.
    pub ties: Ties,
    /// What can be removed.
    pub groups: Vec<Group>,
    /// What cannot.
    pub frozen: Vec<Frozen>,
    /// Shuffles of channels, for each of which the model has a Gather.
    pub shuffles: Vec<Shuffle>,
}

impl Groups {
    /// The groups of a model.
    ///
    /// # Errors
    /// When the model cannot be made ready, or has too many numbers to tie.
    pub fn of(model: &Model, structure: Structure, exclude: &[String]) -> Result<Self> {
        let mut model = student::prepared(model)?;
        part_vectors(&mut model.graph);
        let shuffles = as_places(&mut model)?;
        let inferred = infer::infer(&model, &[])?;
        let mut ties = Ties::of(&model, &inferred, structure.options())?;
        let (mut groups, mut frozen) = (Vec::new(), Vec::new());
        for dimension in ties.dimensions() {
            let group = group(&model, &ties, dimension);
            if !is_of(structure, &ties, &group) {
                continue;
            }
            match excluded(&model.graph, &group, exclude) {
                Some(node) => frozen.push(Frozen {
                    nodes: makers(&model.graph, &group.makers),
                    why: format!("node \"{node}\" is to stay as it is"),
                }),
                None => groups.push(group),
            }
        }
        let told = ties.held();
        frozen.extend(told.iter().map(|h| held(&model.graph, h)));
        Ok(Self {
            model,
            inferred,
            ties,
            groups,
            frozen,
            shuffles,
        })
    }

    /// The model, where there is something to prune.
    ///
    /// # Errors
    /// When there is no group: why, and what could be done.
    pub fn check(&self, structure: &str) -> Result<()> {
        if !self.groups.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> = self
            .frozen
            .iter()
            .map(|f| format!("{}: {}", f.nodes.join(", "), f.why))
            .collect();
        let hint = match reasons.is_empty() {
            true => "the model has no weights that make what could be removed".to_owned(),
            false => reasons.join("; "),
        };
        let what = format!("the model has no {structure} that could be removed");
        Err(Error::unsupported(what).hint(hint))
    }
}

/// Lists that several nodes read are copied for each: exporters share lists of equal numbers, which
/// would tie layers that have nothing to do with each other.
fn part_vectors(graph: &mut Graph) {
    let shared: Vec<ValueId> = graph
        .values()
        .filter(|(v, value)| {
            let data = value.constant.as_ref();
            let is_list = data.is_some_and(|t| {
                let longest = t.dims().iter().max().copied().unwrap_or(1);
                longest > 1 && t.count() == longest && t.dtype().is_float()
            });
            is_list && value.consumers().len() > 1 && !graph.is_input(*v) && !graph.is_output(*v)
        })
        .map(|(v, _)| v)
        .collect();
    for v in shared {
        let Some(data) = graph.value(v).constant.clone() else {
            continue;
        };
        let name = graph.value(v).name.clone();
        for (node, input) in graph.value(v).consumers().to_vec().into_iter().skip(1) {
            let name = graph.fresh_name(&name);
            let copy = graph.add_constant(&name, data.clone());
            graph.set_input(node, input, Some(copy));
        }
    }
}

fn group(model: &Model, ties: &Ties, dimension: Dimension) -> Group {
    let graph = &model.graph;
    let axes: BTreeSet<Axis> = dimension
        .classes
        .first()
        .into_iter()
        .flat_map(|c| c.keys().copied())
        .collect();
    let mut makers: Vec<Axis> = axes.iter().copied().filter(|a| ties.makes(*a)).collect();
    makers.sort_by_key(|a| graph.value(a.value).consumers().first().copied());
    let mut readers = Vec::new();
    for read in ties.reads() {
        let Some(v) = graph.node(read.node).input(read.input) else {
            continue;
        };
        let axis = Axis::of(v, read.axis);
        if axes.contains(&axis) {
            readers.push((read.node, read.input, axis));
        }
    }
    let reads = |op: &str| readers.iter().any(|(id, ..)| graph.node(*id).is(op));
    let means = || {
        readers
            .iter()
            .filter(|(id, ..)| graph.node(*id).is("ReduceMean"))
    };
    let is_mean = means().next().is_some();
    let is_inexact =
        reads("LayerNormalization") || means().any(|(id, ..)| !is_of_squares(model, *id));
    let ops = |list: &mut dyn Iterator<Item = NodeId>| -> String {
        let mut ops: Vec<String> = list
            .map(|id| {
                let node = graph.node(id);
                let kernel = node.input(1).and_then(|w| graph.constant(w));
                let taps = kernel.map_or(&[][..], |w| w.dims().get(2..).unwrap_or_default());
                format!("{} {taps:?} {:?}", node.op, node.ints("strides"))
            })
            .collect();
        ops.sort_unstable();
        ops.join(",")
    };
    let made_by = |a: &Axis| graph.value(a.value).consumers().first().map(|(id, _)| *id);
    let form = format!(
        "{} > {}",
        ops(&mut makers.iter().filter_map(made_by)),
        ops(&mut readers.iter().map(|(id, ..)| *id))
    );
    Group {
        name: names(&self::makers(graph, &makers)),
        is_stream: axes.iter().any(|a| is_sum(graph, a.value, &axes)),
        is_normed: is_inexact
            || is_mean
            || reads("RMSNormalization")
            || reads("SimplifiedLayerNormalization"),
        is_inexact,
        makers,
        readers,
        form,
        dimension,
    }
}

/// True where a group is of a structure.
fn is_of(structure: Structure, ties: &Ties, group: &Group) -> bool {
    let has = |is: &dyn Fn(Axis) -> bool| group.axes().any(is);
    let is_head = has(&|a| ties.is_head(a));
    let is_width = has(&|a| ties.is_width(a));
    // An axis of several numbers for each of the group is what a Reshape parts into heads.
    match structure {
        Structure::Head => is_head && group.count() > 1,
        Structure::Channel => !is_head && !group.is_normed && group.count() > 1,
        Structure::HeadWidth => (is_width || is_value_width(group)) && !is_head,
        Structure::Width => group.is_normed,
    }
}

/// True where a value is the sum of two activations that both have these axes.
fn is_sum(graph: &Graph, v: ValueId, axes: &BTreeSet<Axis>) -> bool {
    let Some(id) = graph.producer_is(v, "Add").or(graph.producer_is(v, "Sum")) else {
        return false;
    };
    let has = |v: &ValueId| {
        let own = Axis::of(*v, 0)..=Axis::of(*v, usize::MAX);
        graph.constant(*v).is_none() && axes.range(own).next().is_some()
    };
    let inputs = graph.node(id).inputs().iter().flatten();
    inputs.filter(|v| has(v)).count() > 1
}

/// True where each of the group stands for several places of a weight.
fn is_value_width(group: &Group) -> bool {
    let several = |a: &Axis| {
        let first = group.dimension.classes.first();
        first.and_then(|c| c.get(a)).is_some_and(|i| i.len() > 1)
    };
    group.makers.iter().any(several)
}

/// The node of a group that is to stay, where there is one.
fn excluded(graph: &Graph, group: &Group, exclude: &[String]) -> Option<String> {
    let names = makers(graph, &group.makers).into_iter();
    let readers = group
        .readers
        .iter()
        .map(|(id, ..)| graph.node(*id).name.clone());
    let mut all = names.chain(readers);
    all.find(|n| exclude.iter().any(|p| matches(p, n)))
}

/// The names of the nodes that read these weights first.
fn makers(graph: &Graph, axes: &[Axis]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for axis in axes {
        let value = graph.value(axis.value);
        let node = value
            .consumers()
            .first()
            .map(|(id, _)| graph.node(*id).name.clone());
        let name = node.filter(|n| !n.is_empty());
        let name = name.unwrap_or_else(|| value.name.clone());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The first few names, and how many more.
fn names(all: &[String]) -> String {
    const MOST: usize = 3;
    let first = all
        .iter()
        .take(MOST)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().checked_sub(MOST) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

fn held(graph: &Graph, held: &Held) -> Frozen {
    let axes: Vec<Axis> = held.weights.iter().map(|v| Axis::of(*v, 0)).collect();
    let more = match held.more {
        0 => String::new(),
        n => format!(" ({n} more such nodes)"),
    };
    Frozen {
        nodes: makers(graph, &axes),
        why: format!("{}{more}", held.why),
    }
}

/// How often a form is there, by form.
pub(crate) fn forms(groups: &[Group]) -> BTreeMap<&str, Vec<usize>> {
    let mut forms: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, group) in groups.iter().enumerate() {
        forms.entry(&group.form).or_default().push(i);
    }
    forms
}
