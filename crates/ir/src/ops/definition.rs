//! What a row of the operator list is made of.

use crate::eval::EvalCx;
use crate::graph::{Attribute, Node};
use crate::infer::{self, InferCx};
use crate::{Error, Item, Result, Tensor};

/// How an attribute may look, and what stands for it when it is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttrKind {
    /// INT with its default.
    Int(Option<i64>),
    /// FLOAT with its default.
    Float(Option<f32>),
    /// STRING with its default.
    String(Option<&'static str>),
    /// INTS.
    Ints,
    /// FLOATS.
    Floats,
    /// STRINGS.
    Strings,
    /// TENSOR.
    Tensor,
    /// GRAPH.
    Graph,
    /// TYPE_PROTO.
    Type,
}

/// An attribute of an operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttrDef {
    /// ONNX's name.
    pub name: &'static str,
    /// Its type and default.
    pub kind: AttrKind,
}

/// Shorthand for rows of [`OpDef::attrs`].
pub const fn attr(name: &'static str, kind: AttrKind) -> AttrDef {
    AttrDef { name, kind }
}

/// How many inputs or outputs there may be, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arity(pub usize, pub usize);

/// Any number of inputs or outputs from here on.
pub const MANY: usize = usize::MAX;

/// The shape rule of an operator.
pub type InferFn = fn(&mut InferCx) -> Result<()>;

/// The reference evaluation of an operator: one tensor for each output, in order. Outputs that
/// the node leaves out at the end may be missing.
pub type EvalFn = fn(&EvalCx) -> Result<Vec<Tensor>>;

/// The reference evaluation of an operator whose inputs or outputs need not be tensors: one item
/// for each output, in order.
pub type ItemFn = fn(&EvalCx) -> Result<Vec<Item>>;

/// A row of the operator list.
pub struct OpDef {
    /// ONNX's name.
    pub name: &'static str,
    /// The domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// The opset versions at which its meaning or types changed, rising.
    pub since: &'static [i64],
    /// How many inputs.
    pub inputs: Arity,
    /// How many outputs.
    pub outputs: Arity,
    /// Its attributes.
    pub attrs: &'static [AttrDef],
    /// The shape rule.
    pub infer: InferFn,
    /// The reference evaluation on tensors; `None` where it is not done.
    pub eval: Option<EvalFn>,
    /// The reference evaluation where sequences, maps or optionals come in or go out; it stands
    /// in place of [`OpDef::eval`].
    pub eval_items: Option<ItemFn>,
    /// False where two runs on the same inputs may differ.
    pub deterministic: bool,
    /// Uses in the text form, `Relu(f32[2,3])`: the tests of everything that claims the operator
    /// run them. An input is a type (random data), or a literal such as `i64[2]{1,-1}`.
    pub examples: &'static [&'static str],
}

impl OpDef {
    /// One input, one output typed like it, no attributes, no evaluation.
    pub const BASE: OpDef = OpDef {
        name: "",
        domain: "",
        since: &[1],
        inputs: Arity(1, 1),
        outputs: Arity(1, 1),
        attrs: &[],
        infer: infer::like_first,
        eval: None,
        eval_items: None,
        deterministic: true,
        examples: &[],
    };

    /// True where the reference evaluation is done.
    pub const fn is_evaluated(&self) -> bool {
        self.eval.is_some() || self.eval_items.is_some()
    }

    /// Checks the number of inputs and outputs of a node and the types of its attributes. Inputs
    /// that are left out at the end do not count.
    ///
    /// # Errors
    /// Says what is missing or too many.
    pub fn check_arity(&self, node: &Node) -> Result<()> {
        let check = |what: &str, arity: Arity, values: usize| {
            if (arity.0..=arity.1).contains(&values) {
                return Ok(());
            }
            let Arity(min, max) = arity;
            let range = match max {
                MANY => format!("{min} or more"),
                _ if min == max => min.to_string(),
                _ => format!("{min} to {max}"),
            };
            Err(Error::invalid(format!(
                "expected {range} {what}, found {values}"
            )))
        };
        let last = node.inputs().iter().rposition(Option::is_some);
        check("inputs", self.inputs, last.map_or(0, |i| i + 1))?;
        check("outputs", self.outputs, node.outputs().len())?;
        for (name, value) in &node.attributes {
            if let Some(def) = self.attrs.iter().find(|a| a.name == name)
                && !def.kind.accepts(value)
            {
                let kind = def.kind.name();
                return Err(Error::invalid(format!(
                    "attribute \"{name}\" should be {kind}"
                )));
            }
        }
        Ok(())
    }
}

impl AttrKind {
    fn accepts(self, value: &Attribute) -> bool {
        use Attribute as A;
        matches!(
            (self, value),
            (_, A::Reference(..) | A::Opaque(_))
                | (Self::Int(_), A::Int(_))
                | (Self::Float(_), A::Float(_))
                | (Self::String(_), A::String(_))
                | (Self::Ints, A::Ints(_))
                | (Self::Floats, A::Floats(_))
                | (Self::Strings, A::Strings(_))
                | (Self::Tensor, A::Tensor(_))
                | (Self::Graph, A::Graph(_))
                | (Self::Type, A::Type(_))
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::String(_) => "a string",
            Self::Ints => "a list of integers",
            Self::Floats => "a list of floats",
            Self::Strings => "a list of strings",
            Self::Tensor => "a tensor",
            Self::Graph => "a graph",
            Self::Type => "a type",
        }
    }
}
