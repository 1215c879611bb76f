//! What operators of attention say of heads.

use std::collections::BTreeSet;

use crate::{Attribute, Model, NodeId, Result, ValueId};

use super::{Axis, Edits};

/// Heads along a part of an axis: how many there are, and how many numbers each has, before and
/// after.
struct Left {
    heads: [usize; 2],
    size: [usize; 2],
}

impl Edits<'_> {
    /// What is left of so many heads from `first` on; `None` where all are.
    fn left(
        &self,
        v: Option<ValueId>,
        axis: usize,
        (first, heads, size): (usize, usize, usize),
    ) -> Option<Left> {
        let own = first..first + heads * size;
        let stay = self.stay(v, axis)?.iter().filter(|i| own.contains(i));
        let stay: Vec<usize> = stay.map(|i| (i - first) / size.max(1)).collect();
        let left = stay.iter().collect::<BTreeSet<_>>().len();
        Some(Left {
            heads: [heads, left],
            size: [size, stay.len() / left.max(1)],
        })
    }

    /// What is left of heads that take all of the last axis.
    fn whole(&self, v: Option<ValueId>, heads: usize) -> Option<Left> {
        let axis = self.rank(v).checked_sub(1)?;
        let size = self.length(Axis::of(v?, axis)) / heads.max(1);
        self.left(v, axis, (0, heads, size))
    }

    fn count(&self, id: NodeId, name: &str) -> usize {
        self.model.graph.node(id).int(name).unwrap_or(0).max(0) as usize
    }

    /// Writes a count of heads, and the scale of a width that is another now.
    fn tell(&self, out: &mut Model, id: NodeId, name: &str, left: &Left) {
        let node = out.graph.node_mut(id);
        if left.heads[0] != left.heads[1] {
            node.set(name, Attribute::Int(left.heads[1] as i64));
        }
        let has_scale = node.float("scale").is_some_and(|s| s != 0.0);
        if left.size[0] != left.size[1] && !has_scale {
            let scale = 1.0 / (left.size[0] as f64).sqrt();
            node.set("scale", Attribute::Float(scale as f32));
        }
    }

    pub(super) fn attention(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let (q, k) = (self.input(id, 0), self.input(id, 1));
        if self.rank(q) == 4 {
            if let Some(left) = self.whole(q, 1) {
                self.tell(out, id, "q_num_heads", &left);
            }
            return Ok(());
        }
        let heads = ["q_num_heads", "kv_num_heads"].map(|n| self.count(id, n));
        if let Some(left) = self.whole(q, heads[0]) {
            self.tell(out, id, "q_num_heads", &left);
        }
        if let Some(left) = self.whole(k, heads[1]).filter(|l| l.heads[0] != l.heads[1]) {
            self.tell(out, id, "kv_num_heads", &left);
        }
        Ok(())
    }

    pub(super) fn multi_head(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let heads = self.count(id, "num_heads");
        if let Some(left) = self.whole(self.input(id, 0), heads) {
            self.tell(out, id, "num_heads", &left);
        }
        Ok(())
    }

    pub(super) fn group_query(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let [all, shared] = ["num_heads", "kv_num_heads"].map(|n| self.count(id, n));
        let (q, k) = (self.input(id, 0), self.input(id, 1));
        let (queries, keys) = match k {
            Some(_) => (self.whole(q, all), self.whole(k, shared)),
            None => {
                let whole = q.map_or(0, |q| self.length(Axis::of(q, 2)));
                let size = whole / (all + 2 * shared).max(1);
                let of = |first: usize, heads| self.left(q, 2, (first * size, heads, size));
                (of(0, all), of(all, shared))
            }
        };
        for (name, left) in [("num_heads", queries), ("kv_num_heads", keys)] {
            if let Some(left) = left {
                self.tell(out, id, name, &left);
            }
        }
        Ok(())
    }

    pub(super) fn merged_attention(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let node = self.model.graph.node(id);
        let heads = self.count(id, "num_heads");
        let w = self.input(id, 1);
        let Some(stay) = self.stay(w, 1) else {
            return Ok(());
        };
        let columns = w.map_or(0, |w| self.length(Axis::of(w, 1)));
        let widths: Vec<usize> = match node.ints("qkv_hidden_sizes") {
            None | Some([]) => vec![columns / 3; 3],
            Some(list) => list.iter().map(|&n| n.max(0) as usize).collect(),
        };
        let mut first = 0;
        let mut left = Vec::new();
        for &n in &widths {
            let own = first..first + n;
            left.push(stay.iter().filter(|i| own.contains(i)).count() as i64);
            first += n;
        }
        let own = self.left(w, 1, (0, heads, widths[0] / heads.max(1)));
        let says = node.ints("qkv_hidden_sizes").is_some_and(|l| !l.is_empty());
        if says {
            let node = out.graph.node_mut(id);
            node.set("qkv_hidden_sizes", Attribute::Ints(left));
        }
        if let Some(own) = own {
            self.tell(out, id, "num_heads", &own);
        }
        Ok(())
    }

    /// Heads, and numbers that are turned, where the node says them.
    pub(super) fn rotary(&self, out: &mut Model, id: NodeId) -> Result<()> {
        let x = self.input(id, 0);
        let own = self.count(id, "num_heads");
        let heads = if self.rank(x) == 3 { own } else { 1 };
        let Some(left) = self.whole(x, heads).filter(|_| heads > 0) else {
            return Ok(());
        };
        let turned = self.count(id, "rotary_embedding_dim");
        let last = self.rank(x) - 1;
        let stay = self.stay(x, last).into_iter().flatten();
        let stay = stay.filter(|i| **i < turned).count();
        let node = out.graph.node_mut(id);
        if own > 0 && self.rank(x) == 3 {
            node.set("num_heads", Attribute::Int(left.heads[1] as i64));
        }
        if turned > 0 && left.size[0] != left.size[1] {
            node.set("rotary_embedding_dim", Attribute::Int(stay as i64));
        }
        Ok(())
    }
}
