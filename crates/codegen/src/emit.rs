//! Programs as C: which operators have an emitter, and what a step may ask for while it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::fixed::Requant;
use crate::kernels::Flavour;
use crate::lower::Lower;

mod binary;
mod conv;
mod dense;
pub(crate) mod half;
pub(crate) mod int16;
pub(crate) mod moves;
mod norm;
mod pool;
pub(crate) mod quantize;
mod recurrent;
mod resize;
mod softmax;
mod transposed;
mod unary;

/// An operator of ONNX that can be emitted.
pub struct Emitter {
    /// The operator.
    pub op: &'static str,
    /// Its domain; empty for ONNX's own.
    pub domain: &'static str,
    pub(crate) lower: Lower,
}

const fn onnx(op: &'static str, lower: Lower) -> Emitter {
    Emitter {
        op,
        domain: "",
        lower,
    }
}

/// Every operator that can be emitted, by name.
pub static EMITTERS: &[Emitter] = &[
    onnx("Abs", unary::lower),
    onnx("Add", binary::lower),
    onnx("AveragePool", pool::lower),
    onnx("BatchNormalization", binary::batch_norm),
    onnx("Cast", half::cast),
    onnx("Ceil", unary::lower),
    onnx("Clip", unary::lower),
    onnx("Concat", moves::concat),
    onnx("Conv", conv::lower),
    onnx("ConvTranspose", transposed::lower),
    onnx("Cos", unary::lower),
    onnx("DepthToSpace", moves::blocks),
    onnx("DequantizeLinear", quantize::dequantize),
    onnx("Div", binary::lower),
    onnx("Dropout", moves::identity),
    onnx("Elu", unary::lower),
    onnx("Erf", unary::lower),
    onnx("Exp", unary::lower),
    onnx("Expand", moves::expand),
    onnx("Flatten", moves::reshape),
    onnx("Floor", unary::lower),
    onnx("GRU", recurrent::lower),
    onnx("Gather", moves::gather),
    onnx("Gelu", unary::lower),
    onnx("Gemm", dense::lower),
    onnx("GlobalAveragePool", pool::lower),
    onnx("GlobalMaxPool", pool::lower),
    onnx("HardSigmoid", unary::lower),
    onnx("HardSwish", unary::lower),
    onnx("Identity", moves::identity),
    onnx("LSTM", recurrent::lower),
    onnx("LayerNormalization", norm::layer),
    onnx("LeakyRelu", unary::lower),
    onnx("Log", unary::lower),
    onnx("MatMul", dense::lower),
    onnx("MaxPool", pool::lower),
    onnx("Mish", unary::lower),
    onnx("Mul", binary::lower),
    onnx("Neg", unary::lower),
    onnx("Pad", moves::pad),
    onnx("Pow", unary::lower),
    onnx("QuantizeLinear", quantize::quantize),
    onnx("Reciprocal", unary::lower),
    onnx("ReduceMax", norm::reduce),
    onnx("ReduceMean", pool::lower),
    onnx("ReduceSum", norm::reduce),
    onnx("Relu", unary::lower),
    onnx("Reshape", moves::reshape),
    onnx("Resize", resize::lower),
    onnx("Round", unary::lower),
    onnx("Selu", unary::lower),
    onnx("Sigmoid", unary::lower),
    onnx("Sign", unary::lower),
    onnx("Sin", unary::lower),
    onnx("Slice", moves::slice),
    onnx("Softmax", softmax::lower),
    onnx("Softplus", unary::lower),
    onnx("Softsign", unary::lower),
    onnx("SpaceToDepth", moves::blocks),
    onnx("Split", moves::split),
    onnx("Sqrt", unary::lower),
    onnx("Squeeze", moves::reshape),
    onnx("Sub", binary::lower),
    onnx("Tanh", unary::lower),
    onnx("Tile", moves::tile),
    onnx("Transpose", moves::transpose),
    onnx("Unsqueeze", moves::reshape),
];

/// Numbers in flash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Constant {
    /// The type of its elements in C.
    pub c: &'static str,
    /// Each number in C.
    pub numbers: Vec<String>,
    /// Bytes of all.
    pub bytes: usize,
}

/// What steps of a program ask for: numbers in flash, kernels, parameters.
pub(crate) struct Unit {
    /// What names begin with.
    pub prefix: String,
    /// Which instructions kernels may use.
    pub flavour: Flavour,
    /// Numbers by their names in C, in order.
    pub constants: Vec<(String, Constant)>,
    known: BTreeMap<Constant, String>,
    /// Parameters of layers, as definitions in C.
    pub parameters: Vec<String>,
    /// The names of parameters by their types and fields.
    same: BTreeMap<String, String>,
    /// The kernels.
    pub kernels: BTreeSet<&'static str>,
}

impl Unit {
    pub fn new(prefix: &str, flavour: Flavour) -> Self {
        Self {
            prefix: prefix.to_owned(),
            flavour,
            constants: Vec::new(),
            known: BTreeMap::new(),
            parameters: Vec::new(),
            same: BTreeMap::new(),
            kernels: BTreeSet::new(),
        }
    }

    /// Bytes of all numbers in flash.
    pub fn bytes(&self) -> usize {
        self.constants.iter().map(|(_, c)| c.bytes).sum()
    }
}

/// A step that is being written.
pub struct Call<'a> {
    pub(crate) unit: &'a mut Unit,
    /// The step's number.
    pub(crate) step: usize,
    /// Which part of the step, where it has several.
    pub(crate) part: usize,
    /// What it reads, as pointers in C.
    pub(crate) reads: Vec<String>,
    /// What it makes, as a pointer in C.
    pub(crate) write: String,
    /// How many elements it makes.
    pub(crate) count: usize,
    /// Its scratch memory, as a `void *` in C.
    pub(crate) scratch: String,
}

impl Call<'_> {
    /// Which instructions kernels may use.
    pub fn flavour(&self) -> Flavour {
        self.unit.flavour
    }

    /// What names begin with.
    pub fn prefix(&self) -> &str {
        &self.unit.prefix
    }

    /// A function of the kernel `name`.
    pub fn kernel(&mut self, name: &'static str) -> String {
        self.unit.kernels.insert(name);
        format!("{}_{name}", self.unit.prefix)
    }

    fn constant(&mut self, role: &str, constant: Constant) -> String {
        if let Some(name) = self.unit.known.get(&constant) {
            return name.clone();
        }
        let name = format!("{}_{role}_{}", self.unit.prefix, self.place(0));
        self.unit.known.insert(constant.clone(), name.clone());
        self.unit.constants.push((name.clone(), constant));
        name
    }

    /// Bytes in flash; the name.
    pub fn bytes(&mut self, role: &str, data: &[u8]) -> String {
        let constant = Constant {
            c: "int8_t",
            numbers: data.iter().map(|&b| (b as i8).to_string()).collect(),
            bytes: data.len(),
        };
        self.constant(role, constant)
    }

    /// 32-bit integers in flash; the name.
    pub fn i32s(&mut self, role: &str, data: &[i32]) -> String {
        let constant = Constant {
            c: "int32_t",
            numbers: data.iter().map(|&n| c_int(n)).collect(),
            bytes: 4 * data.len(),
        };
        self.constant(role, constant)
    }

    /// 32-bit unsigned integers in flash; the name.
    pub fn u32s(&mut self, role: &str, data: &[u32]) -> String {
        let constant = Constant {
            c: "uint32_t",
            numbers: data.iter().map(|n| format!("{n}u")).collect(),
            bytes: 4 * data.len(),
        };
        self.constant(role, constant)
    }

    /// 16-bit unsigned integers in flash; the name.
    pub fn u16s(&mut self, role: &str, data: &[u16]) -> String {
        let constant = Constant {
            c: "uint16_t",
            numbers: data.iter().map(|n| format!("{n}u")).collect(),
            bytes: 2 * data.len(),
        };
        self.constant(role, constant)
    }

    /// Floats in flash; the name.
    pub fn f32s(&mut self, role: &str, data: &[f32]) -> String {
        let constant = Constant {
            c: "float",
            numbers: data.iter().map(|&x| c_float(x)).collect(),
            bytes: 4 * data.len(),
        };
        self.constant(role, constant)
    }

    /// A structure of parameters in flash, of the type `es_ty`; the name.
    pub fn parameters(&mut self, ty: &str, fields: &str) -> String {
        self.parameters_of(ty, fields, 0)
    }

    /// The same where a step has several of them.
    pub fn parameters_of(&mut self, ty: &str, fields: &str, part: usize) -> String {
        let ty = format!("{}_{ty}", self.unit.prefix);
        let what = format!("{ty} {fields}");
        if let Some(name) = self.unit.same.get(&what) {
            return name.clone();
        }
        let name = format!("{}_layer_{}", self.unit.prefix, self.place(part));
        let text = format!("static const {ty} {name} = {{{fields}}};");
        self.unit.parameters.push(text);
        self.unit.same.insert(what, name.clone());
        name
    }

    /// The number of the step, and of the part where it has several.
    fn place(&self, part: usize) -> String {
        match (self.part, part) {
            (0, 0) => self.step.to_string(),
            (0, part) | (part, 0) => format!("{}_{part}", self.step),
            (outer, part) => format!("{}_{outer}_{part}", self.step),
        }
    }
}

/// What `es_requant` holds, as a nested initializer.
pub(crate) fn requant(call: &mut Call, bias: &[i32], to: &Requant) -> String {
    let bias = match bias {
        [] => "(void *)0".to_owned(),
        bias => call.i32s("bias", bias),
    };
    let mult = call.i32s("mult", &to.mult);
    let Requant {
        shift,
        zero,
        lo,
        hi,
        ..
    } = to;
    format!(
        "{{.bias = {bias}, .mult = {mult}, .zero = {zero}, .lo = {lo}, .hi = {hi}, .shift = {shift}}}"
    )
}

/// An integer as a constant expression of `int32_t`.
pub(crate) fn c_int(n: i32) -> String {
    match n {
        i32::MIN => "INT32_MIN".to_owned(),
        n => n.to_string(),
    }
}

/// A float as a constant expression with the same bits, but for payloads of NaN.
pub(crate) fn c_float(x: f32) -> String {
    if x.is_nan() {
        return "(0.0f / 0.0f)".to_owned();
    }
    if x.is_infinite() {
        let sign = if x < 0.0 { "-" } else { "" };
        return format!("({sign}1.0f / 0.0f)");
    }
    let mut text = format!("{x:e}");
    if !text.contains('.') {
        text = text.replacen('e', ".0e", 1);
    }
    text + "f"
}

/// Numbers in lines of C.
pub(crate) fn lines(numbers: &[String]) -> String {
    let mut text = String::new();
    let mut width = 0;
    for n in numbers {
        if width == 0 || width + n.len() + 2 > 100 {
            text.push_str("\n    ");
            width = 4;
        } else {
            text.push(' ');
            width += 1;
        }
        let _ = write!(text, "{n},");
        width += n.len() + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitters_are_in_order_and_operators_are_known() {
        let names: Vec<_> = EMITTERS.iter().map(|e| (e.domain, e.op)).collect();
        assert!(names.is_sorted());
        for (domain, op) in names {
            assert!(edgesmith_ir::ops::find(domain, op).is_some(), "{op}");
        }
    }

    #[test]
    fn numbers_keep_their_bits() {
        for x in [0.1f32, -0.0, 1.0, 3.4e38, 1e-45, 16_777_216.0] {
            let text = c_float(x);
            let back: f32 = text.trim_end_matches('f').parse().unwrap();
            assert_eq!(back.to_bits(), x.to_bits(), "{text}");
        }
        assert_eq!(c_int(i32::MIN), "INT32_MIN");
    }
}
