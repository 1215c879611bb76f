//! What a rule sees of one node, and how it hands gradients on.

use std::ops::{Deref, DerefMut};

use edgesmith_ir::{Error, Graph, Node, Result, ValueId};

use super::names::Names;
use super::site::Site;

/// One node on the way back.
pub struct Backward<'a> {
    site: Site<'a>,
    dys: &'a [Option<ValueId>],
    wants: Vec<bool>,
    made: Vec<(ValueId, ValueId)>,
}

impl<'a> Deref for Backward<'a> {
    type Target = Site<'a>;

    fn deref(&self) -> &Site<'a> {
        &self.site
    }
}

impl<'a> DerefMut for Backward<'a> {
    fn deref_mut(&mut self) -> &mut Site<'a> {
        &mut self.site
    }
}

impl<'a> Backward<'a> {
    pub(super) fn new(site: Site<'a>, dys: &'a [Option<ValueId>], wants: Vec<bool>) -> Self {
        Self {
            site,
            dys,
            wants,
            made: Vec::new(),
        }
    }

    /// The gradients that were given, each with the value that it is of.
    pub(super) fn finish(self) -> Vec<(ValueId, ValueId)> {
        self.made
    }

    /// The gradient of output `o`, where the loss depends on it.
    pub fn dy_of(&self, o: usize) -> Option<ValueId> {
        self.dys.get(o).copied().flatten()
    }

    /// The gradient of the first output, which alone may have one.
    ///
    /// # Errors
    /// When the loss depends on another one.
    pub fn dy(&self) -> Result<ValueId> {
        if self.dys.iter().skip(1).any(Option::is_some) {
            return Err(Error::unsupported(format!(
                "the loss depends on more than the first output of {}, which is not done",
                self.node().op
            )));
        }
        self.dy_of(0)
            .ok_or_else(|| Error::invalid("the first output has no gradient"))
    }

    /// True where input `i` wants a gradient.
    pub fn wants(&self, i: usize) -> bool {
        self.wants.get(i).copied().unwrap_or(false)
    }

    /// Gives input `i` a gradient, of its shape; where it wants none, nothing happens.
    pub fn give(&mut self, i: usize, gradient: ValueId) {
        if let Some(v) = self.node().input(i).filter(|_| self.wants(i)) {
            self.made.push((v, gradient));
        }
    }

    /// Adds a node whose results are the gradients of the inputs `places`, in order, and gives them
    /// to those that want one.
    pub fn give_by(&mut self, node: Node, inputs: &[Option<ValueId>], places: &[usize]) {
        let wants: Vec<bool> = places.iter().map(|&i| self.wants(i)).collect();
        if !wants.contains(&true) {
            return;
        }
        let made = self.emit(node, inputs, &wants);
        for (d, &i) in made.into_iter().zip(places) {
            if let Some(d) = d {
                self.give(i, d);
            }
        }
    }

    /// Gives input `i` the sum of `gradient`, which has the shape of the first output, over the
    /// axes along which the input is repeated.
    ///
    /// # Errors
    /// When the input is left out.
    pub fn give_broadcast(&mut self, i: usize, gradient: ValueId) -> Result<()> {
        if !self.wants(i) {
            return Ok(());
        }
        let (x, y) = (self.x(i)?, self.y(0)?);
        let summed = if self.same_shape(x, y) {
            gradient
        } else {
            self.ours("Unbroadcast", &[gradient, x])
        };
        self.give(i, summed);
        Ok(())
    }
}

/// The sum of the gradients of a value, in place of them.
pub(super) fn total(
    graph: &mut Graph,
    names: &mut Names,
    gradients: &mut Vec<ValueId>,
) -> Option<ValueId> {
    let mut sum = *gradients.first()?;
    for &g in &gradients[1..] {
        let name = names.fresh("sum_of_gradients");
        let both = graph.add_value(&name, None);
        let node = Node::new("Add", &name);
        graph.add_node(node, &[Some(sum), Some(g)], &[Some(both)]);
        sum = both;
    }
    *gradients = vec![sum];
    Some(sum)
}
