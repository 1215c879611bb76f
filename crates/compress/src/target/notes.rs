//! What a device means for a model, in sentences.

use super::{Floats, Nibbles, PairSums, Target};

/// What a variant of the model is, as far as a target cares.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// `fp32`, `fp16`, `bf16`, `fp8`, `int8` or `int4`.
    pub precision: &'static str,
    /// Weights of INT8 have 7 bits.
    pub reduced: bool,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of the planned activations.
    pub activation_bytes: u64,
}

impl Target {
    /// What this hardware means for such a variant.
    pub fn notes(&self, needs: Needs) -> Vec<String> {
        let mut notes: Vec<String> = match needs.precision {
            "fp32" => self.single(),
            "fp16" => vec![self.halves("FP16", self.fp16)],
            "bf16" => vec![self.halves("BF16", self.bf16)],
            "fp8" => vec![self.float8()],
            "int8" => self.bytes(needs.reduced),
            "int4" => vec![self.nibbles()],
            _ => Vec::new(),
        };
        notes.extend(self.limits(needs));
        notes
    }

    /// What does not fit.
    pub fn limits(&self, needs: Needs) -> Vec<String> {
        let mut notes = Vec::new();
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
        match self.flash_bytes {
            Some(_) => limit("activations", needs.activation_bytes, self.ram_bytes),
            None => limit(
                "weights and activations",
                needs.weight_bytes.saturating_add(needs.activation_bytes),
                self.ram_bytes,
            ),
        }
        notes
    }

    /// True where weights and activations fit.
    pub fn holds(&self, needs: Needs) -> bool {
        self.limits(needs).is_empty()
    }

    fn single(&self) -> Vec<String> {
        match self.fp32 {
            Floats::None => vec![format!(
                "{} has no unit for floats: each operation is a library call of tens of cycles; \
                 INT8 is what runs there",
                self.name
            )],
            _ => Vec::new(),
        }
    }

    fn halves(&self, name: &str, unit: Floats) -> String {
        let target = &self.name;
        match (unit, self.fp32) {
            (Floats::Compute, _) => format!("{target} computes {name} in hardware"),
            (_, Floats::None) => format!(
                "{target} has no unit for floats: {name} halves the weights, saves no RAM, and both \
                 conversion and arithmetic are library calls; INT8 is what runs there"
            ),
            (Floats::Convert, _) => format!(
                "{target} emulates {name}: it halves the weights, saves no RAM, and each number \
                 read costs a conversion to f32, so that it is slower than f32"
            ),
            (Floats::None, _) => format!(
                "{target} emulates {name} in software: it halves the weights, saves no RAM, and each \
                 number read costs a library conversion to f32, so that it is much slower than f32"
            ),
        }
    }

    fn float8(&self) -> String {
        let target = &self.name;
        match self.fp8 {
            Floats::Compute => format!("{target} multiplies FP8 in hardware"),
            Floats::Convert => {
                format!("{target} converts FP8 and has no FP8 arithmetic: it saves memory alone")
            }
            Floats::None => format!(
                "{target} has no FP8: it saves the memory of weights alone, and each is converted in \
                 software"
            ),
        }
    }

    fn bytes(&self, reduced: bool) -> Vec<String> {
        let target = &self.name;
        let mut notes = vec![match (self.int8.dot_product, self.fp32) {
            (true, _) => format!("{target} has 8-bit dot products: INT8 runs at its best"),
            (false, Floats::None) => format!(
                "{target} has no 8-bit dot product, and no unit for floats: INT8 is far faster than f32"
            ),
            (false, _) => format!(
                "{target} has no 8-bit dot product: INT8 runs through 16-bit multiplies, about twice \
                 the rate of f32 at most"
            ),
        }];
        if self.int8.pair_sums == PairSums::Saturate && !reduced {
            notes.push(
                "runtimes that add u8×s8 products in 16 bits (ONNX Runtime without VNNI) may \
                 saturate and lose accuracy there: use `quantize --reduce-range`, or its session \
                 option session.x64quantprecision=1; the kernels here are exact"
                    .into(),
            );
        }
        notes
    }

    fn nibbles(&self) -> String {
        let target = &self.name;
        match self.int4 {
            Nibbles::Hardware => format!("{target} multiplies 4-bit integers in hardware"),
            Nibbles::Unpack => format!(
                "{target} unpacks 4-bit weights in software: they save memory and its bandwidth, and \
                 no arithmetic"
            ),
            Nibbles::None => format!("{target} takes no 4-bit weights"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::NPU;
    use super::*;

    fn target(replace: &[(&str, &str)]) -> Target {
        let text = replace
            .iter()
            .fold(NPU.to_owned(), |t, (from, to)| t.replace(from, to));
        Target::parse("t", &text).unwrap()
    }

    fn needs(precision: &'static str, weight_bytes: u64, activation_bytes: u64) -> Needs {
        Needs {
            precision,
            reduced: false,
            weight_bytes,
            activation_bytes,
        }
    }

    #[test]
    fn fp8_is_of_what_hardware_has_it() {
        let note = |fp8: &str| {
            let with = format!("bf16 = \"none\"\nfp8 = \"{fp8}\"\n");
            let t = target(&[("bf16 = \"none\"\n", &with)]);
            t.notes(needs("fp8", 0, 0)).remove(0)
        };
        assert_eq!(note("compute"), "npu multiplies FP8 in hardware");
        assert!(note("none").starts_with("npu has no FP8"));
        let absent = target(&[]).notes(needs("fp8", 0, 0));
        assert_eq!(absent, [note("none")]);
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_so() {
        let t = target(&[]);
        assert!(t.holds(needs("int8", 2000, 1000)));
        let notes = t.notes(needs("int8", 2001, 1001));
        let over = notes.iter().filter(|n| n.contains("does not fit")).count();
        assert_eq!(over, 2);
    }

    #[test]
    fn without_flash_weights_lie_in_ram() {
        let t = target(&[("flash_bytes = 2000\n", "")]);
        assert!(t.holds(needs("int8", 400, 600)));
        assert!(!t.holds(needs("int8", 401, 600)));
    }

    #[test]
    fn fp16_is_told_to_be_emulated_where_it_is() {
        let note = |fp32: &str, fp16: &str| {
            let t = target(&[
                ("fp32 = \"none\"", &format!("fp32 = \"{fp32}\"")),
                ("fp16 = \"none\"", &format!("fp16 = \"{fp16}\"")),
            ]);
            t.notes(needs("fp16", 0, 0)).remove(0)
        };
        assert!(note("compute", "convert").contains("saves no RAM"));
        assert!(note("compute", "none").contains("library conversion"));
        assert!(note("none", "none").contains("library calls"));
        assert!(note("compute", "compute").contains("in hardware"));
    }
}
