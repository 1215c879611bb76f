//! The page that lies beside generated code: how it is called, and its numbers.

use std::fmt::Write as _;

use crate::firmware::Firmware;
use crate::kernels::Flavour;
use crate::program::Port;

/// The page of a firmware made of the model `source`.
pub(crate) fn page(firmware: &Firmware, source: &str) -> String {
    let p = &firmware.prefix;
    let needs = match firmware.flavour {
        Flavour::C => "C99 alone",
        Flavour::Dsp => "the DSP extension (Cortex-M4, M7, M33), by inline assembly of GNU C",
        Flavour::Mve => "Helium (Cortex-M55, M85), by `arm_mve.h`",
    };
    let mut text = format!(
        "# {source} in C\n\nWritten by edgesmith. Compile `{p}.c`; it includes `{p}_kernels.h` and `{p}_weights.h`, and \
         `{p}.h` is what you include. No heap, no files, nothing from the C library but `memcpy` and `memset`. The \
         kernels need {needs}.\n\n```c\n#include \"{p}.h\"\n\n{p}_init();\n"
    );
    for port in &firmware.program.inputs {
        let _ = writeln!(
            text,
            "fill({p}_input_{}(), {}_INPUT_{}_COUNT);",
            port.c_name,
            upper(p),
            upper(&port.c_name)
        );
    }
    let _ = writeln!(text, "{p}_invoke();");
    for port in &firmware.program.outputs {
        let _ = writeln!(
            text,
            "use({p}_output_{}(), {}_OUTPUT_{}_COUNT);",
            port.c_name,
            upper(p),
            upper(&port.c_name)
        );
    }
    text += "```\n\nInputs lie in the arena and are overwritten by a run: fill them before each.\n";
    ports(&mut text, firmware, &firmware.program.inputs, "Inputs");
    ports(&mut text, firmware, &firmware.program.outputs, "Outputs");
    if !firmware.program.states.is_empty() {
        let names: Vec<String> = firmware
            .program
            .states
            .iter()
            .map(|s| format!("`{}`", s.name))
            .collect();
        let _ = write!(
            text,
            "\nKept from run to run: {}. `{p}_init` forgets it.\n",
            names.join(", ")
        );
    }
    numbers(&mut text, firmware);
    for note in &firmware.program.notes {
        let _ = write!(text, "\n{note}.\n");
    }
    switches(&mut text, p);
    text
}

/// What it costs: in all, and layer by layer.
fn numbers(text: &mut String, firmware: &Firmware) {
    let arena = &firmware.memory.arena;
    let macs: u64 = firmware.layers.iter().map(|l| l.macs).sum();
    let best = match arena.bytes == arena.bound {
        true => "the least that is possible for these steps".to_owned(),
        false => format!("at least {} are needed", arena.bound),
    };
    let _ = write!(
        text,
        "\n## Numbers\n\n| | |\n|---|---|\n| MACs | {macs} |\n| constants in flash | {} bytes |\n| arena in RAM | {} bytes \
         ({best}; {} if nothing lay over anything) |\n| placed | {} |\n\nCode and stack depend on the compiler: \
         `edgesmith codegen --run` builds and measures them.\n\n| layer | function | MACs | constants | alive |\n\
         |---|---|--:|--:|--:|\n",
        firmware.weights, arena.bytes, arena.apart, arena.strategy
    );
    for layer in &firmware.layers {
        let name = layer.name.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            layer.kernel, layer.macs, layer.weights, layer.alive
        );
    }
}

/// What can be defined for the compiler.
fn switches(text: &mut String, p: &str) {
    let u = upper(p);
    let _ = write!(
        text,
        "\n## Switches\n\n- `-D{u}_WEIGHTS_SECTION='\".name\"'` and `-D{u}_ARENA_SECTION='\".name\"'` put constants and \
         the arena into sections of your linker script.\n- `-D{u}_PROFILE=function`: `void function(unsigned int)` is \
         called with the number of each step before it runs, and with `{u}_LAYERS` at the end.\n\n\
         Integers are rounded in one way on every target: `y = zero + ((acc << shift) * mult + 2^31 >> 32)`, halves up. \
         `edgesmith run --providers mcu` answers with the same bytes.\n"
    );
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase()
}

/// A table of inputs or outputs.
fn ports(text: &mut String, firmware: &Firmware, ports: &[Port], title: &str) {
    let _ = write!(
        text,
        "\n| {title} | type | in the graph | in memory | number |\n|---|---|---|---|---|\n"
    );
    for port in ports {
        let buffer = &firmware.program.buffers[port.buffer];
        let laid: Vec<String> = port
            .order
            .iter()
            .map(|&a| port.dims[a].to_string())
            .collect();
        let number = match buffer.grid {
            Some(grid) => format!("{:?} * (integer - {})", grid.scale, grid.zero),
            None => "as it is".to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {:?} | {}, axes {:?} | {number} |",
            port.c_name,
            buffer.element.c(),
            port.dims,
            laid.join(" x "),
            port.order
        );
    }
}
