//! The forms in which rounded weights are written: one row for each.
//!
//! To add one: write its function in a file of its own, and its row.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Model, Node, Result, Tensor, ValueId};

use super::matrix::Lies;
use super::method::Rounded;
use super::sites::Site;

mod bnb4;
mod matmulnbits;
mod qdq;

/// A form of rounded weights in a model.
pub struct Format {
    /// The name on the command line.
    pub name: &'static str,
    /// One line on what it is.
    pub about: &'static str,
    /// The least opset of the default domain.
    pub opset: i64,
    /// Lets a node read its rounded weight.
    pub write: fn(&mut Writer, &Site, &Rounded) -> Result<()>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every form, the default of codes at even distances first.
pub static FORMATS: &[&Format] = &[&MATMULNBITS, &QDQ, &BNB4];

/// The form of that name.
pub fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|f| f.name == name)
}

/// Operators of ONNX Runtime that multiply by the codes.
pub static MATMULNBITS: Format = Format {
    name: "matmulnbits",
    about: "MatMulNBits and GatherBlockQuantized of com.microsoft; pointwise convolutions as qdq",
    opset: 21,
    write: matmulnbits::write,
};

/// Operators of ONNX alone.
pub static QDQ: Format = Format {
    name: "qdq",
    about: "DequantizeLinear by blocks (opset 21) before the operator",
    opset: 21,
    write: qdq::write,
};

/// NF4 in ONNX Runtime.
pub static BNB4: Format = Format {
    name: "bnb4",
    about: "MatMulBnb4 of com.microsoft: NF4",
    opset: 13,
    write: bnb4::write,
};

/// A model that weights are written into.
pub struct Writer<'a> {
    /// The model.
    pub model: &'a mut Model,
    /// What stands for a weight that was written: shared by the nodes that read it.
    written: BTreeMap<(ValueId, Lies, &'static str), Vec<ValueId>>,
    /// Bits written for each weight.
    pub bits: BTreeMap<(ValueId, Lies), usize>,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub fn new(model: &'a mut Model) -> Self {
        Self {
            model,
            written: BTreeMap::new(),
            bits: BTreeMap::new(),
        }
    }

    /// The constants of a weight in the form `form`, made once.
    fn constants(
        &mut self,
        site: &Site,
        form: &'static str,
        make: impl FnOnce(&str) -> Result<Vec<(String, Tensor)>>,
    ) -> Result<Vec<ValueId>> {
        let key = (site.weight, site.lies, form);
        if let Some(values) = self.written.get(&key) {
            return Ok(values.clone());
        }
        let name = self.model.graph.value(site.weight).name.clone();
        let mut values = Vec::new();
        for (suffix, data) in make(&name)? {
            *self.bits.entry((site.weight, site.lies)).or_default() += data.byte_len() * 8;
            values.push(self.add(&format!("{name}_{suffix}"), data));
        }
        self.written.insert(key, values.clone());
        Ok(values)
    }

    fn add(&mut self, name: &str, data: Tensor) -> ValueId {
        let name = self.model.graph.fresh_name(name);
        self.model.graph.add_constant(&name, data)
    }

    /// Puts `node` in the place of the node of a site: the same name, the same output.
    fn replace(&mut self, site: &Site, mut node: Node, inputs: &[Option<ValueId>]) -> Result<()> {
        let graph = &mut self.model.graph;
        node.name = graph.node(site.node).name.clone();
        let output = graph.node(site.node).output(0);
        let output = output.ok_or_else(|| Error::internal("a product has an output"))?;
        graph.remove_node(site.node);
        graph.add_node(node, inputs, &[Some(output)]);
        self.model.opsets.entry("com.microsoft".into()).or_insert(1);
        Ok(())
    }
}
