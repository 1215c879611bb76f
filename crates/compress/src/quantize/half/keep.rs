//! Operators that stay in 32 bits when the rest of a model goes to 16: one row for each.

/// Why an operator stays in 32 bits.
pub struct Keep {
    /// The operator.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Stays only when normalizations are to be kept.
    pub norm: bool,
}

const fn keep(name: &'static str, reason: &'static str) -> Keep {
    Keep {
        name,
        reason,
        norm: false,
    }
}

const fn norm(name: &'static str) -> Keep {
    Keep {
        name,
        reason: "normalizations are kept in 32 bits",
        norm: true,
    }
}

const SUMS: &str = "its sums overflow 16 bits";
const GROWS: &str = "its results overflow 16 bits";
const TYPES: &str = "ONNX defines it without 16-bit floats";
const MAKES: &str = "it makes 32-bit floats by itself";
const CALLS: &str = "its graphs are kept in 32 bits";

/// Every such operator, by name in ASCII order.
pub static KEEP: &[Keep] = &[
    norm("BatchNormalization"),
    keep("Bernoulli", MAKES),
    keep("ConstantOfShape", MAKES),
    keep("CumSum", SUMS),
    keep("DequantizeLinear", MAKES),
    keep("DynamicQuantizeLinear", TYPES),
    keep("Exp", GROWS),
    keep("EyeLike", MAKES),
    norm("GroupNormalization"),
    keep("If", CALLS),
    norm("InstanceNormalization"),
    norm("LayerNormalization"),
    keep("Loop", CALLS),
    keep("NonMaxSuppression", TYPES),
    keep("Pow", GROWS),
    keep("QuantizeLinear", TYPES),
    norm("RMSNormalization"),
    keep("RandomNormal", MAKES),
    keep("RandomNormalLike", MAKES),
    keep("RandomUniform", MAKES),
    keep("RandomUniformLike", MAKES),
    keep("Range", TYPES),
    keep("ReduceL1", SUMS),
    keep("ReduceL2", SUMS),
    keep("ReduceLogSum", SUMS),
    keep("ReduceLogSumExp", SUMS),
    keep("ReduceProd", GROWS),
    keep("ReduceSum", SUMS),
    keep("ReduceSumSquare", SUMS),
    keep("Resize", "its scales have to be in 32 bits"),
    keep("Scan", CALLS),
    keep("Upsample", "its scales have to be in 32 bits"),
];

/// The row of an operator.
pub fn find(op: &str) -> Option<&'static Keep> {
    let i = KEEP.binary_search_by(|k| k.name.cmp(op)).ok()?;
    Some(&KEEP[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_without_repeats() {
        for pair in KEEP.windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
        }
    }
}
