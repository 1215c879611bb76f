//! Graphs inside nodes before a run: their plans where lengths are known, and where their nodes are.

use edgesmith_ir::{Attribute, DType, Graph, Node};

use super::{Arg, Evaluate, Placement, Program, Work};

/// The first version of ONNX in which Scan has no axis of samples.
const SCAN_WITHOUT_BATCH: i64 = 9;

impl Program {
    /// Plans the graphs inside the nodes of the plan that ran last, as far as their inputs are
    /// known before a run; the names of the nodes with graphs that wait for one.
    pub fn plan_inside(&self) -> Vec<String> {
        let of = |plan: &super::Plan| {
            let mut left = Vec::new();
            for step in &plan.steps {
                match &step.work {
                    Work::Evaluate(e) => {
                        let node = plan.model.graph.node(e.node);
                        for ((name, program), read) in e.bodies.iter().zip(&e.read) {
                            let types = body_inputs(node, name, e, read, plan.model.opset());
                            let planned = types.is_some_and(|t| program.plan_for(&t).is_ok());
                            left.extend(program.plan_further(planned, &node.name));
                        }
                    }
                    Work::Rest(rest) => {
                        let first = rest.program.model.graph.nodes().next();
                        let name = first.map_or("", |(_, n)| &n.name);
                        left.extend(rest.program.plan_further(false, name));
                    }
                    _ => {}
                }
            }
            left
        };
        self.with_plan(of).unwrap_or_default()
    }

    /// What is inside, where it is planned now or a run has planned it; else the name.
    fn plan_further(&self, planned: bool, name: &str) -> Vec<String> {
        match planned || self.with_plan(|_| ()).is_some() {
            true => self.plan_inside(),
            false => vec![name.to_owned()],
        }
    }

    /// Adds where the nodes of graphs inside nodes are, their names behind those of the nodes and
    /// attributes around them.
    pub fn placements_inside(&self, within: &str, all: &mut Vec<Placement>) {
        self.with_plan(|plan| {
            for step in &plan.steps {
                match &step.work {
                    Work::Evaluate(e) => {
                        let node = plan.model.graph.node(e.node);
                        for (name, graph) in graphs(node) {
                            let within = format!("{within}{}/{name}/", node.name);
                            match e.bodies.iter().find(|(n, _)| n == name) {
                                Some((_, program)) => program.placements_of(&within, all),
                                None => all.extend(evaluated(graph, &within)),
                            }
                        }
                    }
                    Work::Rest(rest) => rest.program.placements_inside(within, all),
                    _ => {}
                }
            }
        });
    }

    /// Adds where its own nodes are, and those inside of them.
    fn placements_of(&self, within: &str, all: &mut Vec<Placement>) {
        let graph = &self.model.graph;
        let mut own = vec![Placement::default(); graph.node_slots()];
        self.show_placements(&mut own);
        for (id, node) in graph.nodes() {
            let mut place = std::mem::take(&mut own[id.index()]);
            if place.op.is_empty() {
                place.note =
                    Some("placed at the first run, when the input shapes are known".into());
            }
            place.op = node.op.clone();
            place.node = format!("{within}{}", node.name);
            place.fused_into = place.fused_into.map(|n| format!("{within}{n}"));
            all.push(place);
        }
        self.placements_inside(within, all);
    }
}

/// The graphs of a node, by attribute.
fn graphs(node: &Node) -> impl Iterator<Item = (&str, &Graph)> {
    node.attributes.iter().filter_map(|(name, a)| match a {
        Attribute::Graph(g) => Some((name.as_ref(), &**g)),
        _ => None,
    })
}

/// The nodes of a graph that is evaluated whole.
fn evaluated(graph: &Graph, within: &str) -> Vec<Placement> {
    let of = |node: &Node| Placement {
        node: format!("{within}{}", node.name),
        op: node.op.clone(),
        provider: "reference".into(),
        kernel: "evaluation".into(),
        note: Some("the graph around it is evaluated: planning it would not pay".into()),
        ..Placement::default()
    };
    graph.nodes().map(|(_, node)| of(node)).collect()
}

/// The inputs of the graph in attribute `name` of a node, where all are known before a run: what
/// the node gives it, then what it reads of the values around it.
fn body_inputs(
    node: &Node,
    name: &str,
    e: &Evaluate,
    read: &[Arg],
    opset: i64,
) -> Option<Vec<(DType, Vec<usize>)>> {
    let given = |from: usize| e.inputs.get(from..).unwrap_or(&[]).iter();
    let mut inputs: Vec<(DType, Vec<usize>)> = match node.op.as_str() {
        "If" => Vec::new(),
        "Loop" if name == "body" => {
            let carried = given(2).map(|a| typed(a.as_ref()?));
            let carried: Vec<_> = carried.collect::<Option<_>>()?;
            let counts = [(DType::I64, Vec::new()), (DType::Bool, Vec::new())];
            counts.into_iter().chain(carried).collect()
        }
        "Scan" if name == "body" && opset >= SCAN_WITHOUT_BATCH => {
            let scanned = usize::try_from(node.int("num_scan_inputs")?).ok()?;
            let states = e.inputs.len().checked_sub(scanned)?;
            let axes = node.ints("scan_input_axes").unwrap_or(&[]);
            let one = |(i, a): (usize, &Option<Arg>)| {
                let (dtype, mut dims) = typed(a.as_ref()?)?;
                if let Some(i) = i.checked_sub(states) {
                    let axis = axes.get(i).copied().unwrap_or(0);
                    let rank = i64::try_from(dims.len()).ok()?;
                    let axis = usize::try_from(axis.rem_euclid(rank.max(1))).ok()?;
                    (axis < dims.len()).then(|| dims.remove(axis))?;
                }
                Some((dtype, dims))
            };
            given(0).enumerate().map(one).collect::<Option<_>>()?
        }
        _ => return None,
    };
    for arg in read {
        inputs.push(typed(arg)?);
    }
    Some(inputs)
}

/// Element type and lengths of what an argument holds, where the plan knows them.
fn typed(arg: &Arg) -> Option<(DType, Vec<usize>)> {
    match arg {
        Arg::Slot { dtype, dims, .. } => Some((*dtype, dims.clone())),
        Arg::Constant(t) => Some((t.dtype(), t.dims().to_vec())),
        Arg::Heap(_) => None,
    }
}
