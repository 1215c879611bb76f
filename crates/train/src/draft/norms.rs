//! BatchNormalization while it is trained: by the statistics of each batch, and by the running ones from a
//! part of the run on where that is asked for.

use edgesmith_ir::{Attribute, Error, Model, Node, NodeId, Result};

use super::{Draft, Options};
use crate::training::State;

impl Draft {
    /// Lets BatchNormalization go by the statistics of the batch, and renew the running ones.
    pub(super) fn wake_norms(&mut self, options: &Options) -> Result<()> {
        let from = options.freeze_norms_from;
        if from.is_some_and(|from| !(0.0..=1.0).contains(&from)) {
            return Err(
                Error::usage("statistics are frozen from a part of the run on")
                    .hint("a number from 0 to 1"),
            );
        }
        if from == Some(0.0) {
            return Ok(());
        }
        let norms = self.of_op("BatchNormalization");
        if norms.is_empty() {
            self.tell_of_folded_norms();
        }
        if let Some(from) = self.freeze_norms_from.filter(|_| !norms.is_empty()) {
            self.notes.push(format!(
                "statistics of {} normalisations stay as they are from {:.0} % of the run on",
                norms.len(),
                100.0 * from
            ));
        }
        for id in norms {
            let node = self.model.graph.node(id).clone();
            let running = [3, 4].map(|i| node.input(i));
            let [Some(mean), Some(variance)] = running else {
                continue;
            };
            let data = [mean, variance].map(|v| self.base.graph.value(v).constant.clone());
            let [Some(m), Some(s)] = data else { continue };
            let graph = &mut self.model.graph;
            graph.node_mut(id).set("training_mode", Attribute::Int(1));
            for (i, (v, data)) in [(mean, m), (variance, s)].into_iter().enumerate() {
                let name = self.model.graph.value(v).name.clone();
                let fresh = self.model.graph.fresh_name(&format!("{name}/renewed"));
                let renewed = self.model.graph.add_value(&fresh, Some(data.ty().into()));
                self.model.graph.set_output(id, i + 1, Some(renewed));
                self.make_input(v);
                let state = State {
                    name,
                    value: v,
                    data,
                };
                self.states.push((state, renewed));
            }
        }
        Ok(())
    }

    /// Says of a deep network of floats, whose convolutions all have biases as folded ones do, that
    /// nothing normalises it.
    fn tell_of_folded_norms(&mut self) {
        const DEEP: usize = 6;
        let graph = &self.base.graph;
        let convolutions = self.of_op("Conv");
        let is_float = |id: &NodeId| {
            let constant = |i: usize| graph.node(*id).input(i).and_then(|v| graph.constant(v));
            constant(1).is_some() && constant(2).is_some()
        };
        if convolutions.len() >= DEEP && convolutions.iter().all(is_float) {
            let what = "no BatchNormalization is in the model: if there were any, they are folded into their convolutions, and stay so";
            self.notes.push(what.into());
        }
    }

    /// The graph whose BatchNormalizations go by their running statistics, and do not renew them.
    pub(super) fn with_steady_norms(&self) -> Model {
        let mut model = self.model.clone();
        for id in self.of_op("BatchNormalization") {
            let node = model.graph.node(id).clone();
            if node.int("training_mode").unwrap_or(0) == 0 {
                continue;
            }
            model.graph.node_mut(id).remove("training_mode");
            for i in [2, 1] {
                let (Some(renewed), Some(kept)) = (node.output(i), node.input(2 + i)) else {
                    continue;
                };
                model.graph.set_output(id, i, None);
                let same = Node::new("Identity", "statistics");
                model.graph.add_node(same, &[Some(kept)], &[Some(renewed)]);
            }
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::eval::evaluate;
    use edgesmith_ir::text::parse;
    use edgesmith_ir::{Model, Tensor};

    use super::*;
    use crate::Training;
    use crate::losses::{self, Request};

    fn net() -> Model {
        parse(
            "opset 17 graph g(x: f32[batch,2]) -> (y: f32[batch,2]) {
            w: f32[2,2] = {1,-2,3,4} s: f32[2] = {1,2} o: f32[2] = {0,1} m: f32[2] = {1,2} v: f32[2] = {4,9}
            h = MatMul(x, w) y = BatchNormalization(h, s, o, m, v) }",
        )
        .unwrap()
    }

    fn training(from: Option<f64>) -> Training {
        let options = Options {
            freeze_norms_from: from,
            ..Options::default()
        };
        let mut draft = Draft::new(&net(), &options).unwrap();
        let loss = losses::find("mse").unwrap();
        draft.add_term(loss, 1.0, &Request::default()).unwrap();
        draft.finish().unwrap()
    }

    fn outputs(training: &Training, graph: &Model) -> Vec<Vec<f32>> {
        let x = Tensor::from_vec(&[3, 2], vec![1f32, 2.0, -1.0, 0.5, 3.0, 1.0]).unwrap();
        let mut fed: Vec<(String, Tensor)> = training.initial_inputs().collect();
        let targets = Tensor::from_vec(&[3, 2], vec![0f32; 6]).unwrap();
        fed.push(("x".into(), x));
        fed.push((training.fed[0].name.clone(), targets));
        let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let out = evaluate(graph, &named).unwrap();
        out.iter()
            .map(|t| t.to_f32().unwrap().into_owned())
            .collect()
    }

    #[test]
    fn the_late_graph_goes_by_running_statistics_and_keeps_them() {
        let early = training(Some(0.5));
        let (from, late) = early.late.as_ref().unwrap();
        assert_eq!(*from, 0.5);
        assert!(early.notes.iter().any(|n| n.contains("from 50 %")));
        let steady = training(Some(0.0));
        assert!(steady.late.is_none() && steady.states.is_empty());
        assert!(training(None).late.is_none());
        let found = outputs(&early, late);
        let expected = outputs(&steady, &steady.graph);
        // Loss, term and gradients; then mean and variance as they were.
        let count = found.len() - 2;
        assert_eq!(found[..count], expected[..]);
        assert_eq!(found[count..], [vec![1.0, 2.0], vec![4.0, 9.0]]);
        let first = outputs(&early, &early.graph);
        assert_eq!(first.len(), found.len());
        assert_ne!(first[0], found[0]);
        assert_ne!(first[count..], found[count..]);
    }

    #[test]
    fn a_deep_network_of_convolutions_with_biases_is_told_that_nothing_normalises_it() {
        let of = |layers: usize, norm: bool| {
            let mut text = "opset 17 graph g(x: f32[batch,1,4,4]) -> (y) {
                w: f32[1,1,1,1] = {1} b: f32[1] = {0} s: f32[1] = {1} v: f32[1] = {2} c0 = Relu(x)"
                .to_owned();
            for i in 0..layers {
                text.push_str(&format!(" c{} = Conv(c{i}, w, b)", i + 1));
            }
            let end = match norm {
                true => "BatchNormalization(C, s, b, b, v)",
                false => "Relu(C)",
            };
            text.push_str(&format!(
                " y = {} }}",
                end.replace('C', &format!("c{layers}"))
            ));
            let draft = Draft::new(&parse(&text).unwrap(), &Options::default()).unwrap();
            draft.notes.iter().any(|n| n.contains("folded"))
        };
        assert_eq!(
            [of(2, false), of(8, false), of(8, true)],
            [false, true, false]
        );
    }
}
