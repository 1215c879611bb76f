//! Dropout: masks in the place of the nodes of the file, and where a network has them while it is trained.

use std::collections::BTreeSet;

use edgesmith_ir::{DType, Node, NodeId, Result, TensorType, Type, ValueId};

use super::{Draft, scores};
use crate::training::Mask;

/// What makes numbers of others by weights.
const PRODUCTS: &[&str] = &["MatMul", "Gemm", "Conv", "ConvTranspose"];

impl Draft {
    /// Puts a product with a mask in the place of each Dropout.
    pub(super) fn wake_dropout(&mut self) {
        for id in self.of_op("Dropout") {
            let node = self.model.graph.node(id).clone();
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else {
                continue;
            };
            let ratio = match node.input(1) {
                Some(r) => {
                    let ratio = self.base.graph.value(r).constant.as_ref();
                    let ratio = ratio.and_then(|t| t.to_f32().ok()?.first().copied());
                    ratio.map_or(0.5, f64::from)
                }
                None => node.float("ratio").map_or(0.5, f64::from),
            };
            let Some(mask) = self.mask(&node.name, x, ratio) else {
                self.notes.push(format!(
                    "the Dropout \"{}\" is left out: its shape is not known",
                    node.name
                ));
                continue;
            };
            self.model.graph.remove_node(id);
            let product = Node::new("Mul", &node.name);
            let inputs = [Some(x), Some(mask)];
            self.model.graph.add_node(product, &inputs, &[Some(y)]);
        }
    }

    /// Drops this part of numbers where networks drop them that are exported without: of the weights
    /// of attention, of what a linear layer adds to a residual stream, of sums of embeddings that are
    /// normalised (A. Vaswani et al., 2017, section 5.4; J. Devlin et al., 2019, appendix A.2), and of
    /// what the last layer reads (N. Srivastava et al., 2014).
    ///
    /// # Errors
    /// When the model has no output.
    pub(super) fn add_dropout(&mut self, ratio: f64) -> Result<()> {
        let kinds = [
            ("weights of attention", self.attention()),
            ("branches of residual sums", self.branches()),
            ("sums of embeddings", self.embeddings()),
            ("inputs of the last layer", self.last_layer()?),
        ];
        let mut told = Vec::new();
        for (what, values) in kinds {
            let mut count = 0;
            for v in values {
                let name = format!("{}/dropout", self.model.graph.value(v).name);
                let readers = self.model.graph.value(v).consumers().to_vec();
                let Some(mask) = self.mask(&name, v, ratio) else {
                    continue;
                };
                let product = Node::new("Mul", &name);
                let dropped = self.model.graph.add_op(product, &[v, mask], &name);
                for (id, i) in readers {
                    self.model.graph.set_input(id, i, Some(dropped));
                }
                count += 1;
            }
            if count > 0 {
                told.push(format!("{count} {what}"));
            }
        }
        self.notes.push(match told.is_empty() {
            true => {
                "nothing is dropped: no attention, residual branch or last layer is known".into()
            }
            false => format!("dropout of {ratio} at {}", told.join(", ")),
        });
        Ok(())
    }

    /// Adds the input of a mask of the numbers of `v`, where their rank is known.
    fn mask(&mut self, name: &str, v: ValueId, ratio: f64) -> Option<ValueId> {
        let shape = self.inferred.tensor(v)?.shape.clone()?;
        let name = self.model.graph.fresh_name(&format!("{name}/mask"));
        let ty = TensorType::new(DType::F32, shape);
        let mask = self.model.graph.add_input(&name, Type::from(ty));
        self.masks.push(Mask { name, of: v, ratio });
        Some(mask)
    }

    /// What a Softmax makes that a product reads alone.
    fn attention(&self) -> Vec<ValueId> {
        let graph = &self.model.graph;
        let weights = |id: NodeId| {
            let y = graph.node(id).output(0)?;
            let (reader, place) = graph.sole_consumer(y)?;
            let of_computed = graph
                .node(reader)
                .input(1)
                .is_some_and(|v| !self.is_weight(v));
            (graph.node(reader).is("MatMul") && place == 0 && of_computed).then_some(y)
        };
        let all = self.of_op("Softmax");
        all.into_iter().filter_map(weights).collect()
    }

    /// What a linear layer gives to a sum whose other part is from no such layer.
    fn branches(&self) -> Vec<ValueId> {
        let graph = &self.model.graph;
        let branch = |id: NodeId| {
            let node = graph.node(id);
            let ends = [node.input(0)?, node.input(1)?];
            let from = ends.map(|v| !self.is_weight(v) && self.linear(v).is_some());
            let of = match from {
                [true, false] => 0,
                [false, true] => 1,
                _ => return None,
            };
            let is_sum = !self.is_weight(ends[1 - of]);
            (is_sum && graph.sole_consumer(ends[of]).is_some()).then_some(ends[of])
        };
        let all = self.of_op("Add");
        all.into_iter().filter_map(branch).collect()
    }

    /// What a LayerNormalization gives of tables alone.
    fn embeddings(&self) -> Vec<ValueId> {
        let graph = &self.model.graph;
        let norms = self.of_op("LayerNormalization").into_iter();
        let outputs = norms.filter_map(|id| graph.node(id).output(0));
        outputs.filter(|&y| self.is_of_tables(y)).collect()
    }

    /// True where no product is behind a value, and the row of a table is.
    fn is_of_tables(&self, v: ValueId) -> bool {
        let (mut open, mut seen, mut has_table) = (vec![v], BTreeSet::new(), false);
        while let Some(v) = open.pop() {
            let Some((id, _)) = self.model.graph.value(v).producer() else {
                continue;
            };
            if !seen.insert(id) {
                continue;
            }
            let node = self.model.graph.node(id);
            if PRODUCTS.iter().any(|op| node.is(op)) {
                return false;
            }
            has_table |= node.is("Gather") && node.input(0).is_some_and(|t| self.is_weight(t));
            open.extend(node.inputs().iter().flatten());
        }
        has_table
    }

    /// What the linear layer reads that makes the scores.
    fn last_layer(&self) -> Result<Vec<ValueId>> {
        let read = self.linear(scores(&self.base)?);
        Ok(read
            .filter(|&v| !self.model.graph.is_input(v))
            .into_iter()
            .collect())
    }

    /// What is multiplied by weights to make this value, before a bias.
    fn linear(&self, v: ValueId) -> Option<ValueId> {
        let graph = &self.model.graph;
        let node = graph.node(graph.value(v).producer()?.0);
        if node.is("Add") {
            let [a, b] = [node.input(0)?, node.input(1)?];
            let inner = match [a, b].map(|v| self.is_weight(v)) {
                [true, false] => b,
                [false, true] => a,
                _ => return None,
            };
            let node = graph.node(graph.value(inner).producer()?.0);
            let is_product = node.is("MatMul") && self.is_weight(node.input(1)?);
            return is_product.then(|| node.input(0)).flatten();
        }
        let is_product = ["MatMul", "Gemm"].iter().any(|op| node.is(op));
        (is_product && self.is_weight(node.input(1)?)).then(|| node.input(0))?
    }

    /// True for what is constant in the file.
    fn is_weight(&self, v: ValueId) -> bool {
        self.model.graph.constant(v).is_some() || self.parameters.iter().any(|(_, p)| *p == v)
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::random::Random;
    use edgesmith_ir::{Error, Model, NoProgress, NoStore, Tensor, text};

    use crate::draft::{Draft, Options};
    use crate::losses::{Request, find};
    use crate::trainer::{Data, Settings, train};
    use crate::training::Training;

    /// An encoder of one layer with one head and open lengths, whose shapes are computed.
    const ENCODER: &str = "opset 17 graph g(ids: i64[n,s]) -> (scores) {
        words: f32[3,4] = {1,0,0,0,0,1,0,0,0,0,1,0} g: f32[4] = {1,1,1,1} b: f32[4] = {0,0,0,0}
        w: f32[4,4] = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1} c: f32[4] = {0,0,0,1}
        wide: i64[1] = {4} open: i64[1] = {-1} one: i64[1] = {1}
        h: f32[4,2] = {1,0,0,1,0,0,0,0}
        e = Gather(words, ids) x = LayerNormalization(e, g, b)
        q = MatMul(x, w) p = MatMul(x, w) t = Transpose(p) {perm=[0,2,1]}
        size = Shape(q) first = Slice(size, zero, one) zero: i64[1] = {0}
        shape = Concat(first, open, wide) {axis=0} r = Reshape(q, shape)
        d = MatMul(r, t) a = Softmax(d) {axis=-1} m = MatMul(a, x)
        o = MatMul(m, w) f = Add(o, c) y = Add(f, x)
        mean = ReduceMean(y) {axes=[1],keepdims=0} scores = MatMul(mean, h) }";

    fn prepared(model: &Model, dropout: f64) -> Result<Training, Error> {
        let options = Options {
            dropout,
            ..Options::default()
        };
        let mut draft = Draft::new(model, &options)?;
        draft.add_term(find("cross-entropy")?, 1.0, &Request::default())?;
        draft.finish()
    }

    fn places(text: &str) -> Vec<String> {
        let training = prepared(&text::parse(text).unwrap(), 0.25).unwrap();
        let name = |v| training.base.graph.value(v).name.clone();
        training.masks.iter().map(|m| name(m.of)).collect()
    }

    #[test]
    fn attention_branches_embeddings_and_the_last_layer_drop() {
        assert_eq!(places(ENCODER), ["a", "f", "x", "mean"]);
    }

    #[test]
    fn a_layer_on_the_inputs_drops_nothing_and_says_so() {
        let linear =
            "opset 17 graph g(x: f32[n,2]) -> (y) { w: f32[2,2] = {1,2,3,4} y = MatMul(x, w) }";
        let training = prepared(&text::parse(linear).unwrap(), 0.25).unwrap();
        assert!(training.masks.is_empty());
        assert!(
            training
                .notes
                .iter()
                .any(|n| n.starts_with("nothing is dropped"))
        );
    }

    #[test]
    fn a_sum_of_two_layers_is_no_branch() {
        let cell = "opset 17 graph g(x: f32[n,2], h: f32[n,2]) -> (y) {
            w: f32[2,2] = {1,2,3,4} v: f32[2,2] = {1,2,3,4} u: f32[2,2] = {1,0,0,1}
            a = MatMul(x, w) b = MatMul(h, v) s = Add(a, b) t = Tanh(s) y = MatMul(t, u) }";
        assert_eq!(places(cell), ["t"]);
    }

    #[test]
    fn a_part_of_1_or_more_is_refused() {
        let model = text::parse(ENCODER).unwrap();
        for ratio in [1.0, -0.1, f64::NAN] {
            assert!(prepared(&model, ratio).is_err(), "{ratio}");
        }
    }

    struct Texts;

    impl Data for Texts {
        fn count(&self) -> usize {
            12
        }

        /// Texts of 2 or 3 words.
        fn batch(
            &mut self,
            samples: &[usize],
            epoch: usize,
        ) -> Result<Vec<(String, Tensor)>, Error> {
            let words = 2 + epoch % 2;
            let mut random = Random::of(&[epoch as u64, samples[0] as u64]);
            let ids = (0..samples.len() * words).map(|_| random.below(3) as i64);
            let ids = Tensor::from_vec(&[samples.len(), words], ids.collect())?;
            let labels = samples.iter().map(|i| (i % 2) as i64).collect();
            Ok(vec![
                ("ids".into(), ids),
                ("labels".into(), Tensor::vector(labels)),
            ])
        }
    }

    #[test]
    fn the_file_has_no_dropout_and_a_seed_gives_the_same_bytes() {
        let model = text::parse(ENCODER).unwrap();
        let trained = |dropout: f64| {
            let training = prepared(&model, dropout).unwrap();
            let settings = Settings {
                epochs: 3,
                batch: 4,
                threads: 1,
                ..Settings::default()
            };
            let store = (&NoStore as &dyn edgesmith_ir::Store, "");
            let made = train(&training, &mut Texts, &settings, None, store, &NoProgress);
            text::print(&made.unwrap().model).unwrap()
        };
        let (first, again, without) = (trained(0.3), trained(0.3), trained(0.0));
        assert_eq!(first, again);
        assert_ne!(first, without);
        let nodes = |s: &str| s.matches(" = ").count();
        assert_eq!(nodes(&first), nodes(&without));
    }
}
