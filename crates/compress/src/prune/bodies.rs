//! What stands inside of If, Loop and Scan: each body is pruned as a model of its own, whose inputs,
//! outputs and what it reads from around it stay as they are.

use std::collections::{BTreeSet, HashSet};

use edgesmith_ir::channels::SHOWN;
use edgesmith_ir::infer;
use edgesmith_ir::{Attribute, Capture, Graph, Model, NodeId, Progress, Result, Type, ValueId};

use super::channels::{GroupChange, Needs, Seen, Settings, prune as prune_channels};
use super::groups::{Frozen, Groups, Structure};

/// A body of a node, as a model.
struct Body {
    node: NodeId,
    attribute: String,
    /// How it is told: `If "check", then_branch`.
    place: String,
    model: Model,
    /// The values around it that it reads, each the last inputs of the model or a constant of it.
    captured: Vec<(ValueId, ValueId)>,
}

/// The bodies of the main graph, that can stand for themselves: types of what they read are known.
fn bodies(model: &Model) -> Result<Vec<Body>> {
    let inferred = infer::infer(model, &[])?;
    let mut found = Vec::new();
    for (node, of) in model.graph.nodes() {
        for (attribute, value) in of.attributes.iter() {
            let Attribute::Graph(graph) = value else {
                continue;
            };
            let mut own = Model {
                graph: (**graph).clone(),
                ..model.clone()
            };
            let captures = std::mem::take(&mut own.graph.captures);
            let mut captured = Vec::new();
            for Capture { outer, inner } in captures {
                let constant = model.graph.constant(outer).cloned();
                let ty: Option<Type> = match &constant {
                    Some(data) => Some(data.ty().into()),
                    None => inferred.types[outer.index()].clone(),
                };
                own.graph.value_mut(inner).ty = ty;
                if constant.is_none() {
                    own.graph.inputs.push(inner);
                }
                own.graph.value_mut(inner).constant = constant;
                captured.push((outer, inner));
            }
            let is_known = |v: &ValueId| own.graph.value(*v).ty.is_some();
            if own.graph.inputs.iter().all(is_known) {
                found.push(Body {
                    node,
                    attribute: attribute.to_string(),
                    place: format!("{}, {attribute}", of.place()),
                    model: own,
                    captured,
                });
            }
        }
    }
    Ok(found)
}

/// What could go in each body that has weights, with where it stands.
///
/// # Errors
/// When a body cannot be made ready.
pub fn groups(
    model: &Model,
    structure: Structure,
    exclude: &[String],
) -> Result<Vec<(String, Groups)>> {
    let mut all = Vec::new();
    for body in bodies(model)? {
        let mut found = Groups::of(&body.model, structure, exclude)?;
        name_ends(&mut found.frozen, &body.place);
        let inner = groups(&found.model, structure, exclude)?.into_iter();
        let inner: Vec<(String, Groups)> = inner
            .map(|(place, groups)| (format!("{}, {place}", body.place), groups))
            .collect();
        if !(found.groups.is_empty() && found.frozen.is_empty()) {
            all.push((body.place, found));
        }
        all.extend(inner);
    }
    Ok(all)
}

/// Ends of a body are no ends of the model.
fn name_ends(frozen: &mut [Frozen], place: &str) {
    for one in frozen.iter_mut().filter(|f| f.why == SHOWN) {
        one.why = format!("{place}: it goes in or out");
    }
}

/// What was pruned inside of bodies.
#[derive(Debug, Default)]
pub struct Inside {
    /// Each group of all bodies.
    pub changes: Vec<GroupChange>,
    /// What stays whole, and why.
    pub frozen: Vec<Frozen>,
    /// What was found, as sentences.
    pub notes: Vec<String>,
}

/// Prunes each body for itself, and those inside of it.
///
/// # Errors
/// As pruning of a model.
pub fn prune(model: &mut Model, settings: &Settings, progress: &dyn Progress) -> Result<Inside> {
    let mut inside = Inside::default();
    for body in bodies(model)? {
        let mut groups = Groups::of(&body.model, settings.structure, &settings.exclude)?;
        name_ends(&mut groups.frozen, &body.place);
        inside.frozen.extend(groups.frozen.clone());
        let mut made = None;
        if !groups.groups.is_empty() {
            let mut stays = |why: String| {
                let nodes = vec![body.place.clone()];
                inside.frozen.push(Frozen { nodes, why });
            };
            if settings.criterion.needs != Needs::Nothing {
                let name = settings.criterion.name;
                stays(format!(
                    "{name} looks at samples, which are not seen inside of it"
                ));
                continue;
            }
            let pruned = prune_channels(&mut groups, settings, &Seen::default(), progress);
            let pruned = match pruned {
                Err(e) if !progress.cancelled() => {
                    stays(e.to_string());
                    continue;
                }
                other => other?,
            };
            let notes = pruned.notes.into_iter();
            inside
                .notes
                .extend(notes.map(|n| format!("{}: {n}", body.place)));
            inside.changes.extend(pruned.changes);
            made = (!pruned.kept.is_empty()).then_some(pruned.model);
        }
        let mut own = made.clone().unwrap_or_else(|| groups.model.clone());
        let deeper = prune(&mut own, settings, progress)?;
        let is_changed = made.is_some() || deeper.changes.iter().any(|c| c.kept < c.count);
        inside.changes.extend(deeper.changes);
        inside.frozen.extend(deeper.frozen);
        inside.notes.extend(
            deeper
                .notes
                .into_iter()
                .map(|n| format!("{}, {n}", body.place)),
        );
        if is_changed {
            put(model, &body, own.graph);
        }
    }
    Ok(inside)
}

/// Puts a pruned body in the place of the one that was.
fn put(model: &mut Model, body: &Body, mut graph: Graph) {
    let before = &body.model.graph;
    let inputs: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    let deeper = graph.captured();
    for &(outer, inner) in &body.captured {
        let is_input = inputs.contains(&inner);
        // A constant of the graph around it is read from there as long as it is the same.
        let is_same = graph.value(inner).constant == before.value(inner).constant;
        let is_read = !graph.value(inner).consumers().is_empty() || deeper.contains(&inner);
        if is_input || (is_same && is_read) {
            let value = graph.value_mut(inner);
            (value.constant, value.ty) = (None, None);
            graph.captures.push(Capture { outer, inner });
        }
    }
    let captured: BTreeSet<ValueId> = graph.captures.iter().map(|c| c.inner).collect();
    graph.inputs.retain(|v| !captured.contains(v));
    let mut taken = HashSet::new();
    names(&model.graph, &mut taken);
    let known: HashSet<String> = before.values().map(|(_, v)| v.name.clone()).collect();
    let all: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
    for v in all.into_iter().filter(|v| !captured.contains(v)) {
        let name = graph.value(v).name.clone();
        let is_own = known.contains(&name) && !is_captured_name(body, v);
        if !is_own && taken.contains(&name) {
            let mut others = (1u32..).map(|i| format!("{name}_{i}"));
            if let Some(fresh) = others.find(|n| !taken.contains(n)) {
                graph.value_mut(v).name.clone_from(&fresh);
                taken.insert(fresh);
            }
        }
    }
    let node = model.graph.node_mut(body.node);
    node.set(&body.attribute, Attribute::Graph(Box::new(graph)));
    let still = model.graph.captured();
    for (outer, _) in &body.captured {
        let is_read = !model.graph.value(*outer).consumers().is_empty() || still.contains(outer);
        if !is_read && !model.graph.is_input(*outer) && !model.graph.is_output(*outer) {
            model.graph.value_mut(*outer).constant = None;
        }
    }
}

/// True of a value that stood for one around the body.
fn is_captured_name(body: &Body, v: ValueId) -> bool {
    body.captured.iter().any(|(_, inner)| *inner == v)
}

/// The names of all values of a graph and of its bodies.
fn names(graph: &Graph, all: &mut HashSet<String>) {
    all.extend(graph.values().map(|(_, v)| v.name.clone()));
    for (_, node) in graph.nodes() {
        node.subgraphs().for_each(|g| names(g, all));
    }
}
