//! Damage to models that leaves them graphs: other attributes, inputs, constants, types.

use edgesmith_ir::ops::{AttrKind, OPS, find};
use edgesmith_ir::{Attribute, DType, Dim, Graph, Model, NodeId, Shape, Tensor, Type, ValueId};

use super::evil;
use crate::rng::Rng;

/// Changes one thing.
type Change = fn(&mut Model, &mut Rng) -> Option<()>;

/// Every change.
const CHANGES: &[Change] = &[
    attribute,
    attribute,
    attribute,
    other_attribute,
    swap_inputs,
    other_input,
    no_input,
    constant,
    constant,
    constant_shape,
    constant_type,
    input_type,
    operator,
    outputs,
    opset,
    inner,
];

/// Damages a model in one to four places.
pub fn mutate(model: &mut Model, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let change = *rng.pick(CHANGES);
        change(model, rng);
    }
}

fn node(graph: &Graph, rng: &mut Rng) -> Option<NodeId> {
    let ids: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    (!ids.is_empty()).then(|| *rng.pick(&ids))
}

/// A number near zero, or one that programs stumble over.
fn number(rng: &mut Rng) -> i64 {
    if rng.one_in(3) {
        evil(rng.below(64)).cast_signed()
    } else {
        rng.below(14) as i64 - 5
    }
}

fn float(rng: &mut Rng) -> f32 {
    let odd = [0.0, -0.0, 1.0, -1.0, 1e30, f32::NAN, f32::INFINITY, 1e-40];
    *rng.pick(&odd)
}

/// Changes the value of an attribute that is there.
fn attribute(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let attributes = &mut model.graph.node_mut(id).attributes;
    let at = rng.below(attributes.len());
    match &mut attributes.get_mut(at)?.1 {
        Attribute::Int(i) => *i = number(rng),
        Attribute::Float(f) => *f = float(rng),
        Attribute::Ints(list) => match (rng.below(4), list.is_empty()) {
            (0, _) => list.push(number(rng)),
            (1, false) => drop(list.pop()),
            (_, false) => {
                let at = rng.below(list.len());
                list[at] = number(rng);
            }
            _ => return None,
        },
        Attribute::Floats(list) => match rng.below(3) {
            0 => list.push(float(rng)),
            _ => drop(list.pop()),
        },
        Attribute::String(text) => {
            let words = [
                "",
                "reflect",
                "nearest",
                "ij,jk->ik",
                "i->ii",
                "SAME_UPPER",
                "mean",
            ];
            *text = (*rng.pick(&words)).into();
        }
        Attribute::Strings(list) => drop(list.pop()),
        Attribute::Tensor(t) => *t = damaged(t, rng)?,
        _ => drop(attributes.remove(at)),
    }
    Some(())
}

/// Sets an attribute of the operator's list.
fn other_attribute(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let node = model.graph.node_mut(id);
    let def = find(&node.domain, &node.op)?;
    let attr = def.attrs.get(rng.below(def.attrs.len()))?;
    let mut list = |n: usize| (0..n).map(|_| number(rng)).collect::<Vec<i64>>();
    let value = match attr.kind {
        AttrKind::Int(_) => Attribute::Int(list(1)[0]),
        AttrKind::Ints => {
            let n = list(1)[0].rem_euclid(5) as usize;
            Attribute::Ints(list(n))
        }
        AttrKind::Float(_) => Attribute::Float(float(rng)),
        AttrKind::Floats => Attribute::Floats(vec![float(rng); 2]),
        _ => return None,
    };
    node.set(attr.name, value);
    Some(())
}

fn swap_inputs(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let inputs = model.graph.node(id).inputs().to_vec();
    let (a, b) = (rng.below(inputs.len()), rng.below(inputs.len()));
    if a == b {
        return None;
    }
    model.graph.set_input(id, a, inputs[b]);
    model.graph.set_input(id, b, inputs[a]);
    Some(())
}

/// Reads any value of the graph, one that is made later too.
fn other_input(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let values: Vec<ValueId> = model.graph.values().map(|(v, _)| v).collect();
    let at = rng.below(model.graph.node(id).inputs().len() + 1);
    model.graph.set_input(id, at, Some(*rng.pick(&values)));
    Some(())
}

fn no_input(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let inputs = model.graph.node(id).inputs().len();
    if inputs > 0 {
        model.graph.set_input(id, rng.below(inputs), None);
    }
    Some(())
}

fn a_constant(graph: &Graph, rng: &mut Rng) -> Option<ValueId> {
    let constants = graph.values().filter(|(_, v)| v.constant.is_some());
    let ids: Vec<ValueId> = constants.map(|(v, _)| v).collect();
    (!ids.is_empty()).then(|| *rng.pick(&ids))
}

fn replace(graph: &mut Graph, v: ValueId, t: Tensor) {
    let value = graph.value_mut(v);
    value.ty = Some(t.ty().into());
    value.constant = Some(t);
}

fn constant(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let v = a_constant(&model.graph, rng)?;
    let t = damaged(model.graph.value(v).constant.as_ref()?, rng)?;
    replace(&mut model.graph, v, t);
    Some(())
}

/// The tensor with another element.
fn damaged(t: &Tensor, rng: &mut Rng) -> Option<Tensor> {
    let mut bytes = t.bytes().to_vec();
    let width = (t.dtype().bits() / 8).max(1);
    let at = rng.below(bytes.len() / width) * width;
    let new = match t.dtype() {
        DType::F32 => u64::from(float(rng).to_bits()),
        DType::F64 => f64::from(float(rng)).to_bits(),
        _ => number(rng).cast_unsigned(),
    };
    let slot = bytes.get_mut(at..at + width)?;
    let new = new.to_le_bytes();
    slot.iter_mut().zip(new).for_each(|(b, n)| *b = n);
    Tensor::from_bytes(t.dtype(), t.dims(), bytes.into()).ok()
}

fn constant_shape(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let v = a_constant(&model.graph, rng)?;
    let t = model.graph.value(v).constant.as_ref()?;
    let mut dims = t.dims().to_vec();
    match rng.below(4) {
        0 => dims.insert(rng.below(dims.len() + 1), 1),
        1 => dims = vec![t.count()],
        2 => dims.reverse(),
        _ => {
            let at = rng.below(dims.len());
            *dims.get_mut(at)? = rng.below(9);
        }
    }
    let n = edgesmith_ir::checked_count(&dims).ok()?;
    let mut bytes = t.bytes().to_vec();
    bytes.resize(t.dtype().bytes_of(n)?, 0);
    let t = Tensor::from_bytes(t.dtype(), &dims, bytes.into()).ok()?;
    replace(&mut model.graph, v, t);
    Some(())
}

fn constant_type(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let v = a_constant(&model.graph, rng)?;
    let t = model.graph.value(v).constant.as_ref()?;
    let dtype = *rng.pick(DType::ALL);
    let mut bytes = t.bytes().to_vec();
    bytes.resize(dtype.bytes_of(t.count())?, 0);
    let t = Tensor::from_bytes(dtype, t.dims(), bytes.into()).ok()?;
    replace(&mut model.graph, v, t);
    Some(())
}

fn input_type(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let at = rng.below(model.graph.inputs.len());
    let v = *model.graph.inputs.get(at)?;
    let value = model.graph.value_mut(v);
    let mut ty = value.tensor_type()?.clone();
    let shape = ty.shape.get_or_insert_with(Shape::default);
    match rng.below(5) {
        0 => ty.dtype = *rng.pick(DType::ALL),
        1 => shape.0.push(Dim::Known(rng.below(4))),
        2 => drop(shape.0.pop()),
        3 => ty.shape = None,
        _ => {
            let axis = rng.below(shape.rank());
            *shape.0.get_mut(axis)? = match rng.below(4) {
                0 => Dim::Unknown,
                1 => Dim::Known(usize::try_from(evil(rng.below(64))).ok()?),
                _ => Dim::Known(rng.below(6)),
            };
        }
    }
    value.ty = Some(Type::Tensor(ty));
    Some(())
}

fn operator(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let id = node(&model.graph, rng)?;
    let def = *rng.pick(OPS);
    let node = model.graph.node_mut(id);
    (node.op, node.domain) = (def.name.into(), def.domain.into());
    model.opsets.entry(def.domain.into()).or_insert(1);
    Some(())
}

/// Another value is an output, or none.
fn outputs(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let values: Vec<ValueId> = model.graph.values().map(|(v, _)| v).collect();
    match rng.below(3) {
        0 => drop(model.graph.outputs.pop()),
        _ => model.graph.outputs.push(*rng.pick(&values)),
    }
    Some(())
}

fn opset(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let version = 1 + rng.below(26) as i64;
    model.opsets.insert(String::new(), version);
    Some(())
}

/// A change within the body of a node.
fn inner(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let holds = |(id, n): (NodeId, &edgesmith_ir::Node)| n.subgraphs().next().map(|_| id);
    let ids: Vec<NodeId> = model.graph.nodes().filter_map(holds).collect();
    let id = *ids.get(rng.below(ids.len()))?;
    let at = rng.below(model.graph.node(id).subgraphs().count());
    let taken = model.graph.node_mut(id).subgraphs_mut().nth(at)?;
    let mut body = Model::new(std::mem::take(taken), model.opset());
    let change = *rng.pick(&CHANGES[..CHANGES.len() - 2]);
    change(&mut body, rng);
    *model.graph.node_mut(id).subgraphs_mut().nth(at)? = body.graph;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use edgesmith_ir::text::print;

    #[test]
    fn every_change_finds_a_place_in_random_models() {
        for (i, change) in CHANGES.iter().enumerate() {
            let changed = (0..60).any(|seed| {
                let mut model = random::graph(seed);
                let before = print(&model).unwrap();
                change(&mut model, &mut Rng::new(seed)).is_some()
                    && print(&model).ok() != Some(before)
            });
            assert!(changed, "change {i}");
        }
    }

    #[test]
    fn a_seed_damages_alike() {
        let damaged = || {
            let mut model = random::graph(3);
            mutate(&mut model, &mut Rng::new(9));
            model.graph
        };
        assert_eq!(damaged(), damaged());
    }
}
