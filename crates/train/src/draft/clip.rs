//! Bounds of activations that learn (PACT; J. Choi et al., 2018, equations 1 to 3).

use edgesmith_ir::{NodeId, ValueId};

use crate::draft::Draft;
use crate::grad::STEADY_SCALE;
use crate::training::Parameter;

impl Draft {
    /// Puts y = min(x, α) before each QuantizeLinear of activations whose zero point is the least
    /// integer, with α the scale times its steps. Only what is over α moves the scale then, and α
    /// decays as weights do. Other scales learn as those of LSQ.
    pub(super) fn clip_activations(&mut self) {
        let mut count = 0;
        for scale in self.thawed.scales.clone() {
            let readers = self.model.graph.value(scale.value).consumers().to_vec();
            let readers: Vec<NodeId> = readers.into_iter().map(|(id, _)| id).collect();
            let is_quantizer = |id: &&NodeId| self.model.graph.node(**id).is("QuantizeLinear");
            let quantizers: Vec<NodeId> = readers.iter().filter(is_quantizer).copied().collect();
            let all_begin = quantizers.iter().all(|id| self.begins_at_0(*id));
            let ours = |p: &&mut (Parameter, ValueId)| p.1 == scale.value;
            if quantizers.is_empty() || !all_begin {
                continue;
            }
            let Some((parameter, _)) = self.parameters.iter_mut().find(ours) else {
                continue;
            };
            parameter.decay = 1.0 / parameter.rate.max(1e-30);
            count += 1;
            for id in readers {
                let steady = (STEADY_SCALE.to_owned(), String::new());
                self.model.graph.node_mut(id).metadata.push(steady);
            }
            let bound = self.scaled(scale.value, scale.most);
            for id in quantizers {
                if let Some(x) = self.model.graph.node(id).input(0) {
                    let clipped = self.op("Min", &[x, bound]);
                    self.model.graph.set_input(id, 0, Some(clipped));
                }
            }
        }
        if count == 0 {
            let what = "no activations are quantised from 0 on: none have a bound that PACT learns";
            self.notes.push(what.into());
        }
    }

    /// True for a QuantizeLinear of an activation whose integers begin with the zero point.
    fn begins_at_0(&self, id: NodeId) -> bool {
        let node = self.model.graph.node(id);
        let is_constant = |v: ValueId| self.base.graph.value(v).constant.is_some();
        let is_weight = node.input(0).is_none_or(is_constant);
        let zero = match node.input(2) {
            None => true,
            Some(v) => {
                let zero = self.model.graph.constant(v);
                zero.is_some_and(|t| {
                    let dtype = t.dtype();
                    let all = t.to_i64().unwrap_or_default();
                    !dtype.is_signed_integer() && all == [0]
                })
            }
        };
        !is_weight && zero
    }
}
