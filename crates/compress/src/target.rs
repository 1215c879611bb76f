//! Devices: what their hardware computes, how much it holds, and the numbers that it wants.

use edgesmith_ir::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::quantize::affine::Byte;
use crate::steps::Setting;
use crate::written::Written;

mod notes;

pub use notes::Needs;

/// What hardware does with a type of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floats {
    /// Nothing: library calls convert and compute.
    #[default]
    None,
    /// Converts it to and from f32; arithmetic is of f32.
    Convert,
    /// Computes.
    Compute,
}

/// What hardware does with integers of 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nibbles {
    /// The device cannot be given any.
    None,
    /// Software unpacks them to bytes or floats.
    Unpack,
    /// Multiplies them.
    Hardware,
}

/// Which zeros hardware skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Sparsity {
    /// None.
    #[serde(rename = "none")]
    None,
    /// Two of each four weights along a sum.
    #[serde(rename = "2:4")]
    TwoOfFour,
}

/// What a scale of weights covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scales {
    /// An output channel.
    PerChannel,
    /// A whole weight.
    PerTensor,
}

/// How the usual kernels add two products of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairSums {
    /// Without loss.
    Exact,
    /// In 16 bits, saturating.
    Saturate,
}

/// Kernels of generated C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// C99 alone.
    C,
    /// The DSP extension of Cortex-M.
    Dsp,
    /// Helium, the vectors of Cortex-M.
    Mve,
}

/// How a device computes on bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Int8 {
    /// The type of activations.
    #[serde(with = "byte")]
    pub activations: Byte,
    /// The zero point of activations is 0.
    pub symmetric: bool,
    /// What a scale of weights covers.
    pub weights: Scales,
    /// Scales are powers of two: sums are shifted and not multiplied.
    pub power_of_two_scales: bool,
    /// An instruction adds products of bytes in 32 bits or more.
    pub dot_product: bool,
    /// How two products are added.
    pub pair_sums: PairSums,
}

/// A device, as a file of `targets/` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The name on the command line.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// The part that the figures are of.
    pub device: String,
    /// Instruction set, for people.
    pub isa: String,
    /// Highest clock.
    pub clock_mhz: u32,
    /// Bytes of memory for activations; absent where that is no limit.
    pub ram_bytes: Option<u64>,
    /// Bytes of memory for weights and code; absent where they lie in RAM.
    pub flash_bytes: Option<u64>,
    /// Highest rate at which weights are read.
    pub bandwidth_bytes_per_second: Option<u64>,
    /// What it does with f32.
    pub fp32: Floats,
    /// What it does with IEEE half.
    pub fp16: Floats,
    /// What it does with BF16.
    pub bf16: Floats,
    /// What it does with floats of 8 bits; absent is `none`.
    #[serde(default)]
    pub fp8: Floats,
    /// What it does with integers of 4 bits.
    pub int4: Nibbles,
    /// Which zeros it skips.
    pub sparsity: Sparsity,
    /// Which kernels of generated C it runs; absent where no code is made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Where this is written: documents by name, and what they say.
    pub source: Vec<String>,
    /// How it computes on bytes.
    pub int8: Int8,
}

/// Bytes of activations by their names in files and on the command line.
mod byte {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::quantize::affine::Byte;

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Byte, D::Error> {
        match String::deserialize(d)?.as_str() {
            "u8" => Ok(Byte::Unsigned),
            "s8" => Ok(Byte::Signed),
            other => Err(D::Error::unknown_variant(other, &["u8", "s8"])),
        }
    }

    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde asks for a reference"
    )]
    pub fn serialize<S: Serializer>(byte: &Byte, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(byte.name())
    }
}

impl Target {
    /// Reads a description; `name` is what errors call the text.
    ///
    /// # Errors
    /// When the text is no TOML, a key is unknown or missing, or no source is named.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let target: Self = Written { name, text }.read()?;
        if target.source.is_empty() {
            return Err(Error::usage("a target says where it is described").at(name));
        }
        Ok(target)
    }

    /// The settings of the step `quantize` to INT8 that the hardware wants. Weights have 7 bits where
    /// sums of pairs saturate.
    pub fn int8_settings(&self) -> Vec<(&'static str, Setting)> {
        let activations = Setting::Text(self.int8.activations.name().into());
        let flags = [
            ("symmetric", self.int8.symmetric),
            ("per-tensor", self.int8.weights == Scales::PerTensor),
            ("reduce-range", self.int8.pair_sums == PairSums::Saturate),
            ("power-of-two", self.int8.power_of_two_scales),
            ("integer-outputs", self.code.is_some()),
        ];
        let set = flags.into_iter().filter(|(_, set)| *set);
        std::iter::once(("activations", activations))
            .chain(set.map(|(key, _)| (key, Setting::Flag(true))))
            .collect()
    }

    /// Which INT8 the hardware wants, and why, in one line.
    pub fn reason(&self) -> String {
        let i = &self.int8;
        let mut parts = vec![format!(
            "{} activations{}",
            i.activations.name(),
            if i.symmetric {
                " without zero point"
            } else {
                ""
            }
        )];
        parts.push(match i.weights {
            Scales::PerChannel => "a scale a channel".into(),
            Scales::PerTensor => "one scale a weight, as the hardware has no others".into(),
        });
        if i.power_of_two_scales {
            parts.push("scales that are powers of two, as sums are shifted".into());
        }
        if i.pair_sums == PairSums::Saturate {
            parts.push(
                "weights of 7 bits, as sums of two u8×s8 products saturate at 16 bits".into(),
            );
        }
        format!("{} ({}): {}", self.name, self.isa, parts.join(", "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::quantize::int8;
    use crate::steps::Given;
    use crate::steps::quantize::{QUANTIZE, int8_settings};

    pub const NPU: &str = r#"
name = "npu"
about = "an NPU"
device = "a board"
isa = "its own"
clock_mhz = 100
ram_bytes = 1000
flash_bytes = 2000
fp32 = "none"
fp16 = "none"
bf16 = "none"
int4 = "none"
sparsity = "2:4"
source = ["a manual"]

[int8]
activations = "s8"
symmetric = true
weights = "per-tensor"
power_of_two_scales = true
dot_product = true
pair_sums = "exact"
"#;

    fn settings(t: &Target) -> int8::Settings {
        let mut given = Given::new(&QUANTIZE, "here");
        given
            .set("to", Setting::Text("int8".into()), "here")
            .unwrap();
        for (key, setting) in t.int8_settings() {
            given.set(key, setting, "here").unwrap();
        }
        int8_settings(&given).unwrap()
    }

    #[test]
    fn the_scheme_is_what_the_hardware_wants() {
        let npu = Target::parse("npu.toml", NPU).unwrap();
        let s = settings(&npu);
        assert_eq!(s.activations, Byte::Signed);
        assert!(s.symmetric && !s.per_channel && s.power_of_two_scales && !s.reduce_range);
        assert!(npu.reason().contains("powers of two"), "{}", npu.reason());
        let saturating = NPU.replace("\"exact\"", "\"saturate\"");
        let t = Target::parse("t", &saturating).unwrap();
        assert!(settings(&t).reduce_range);
    }

    #[test]
    fn an_unknown_key_is_refused_at_its_line() {
        let text = NPU.replace("dot_product", "dot_produkt");
        let e = Target::parse("npu.toml", &text).unwrap_err().to_string();
        assert!(e.starts_with("npu.toml:21: unknown field"), "{e}");
        let e = Target::parse("npu.toml", &format!("colour = 1\n{NPU}")).unwrap_err();
        assert!(
            e.to_string().starts_with("npu.toml:1: unknown field"),
            "{e}"
        );
    }

    #[test]
    fn an_unknown_word_a_missing_key_and_no_source_are_refused() {
        for (from, to) in [
            ("\"s8\"", "\"s9\""),
            ("sparsity = \"2:4\"\n", ""),
            ("[\"a manual\"]", "[]"),
        ] {
            assert!(Target::parse("t", &NPU.replace(from, to)).is_err(), "{to}");
        }
    }
}
