//! A model as C for a microcontroller: made ready, lowered, and held against what a target has.

use anyhow::Result;
use edgesmith_codegen::program::{Element, Program};
use edgesmith_codegen::{Firmware, Flavour};
use edgesmith_compress::target::{Code, Floats, Target};
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::{Dim, Error, Model};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use crate::{opened, ui};

/// What code of kernels takes at most, about, in bytes of flash.
const CODE_BYTES: u64 = 9 * 1024;

/// What the stack takes at most, in bytes of RAM.
const STACK_BYTES: u64 = edgesmith_codegen::firmware::STACK_BYTES as u64;

/// The kernels of a target.
///
/// # Errors
/// When no code is made for it.
pub fn flavour(target: &Target) -> Result<Flavour> {
    match target.code {
        Some(Code::C) => Ok(Flavour::C),
        Some(Code::Dsp) => Ok(Flavour::Dsp),
        Some(Code::Mve) => Ok(Flavour::Mve),
        None => Err(
            Error::usage(format!("no code is made for the target {}", target.name))
                .hint("microcontrollers have it: `edgesmith targets` lists them")
                .into(),
        ),
    }
}

/// The model with every length fixed and its graph cleaned.
///
/// # Errors
/// When a length besides the batch is open, or a pass fails.
pub fn fixed(model: &Model, given: &[(String, usize)]) -> Result<Model> {
    let mut model = model.clone();
    for &v in &model.graph.inputs {
        let value = model.graph.value(v);
        let shape = value.tensor_type().and_then(|t| t.shape.as_ref());
        let dims = shape
            .into_iter()
            .flat_map(|s| s.0.iter())
            .enumerate()
            .skip(1);
        for (i, dim) in dims {
            let place = format!("{}:{i}", value.name);
            let name = match dim {
                Dim::Known(_) => continue,
                Dim::Symbol(name) => name.to_string(),
                Dim::Unknown => place.clone(),
            };
            if !given.iter().any(|(n, _)| *n == name || *n == place) {
                return Err(Error::unsupported(format!("the length \"{name}\" is open"))
                    .hint(format!(
                        "shapes are fixed when code is made: give --dim {name}=N"
                    ))
                    .into());
            }
        }
    }
    let lengths: Vec<(&str, usize)> = given.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    for (v, ty) in lengths::workable_inputs(&model, &lengths)? {
        model.graph.value_mut(v).ty = Some(ty);
    }
    Ok(opened::optimized(&model, "basic")?)
}

/// Refuses halves where the core does not compute with them.
///
/// # Errors
/// When there are some, and the core only converts them and `emulate` is not set, or does not even that.
pub fn check_halves(program: &Program, target: &Target, emulate: bool) -> Result<()> {
    let halves = program.buffers.iter().any(|b| b.element == Element::F16);
    let fault = match target.fp16 {
        _ if !halves => return Ok(()),
        Floats::Compute => return Ok(()),
        Floats::Convert if emulate => return Ok(()),
        Floats::Convert => Error::unsupported(format!(
            "{} converts FP16 but does not compute with it",
            target.name
        ))
        .hint("INT8 is faster and smaller; --emulate-fp16 makes code all the same, at the cost in docs/microcontrollers.md"),
        Floats::None => Error::unsupported(format!("{} has no FP16 at all", target.name))
            .hint("quantise to int8"),
    };
    Err(fault.into())
}

/// The share of all MACs that is cheap.
const CHEAP: f64 = 0.01;

/// The share of all MACs that may be computed again where a model does not fit else.
const MOST: f64 = 0.5;

/// Splits layers by rows: `never`, where it is `cheap`, or `always`; but for `never`, whatever it costs where
/// the arena would not fit else.
pub fn make_fit(program: &mut Program, flavour: Flavour, target: &Target, when: &str) {
    if when == "never" {
        return;
    }
    let share = if when == "always" { MOST } else { CHEAP };
    edgesmith_codegen::split(program, flavour, 0, share);
    if let Some(ram) = target.ram_bytes {
        edgesmith_codegen::split(
            program,
            flavour,
            ram.saturating_sub(STACK_BYTES) as usize,
            MOST,
        );
    }
}

/// What would not fit, with the numbers and what would help.
pub fn lacks(firmware: &Firmware, target: &Target) -> Vec<String> {
    let mut all = Vec::new();
    let arena = firmware.memory.arena.bytes as u64;
    if let Some(ram) = target.ram_bytes
        && arena + STACK_BYTES > ram
    {
        let peak = firmware.layers.iter().max_by_key(|l| l.alive);
        let peak = peak.map_or_else(String::new, |l| {
            format!(
                "; most is alive at \"{}\" ({}), {} bytes",
                l.name, l.op, l.alive
            )
        });
        all.push(format!(
            "RAM: the arena takes {arena} bytes and the stack about {STACK_BYTES}, {} has {ram}: {} too many{peak}",
            target.device,
            arena + STACK_BYTES - ram
        ));
    }
    let flash = firmware.weights as u64 + CODE_BYTES;
    if let Some(has) = target.flash_bytes
        && flash > has
    {
        let most = firmware.layers.iter().max_by_key(|l| l.weights);
        let most = most.map_or_else(String::new, |l| {
            format!(
                "; the most has \"{}\" ({}), {} bytes",
                l.name, l.op, l.weights
            )
        });
        all.push(format!(
            "flash: constants take {} bytes and code about {CODE_BYTES}, {} has {has}: {} too many{most}",
            firmware.weights,
            target.device,
            flash - has
        ));
    }
    all
}

/// What would make a model fit.
pub fn remedy(firmware: &Firmware) -> String {
    let floats = firmware
        .program
        .buffers
        .iter()
        .any(|b| b.element == Element::F32 && b.bytes() > 1024);
    match floats {
        true => "quantise it first: `edgesmith quantize --to int8 --target T --calibrate DATA` takes a \
                 quarter of both"
            .into(),
        false => "make it smaller: `edgesmith prune --structure channel`, or `edgesmith student --width 0.5`, or a \
                  smaller input"
            .into(),
    }
}

/// The steps, as a table.
pub fn table(firmware: &Firmware) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("kernel"),
        Column::right("MACs"),
        Column::right("flash"),
        Column::right("output"),
        Column::right("alive"),
    ]);
    for layer in &firmware.layers {
        table.row([
            layer.name.clone(),
            layer.op.clone(),
            layer.kernel.to_owned(),
            format::count(layer.macs),
            format::grouped(layer.weights as u64),
            format::grouped(layer.bytes as u64),
            format::grouped(layer.alive as u64),
        ]);
    }
    table.to_text(&ui::style())
}

/// The numbers of the whole, in sentences.
pub fn summary(firmware: &Firmware, target: Option<&Target>) -> String {
    let arena = &firmware.memory.arena;
    let macs: u64 = firmware.layers.iter().map(|l| l.macs).sum();
    let best = match arena.bytes == arena.bound {
        true => "the least that these steps can take".into(),
        false => format!(
            "no less than {} is possible",
            format::grouped(arena.bound as u64)
        ),
    };
    let mut text = format!(
        "MACs    {}\nflash   {} bytes of constants\narena   {} bytes, {best} ({}); {} without writing over inputs\n",
        format::count(macs),
        format::grouped(firmware.weights as u64),
        format::grouped(arena.bytes as u64),
        arena.strategy,
        format::grouped(arena.apart as u64),
    );
    if let Some(peak) = firmware.layers.get(arena.peak) {
        text += &format!("peak    {} \"{}\"\n", peak.op, peak.name);
    }
    if let Some(target) = target {
        let used = |bytes: u64, has: Option<u64>| match has {
            Some(has) => format!("{} of {}", format::bytes(bytes), format::bytes(has)),
            None => format::bytes(bytes),
        };
        text += &format!(
            "{}  RAM {}, flash {} and the code\n",
            target.name,
            used(arena.bytes as u64, target.ram_bytes),
            used(firmware.weights as u64, target.flash_bytes)
        );
    }
    text
}
