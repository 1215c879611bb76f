//! The program around a network: samples from a file, answers to a file.

use std::fmt::Write as _;

/// How a firmware is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What its functions begin with: `kws` of `kws_invoke`.
    pub prefix: String,
    /// Inputs, in the order of the model.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of the model.
    pub outputs: Vec<Port>,
    /// How many layers its profile tells apart.
    pub layers: usize,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the model.
    pub name: String,
    /// Its name in C: `x` of `kws_input_x`.
    pub c_name: String,
    /// How many bytes it has.
    pub bytes: usize,
}

impl Interface {
    /// The prefix as macros have it.
    pub fn macro_prefix(&self) -> String {
        self.prefix.to_ascii_uppercase()
    }

    /// Bytes of one sample: all inputs, one after another.
    pub fn sample_bytes(&self) -> usize {
        self.inputs.iter().map(|p| p.bytes).sum()
    }

    /// Bytes of the answers to one sample.
    pub fn answer_bytes(&self) -> usize {
        self.outputs.iter().map(|p| p.bytes).sum()
    }
}

/// The harness, `main.c`. It reads `samples.bin`, inputs of one sample after those of another, starts the
/// network anew for each, and writes all outputs to `outputs.bin`; at the end `numbers.bin` gets four
/// little-endian words: samples, bytes of the arena, bytes of stack, and how many marks the last sample had,
/// and each mark as one more. Compiled with `PREFIX_PROFILE` as `PREFIX_mark`, it has that function.
///
/// It ends with 0, or says what is wrong and ends with 3.
pub fn harness(interface: &Interface) -> String {
    let prefix = &interface.prefix;
    let upper = interface.macro_prefix();
    let mut inputs = String::new();
    for (i, port) in interface.inputs.iter().enumerate() {
        let _ = write!(
            inputs,
            "    n = board_read(file, {prefix}_input_{}(), {}U);\n    \
             if (n != {}U) {{\n        return {};\n    }}\n",
            port.c_name,
            port.bytes,
            port.bytes,
            if i == 0 { "(n == 0U) ? 0 : -1" } else { "-1" }
        );
    }
    let mut outputs = String::new();
    for port in &interface.outputs {
        let _ = writeln!(
            outputs,
            "    ok = ok && (board_write(file, {prefix}_output_{}(), {bytes}U) == {bytes}U);",
            port.c_name,
            bytes = port.bytes
        );
    }
    include_str!("main.c")
        .replace("@prefix@", prefix)
        .replace("@PREFIX@", &upper)
        .replace("@inputs@\n", &inputs)
        .replace("@outputs@\n", &outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_fills_every_input_and_reads_every_output() {
        let port = |name: &str, bytes| Port {
            name: name.to_uppercase(),
            c_name: name.into(),
            bytes,
        };
        let interface = Interface {
            prefix: "net".into(),
            inputs: vec![port("a", 4), port("b", 6)],
            outputs: vec![port("y", 8)],
            layers: 2,
        };
        let text = harness(&interface);
        assert!(text.contains("board_read(file, net_input_b(), 6U)"));
        assert!(text.contains("board_write(file, net_output_y(), 8U) == 8U"));
        assert!(text.contains("NET_ARENA_BYTES") && !text.contains('@'));
        assert_eq!(
            (interface.sample_bytes(), interface.answer_bytes()),
            (10, 8)
        );
    }
}
