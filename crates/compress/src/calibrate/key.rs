//! What statistics depend on, as a short text: the model and the settings.

use edgesmith_ir::{Attribute, Graph, Model, Tensor};
use sha2::{Digest, Sha256};

use super::Settings;

/// The digest of all that the statistics of `model` depend on beside the samples: its operators,
/// edges and constants, and what is looked at.
pub fn key(model: &Model, settings: &Settings) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", model.opsets));
    add_graph(&mut hash, &model.graph);
    for function in &model.functions {
        let (domain, name, overload) = (&function.domain, &function.name, &function.overload);
        let (attributes, opsets) = (&function.attributes, &function.opsets);
        hash.update(format!(
            "{domain:?} {name:?} {overload:?} {attributes:?} {opsets:?}"
        ));
        for (name, attribute) in &function.defaults {
            add_attribute(&mut hash, name, attribute);
        }
        add_graph(&mut hash, &function.graph);
    }
    let Settings {
        batch,
        samples,
        seed,
        threads: _,
        only,
        grams,
    } = settings;
    hash.update(format!("{batch} {samples:?} {seed:?} {only:?} {grams:?}"));
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a model alone: its operators, edges and constants.
pub fn model_digest(model: &Model) -> String {
    key(model, &Settings::default())
}

fn add_graph(hash: &mut Sha256, graph: &Graph) {
    let name = |v: &edgesmith_ir::ValueId| &graph.value(*v).name;
    for (_, value) in graph.values() {
        hash.update(format!("{:?} {:?}", value.name, value.ty));
        if let Some(t) = &value.constant {
            add_tensor(hash, t);
        }
    }
    for (_, node) in graph.nodes() {
        let inputs: Vec<_> = node.inputs().iter().map(|v| v.as_ref().map(name)).collect();
        let outputs: Vec<_> = node
            .outputs()
            .iter()
            .map(|v| v.as_ref().map(name))
            .collect();
        hash.update(format!(
            "{:?} {:?} {inputs:?} {outputs:?}",
            node.domain, node.op
        ));
        for (name, attribute) in &node.attributes {
            add_attribute(hash, name, attribute);
        }
    }
    for list in [&graph.inputs, &graph.outputs] {
        hash.update(format!("{:?}", list.iter().map(name).collect::<Vec<_>>()));
    }
    hash.update(format!("{:?}", graph.captures));
}

fn add_attribute(hash: &mut Sha256, name: &str, attribute: &Attribute) {
    hash.update(format!("{name:?}"));
    match attribute {
        Attribute::Tensor(t) => add_tensor(hash, t),
        Attribute::Tensors(all) => all.iter().for_each(|t| add_tensor(hash, t)),
        Attribute::Graph(g) => add_graph(hash, g),
        Attribute::Graphs(all) => all.iter().for_each(|g| add_graph(hash, g)),
        other => hash.update(format!("{other:?}")),
    }
}

fn add_tensor(hash: &mut Sha256, t: &Tensor) {
    hash.update(format!("{} {:?}", t.dtype(), t.dims()));
    match t.strings() {
        Ok(strings) => hash.update(format!("{strings:?}")),
        Err(_) => hash.update(t.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;

    const NET: &str = "opset 17\ngraph g(x: f32[n,2]) -> (y) {\n  w: f32[2,2] = {1,2,3,4}\n  \
                       h = MatMul(x, w)\n  y = Gemm(h, w) {alpha=0.5}\n}\n";

    #[test]
    fn every_change_of_the_model_changes_it() {
        let of = |source: &str| key(&text::parse(source).unwrap(), &Settings::default());
        let plain = of(NET);
        assert_eq!(plain, of(NET));
        for (from, to) in [
            ("3,4", "3,5"),
            ("0.5", "0.25"),
            ("MatMul(x, w)", "MatMul(w, w)"),
            ("17", "18"),
        ] {
            assert_ne!(plain, of(&NET.replace(from, to)), "{from}");
        }
        let model = text::parse(NET).unwrap();
        let asked = Settings {
            samples: Some(3),
            ..Settings::default()
        };
        assert_ne!(plain, key(&model, &asked));
        let threads = Settings {
            threads: 5,
            ..Settings::default()
        };
        assert_eq!(plain, key(&model, &threads));
    }
}
