//! What a graph is lowered to: steps over buffers of fixed size, in the arithmetic of the device.

use edgesmith_ir::{DType, Error, Result};
use half::f16;

use crate::arena::Overlap;
use crate::emit::Call;
use crate::emit::moves::Moves;
use crate::kernels::{Flavour, Geometry};

/// What the elements of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 8-bit integers.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 => 2,
            Self::I32 | Self::F32 => 4,
        }
    }

    /// The type in C; of halves that of their bits.
    pub fn c(self) -> &'static str {
        match self {
            Self::I8 => "int8_t",
            Self::I16 => "int16_t",
            Self::I32 => "int32_t",
            Self::F32 => "float",
            // The bits: not every compiler has the type.
            Self::F16 => "uint16_t",
        }
    }

    /// The type of tensors with these elements.
    pub fn dtype(self) -> DType {
        match self {
            Self::I8 => DType::I8,
            Self::I16 => DType::I16,
            Self::I32 => DType::I32,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }
}

/// What an integer stands for: `scale * (integer - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The step.
    pub scale: f32,
    /// The integer of 0.
    pub zero: i32,
    /// Integers of the graph are unsigned: those of the program are lower by 128.
    pub unsigned: bool,
}

/// A value in the arena.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// The name of the value in the graph.
    pub name: String,
    /// What its elements are.
    pub element: Element,
    /// How many there are.
    pub count: usize,
    /// What its integers stand for.
    pub grid: Option<Grid>,
}

impl Buffer {
    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.count * self.element.bytes()
    }
}

/// The place of a buffer in [`Program::buffers`].
pub type BufferId = usize;

/// An input or output of the program.
#[derive(Debug, Clone)]
pub struct Port {
    /// The name in the graph.
    pub name: String,
    /// The name in C: letters, digits and underscores.
    pub c_name: String,
    /// Where it stands.
    pub buffer: BufferId,
    /// Lengths of the graph's value.
    pub dims: Vec<usize>,
    /// For each axis in memory, outermost first, the axis of the graph's value.
    pub order: Vec<usize>,
}

/// What is kept from one run to the next.
#[derive(Debug, Clone)]
pub struct State {
    /// The name of the input in the graph.
    pub name: String,
    /// Where a run finds it.
    pub read: BufferId,
    /// Where a run leaves it; it is copied before the next one.
    pub write: BufferId,
}

/// Elements of a buffer, for evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 8-bit integers.
    I8(Vec<i8>),
    /// 16-bit integers.
    I16(Vec<i16>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
}

impl Data {
    /// Zeros.
    pub fn zeros(element: Element, count: usize) -> Self {
        match element {
            Element::I8 => Self::I8(vec![0; count]),
            Element::I16 => Self::I16(vec![0; count]),
            Element::I32 => Self::I32(vec![0; count]),
            Element::F32 => Self::F32(vec![0.0; count]),
            Element::F16 => Self::F16(vec![f16::ZERO; count]),
        }
    }

    /// Little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::I8(v) => v.iter().map(|&x| x as u8).collect(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The 8-bit integers.
    ///
    /// # Panics
    /// Where the elements are others: steps and buffers agree.
    pub fn i8(&self) -> &[i8] {
        match self {
            Self::I8(v) => v,
            _ => panic!("a step reads bytes where there are none"),
        }
    }

    /// The 16-bit integers.
    ///
    /// # Panics
    /// Where the elements are others.
    pub fn i16(&self) -> &[i16] {
        match self {
            Self::I16(v) => v,
            _ => panic!("a step reads 16-bit integers where there are none"),
        }
    }

    /// The floats.
    ///
    /// # Panics
    /// Where the elements are others.
    pub fn f32(&self) -> &[f32] {
        match self {
            Self::F32(v) => v,
            _ => panic!("a step reads floats where there are none"),
        }
    }

    /// Halves next to these numbers.
    pub fn halves(numbers: impl Iterator<Item = f32>) -> Self {
        Self::F16(numbers.map(f16::from_f32).collect())
    }

    /// The halves.
    ///
    /// # Panics
    /// Where the elements are others.
    pub fn f16(&self) -> &[f16] {
        match self {
            Self::F16(v) => v,
            _ => panic!("a step reads halves where there are none"),
        }
    }
}

/// What a step costs and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Products that are added.
    pub macs: u64,
    /// Bytes of constants.
    pub weights: usize,
}

/// What a step does.
pub trait Layer: Send + Sync {
    /// The C function behind the prefix, for people.
    fn kernel(&self) -> &'static str;

    /// The C statements that do it; constants and kernels that it needs are told to `call`.
    fn emit(&self, call: &mut Call) -> String;

    /// The same in Rust, bit by bit for integers.
    fn eval(&self, reads: &[&Data], write: &mut Data);

    /// Bytes that it needs while it runs.
    fn scratch(&self, _: Flavour) -> usize {
        0
    }

    /// How what it makes may lie over what it reads as number `read`.
    fn overlap(&self, _: Flavour, _read: usize) -> Option<Overlap> {
        None
    }

    /// The windows that it goes by, row after row, where it can be done a few rows at a time.
    fn windows(&self) -> Option<&Geometry> {
        None
    }

    /// The same for a part of the rows, where [`Self::windows`] says so.
    fn band(&self, _: Geometry) -> Option<Box<dyn Layer>> {
        None
    }

    /// What it costs.
    fn cost(&self) -> Cost {
        Cost::default()
    }
}

/// A step: reads buffers, makes one.
pub struct Step {
    /// The name of the node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// What it reads.
    pub reads: Vec<BufferId>,
    /// What it makes.
    pub write: BufferId,
    /// What it does.
    pub layer: Box<dyn Layer>,
}

/// A model of fixed shapes, lowered.
#[derive(Default)]
pub struct Program {
    /// Values in the arena.
    pub buffers: Vec<Buffer>,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// Inputs, in the order of the graph.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of the graph.
    pub outputs: Vec<Port>,
    /// Inputs and outputs that are one: what a run leaves, the next one finds.
    pub states: Vec<State>,
    /// What a user should know of the lowering.
    pub notes: Vec<String>,
}

impl Program {
    /// Makes an input and an output one: what a run leaves in the output, the next one finds in the input.
    /// Neither is a port any more. The first run finds zeros.
    ///
    /// # Errors
    /// When there is no such port, or the two are not alike.
    pub fn keep(&mut self, input: &str, output: &str) -> Result<()> {
        let find = |ports: &[Port], name: &str, what: &str| {
            let names = ports.iter().map(|p| p.name.as_str());
            let found = ports.iter().position(|p| p.name == name);
            found.ok_or_else(|| Error::unknown(what, name, names))
        };
        let from = find(&self.inputs, input, "input")?;
        let to = find(&self.outputs, output, "output")?;
        let (a, b) = (&self.inputs[from], &self.outputs[to]);
        let (x, y) = (&self.buffers[a.buffer], &self.buffers[b.buffer]);
        let same_grid = x.grid.map(|g| (g.scale, g.zero)) == y.grid.map(|g| (g.scale, g.zero));
        if a.dims != b.dims || a.order != b.order || x.element != y.element || !same_grid {
            return Err(Error::unsupported(format!(
                "\"{input}\" and \"{output}\" differ in lengths, type or scale: no state can be kept in them"
            ))
            .hint("a state that is kept has the same type and scale on both sides"));
        }
        let (read, write) = (a.buffer, b.buffer);
        self.steps.push(Step {
            name: input.to_owned(),
            op: "state".into(),
            reads: vec![write],
            write: read,
            layer: Box::new(Moves::permute(x.element, &[x.count], &[0])),
        });
        self.inputs.remove(from);
        self.outputs.remove(to);
        self.states.push(State {
            name: input.to_owned(),
            read,
            write,
        });
        Ok(())
    }

    /// What states hold before the first run: what stands for 0.
    pub fn rest(&self) -> Vec<Data> {
        let zeros = |state: &State| {
            let buffer = &self.buffers[state.read];
            match (buffer.element, buffer.grid) {
                (Element::I8, Some(grid)) => Data::I8(vec![grid.zero as i8; buffer.count]),
                (element, _) => Data::zeros(element, buffer.count),
            }
        };
        self.states.iter().map(zeros).collect()
    }

    /// What the outputs hold after a first run on `inputs`, in the program's elements and order.
    ///
    /// # Errors
    /// When an input does not fit.
    pub fn run(&self, inputs: &[Data]) -> Result<Vec<Data>> {
        self.run_on(&mut self.rest(), inputs)
    }

    /// The same for a run that finds `states` and leaves its own there.
    ///
    /// # Errors
    /// When an input or a state does not fit.
    pub fn run_on(&self, states: &mut [Data], inputs: &[Data]) -> Result<Vec<Data>> {
        let mut held: Vec<Option<Data>> = vec![None; self.buffers.len()];
        if inputs.len() != self.inputs.len() || states.len() != self.states.len() {
            let (given, wanted) = (inputs.len(), self.inputs.len());
            return Err(Error::invalid(format!(
                "{given} inputs were given, {wanted} are wanted"
            )));
        }
        let ports = self.inputs.iter().map(|p| (&p.name, p.buffer)).zip(inputs);
        let kept = self
            .states
            .iter()
            .map(|s| (&s.name, s.read))
            .zip(states.iter());
        for ((name, at), data) in ports.chain(kept) {
            let buffer = &self.buffers[at];
            if data.to_bytes().len() != buffer.bytes() {
                return Err(Error::invalid(format!(
                    "input \"{name}\" has other lengths"
                )));
            }
            held[at] = Some(data.clone());
        }
        let last = self.last_reads();
        for (n, step) in self.steps.iter().enumerate() {
            let mut made = match held[step.write].take() {
                Some(data) => data,
                None => {
                    let buffer = &self.buffers[step.write];
                    Data::zeros(buffer.element, buffer.count)
                }
            };
            let reads: Option<Vec<&Data>> = step.reads.iter().map(|&r| held[r].as_ref()).collect();
            let reads = reads.ok_or_else(|| {
                Error::internal(format!("{} reads what no step has made", step.name))
            })?;
            step.layer.eval(&reads, &mut made);
            held[step.write] = Some(made);
            for &r in &step.reads {
                if last[r] == n {
                    held[r] = None;
                }
            }
        }
        let missing = || Error::internal("an output is made by no step");
        for (state, kept) in self.states.iter().zip(states) {
            *kept = held[state.read].clone().ok_or_else(missing)?;
        }
        let outputs = self.outputs.iter().map(|port| held[port.buffer].clone());
        outputs.map(|data| data.ok_or_else(missing)).collect()
    }

    /// For each buffer the last step that reads it; `usize::MAX` for outputs.
    pub(crate) fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![0; self.buffers.len()];
        for (n, step) in self.steps.iter().enumerate() {
            for &r in &step.reads {
                last[r] = n;
            }
        }
        for port in &self.outputs {
            last[port.buffer] = usize::MAX;
        }
        for state in &self.states {
            last[state.read] = usize::MAX;
        }
        last
    }
}
