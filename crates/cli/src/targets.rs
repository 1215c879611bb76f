//! Target devices: what their hardware means for a model.

use edgesmith_ir::{Error, Result};
use serde::{Deserialize, Serialize};

/// A device, as its file in `targets/` describes it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Target {
    /// The name on the command line.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Instruction set, for people.
    pub isa: String,
    /// True where FP16 arithmetic runs in hardware.
    pub fp16: bool,
    /// True where integer dot products of 8 bits run in hardware.
    pub int8_dot: bool,
    /// True where the usual runtimes' 8-bit kernels add products in 16 bits and may saturate.
    #[serde(default)]
    pub u8s8_saturates: bool,
    /// Bytes of memory for activations; absent where that is no limit.
    pub ram_bytes: Option<u64>,
    /// Bytes of memory for weights and code; absent where that is no limit.
    pub flash_bytes: Option<u64>,
}

/// The embedded files, by name.
static FILES: &[&str] = &[
    include_str!("../../../targets/cortex-a53.toml"),
    include_str!("../../../targets/cortex-a76.toml"),
    include_str!("../../../targets/cortex-m4.toml"),
    include_str!("../../../targets/cortex-m7.toml"),
    include_str!("../../../targets/x86-64-avx2.toml"),
    include_str!("../../../targets/x86-64-vnni.toml"),
];

/// Every target, by name.
///
/// # Errors
/// When an embedded file is damaged: a bug of ours.
pub fn all() -> Result<Vec<Target>> {
    let parse = |text: &&str| toml::from_str(text).map_err(|e| Error::internal(e.to_string()));
    FILES.iter().map(parse).collect()
}

/// The target of that name.
///
/// # Errors
/// When there is none; the hint lists those there are.
pub fn find(name: &str) -> Result<Target> {
    let targets = all()?;
    let names: Vec<&str> = targets.iter().map(|t| t.name.as_str()).collect();
    let hint = format!("the targets are {}", names.join(", "));
    targets
        .iter()
        .find(|t| t.name == name)
        .cloned()
        .ok_or_else(|| Error::usage(format!("there is no target \"{name}\"")).hint(hint))
}

/// What a variant of the model is, as far as a target cares.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// `fp32`, `fp16`, `bf16` or `int8`.
    pub precision: &'static str,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of the planned activations.
    pub activation_bytes: u64,
}

impl Target {
    /// What this hardware means for such a variant, in sentences.
    pub fn notes(&self, needs: Needs) -> Vec<String> {
        let mut notes = Vec::new();
        match needs.precision {
            "fp16" | "bf16" if !self.fp16 || needs.precision == "bf16" => notes.push(format!(
                "{} has no {} arithmetic: the file is smaller, the arithmetic runs widened to f32 and \
                 is not faster",
                self.name, needs.precision
            )),
            "fp16" => notes.push(format!("{} computes FP16 in hardware", self.name)),
            "int8" if self.int8_dot => notes
                .push(format!("{} has 8-bit dot products: INT8 runs at its best", self.name)),
            "int8" => notes.push(format!(
                "{} has no 8-bit dot product: INT8 runs through 16-bit multiplies, about twice the \
                 rate of f32 at most",
                self.name
            )),
            _ => {}
        }
        if needs.precision == "int8" && self.u8s8_saturates {
            notes.push(
                "runtimes that add u8×s8 products in 16 bits (ONNX Runtime without VNNI) may \
                 saturate and lose accuracy there: use `quantize --reduce-range`, or its session \
                 option session.x64quantprecision=1; the kernels here are exact"
                    .into(),
            );
        }
        let mut limit = |what: &str, need: u64, have: Option<u64>| {
            if let Some(have) = have
                && need > have
            {
                notes.push(format!(
                    "does not fit: {what} take {need} bytes, the target has {have}"
                ));
            }
        };
        limit("weights", needs.weight_bytes, self.flash_bytes);
        limit("activations", needs.activation_bytes, self.ram_bytes);
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_target_parses_and_they_stand_by_name() {
        let names: Vec<String> = all().unwrap().into_iter().map(|t| t.name).collect();
        assert!(names.windows(2).all(|w| w[0] < w[1]), "{names:?}");
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_so() {
        let needs = Needs {
            precision: "int8",
            weight_bytes: 1 << 30,
            activation_bytes: 0,
        };
        assert!(
            find("cortex-m4")
                .unwrap()
                .notes(needs)
                .iter()
                .any(|n| n.contains("does not fit"))
        );
    }

    #[test]
    fn an_unknown_target_lists_those_there_are() {
        assert!(find("z80").unwrap_err().to_string().contains("cortex-m4"));
    }
}
