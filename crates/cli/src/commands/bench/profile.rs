//! The profile of a model: the time of each step, set against what this CPU can do at most.

use std::collections::BTreeMap;

use edgesmith_ir::{Model, Result};
use edgesmith_kernels::peak::Peak;
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_runtime::{NodeProfile, Options, Session};
use serde::Serialize;

use crate::measure::{self, Inputs};

/// The steps of a model, and what they are set against.
#[derive(Default, Serialize)]
pub struct Profiled {
    pub nodes: Vec<Node>,
    pub peaks: Vec<Rates>,
}

/// What one thread can do at most.
#[derive(Clone, Copy, Serialize)]
pub struct Rates {
    /// The instruction set.
    pub isa: &'static str,
    /// Multiply-accumulates of f32 in a second.
    pub f32_macs: f64,
    /// Multiply-accumulates of bytes in a second.
    pub int8_macs: f64,
    /// Multiply-accumulates of BF16 in a second, where there are kernels for it.
    pub bf16_macs: Option<f64>,
    /// Bytes read from memory in a second.
    pub bytes: f64,
}

/// One row of the profile.
#[derive(Serialize)]
pub struct Node {
    pub name: String,
    pub op: String,
    pub provider: String,
    pub kernel: String,
    pub integer: bool,
    pub ms: f64,
    pub macs: u64,
    /// Bytes of values and packed weights that it reads and writes.
    pub bytes: u64,
    /// Multiply-accumulates a second in parts of what registers alone allow; without
    /// multiply-accumulates, bytes a second in parts of what is read from memory.
    pub of_peak: Option<f64>,
    /// True where fewer products are multiplied than `macs` says, as by Winograd.
    pub nominal: bool,
}

/// Profiles in a session of its own, so that the clock calls do not touch the latency.
///
/// # Errors
/// When a run fails.
pub fn profile(model: &Model, options: Options, inputs: &Inputs) -> Result<Profiled> {
    let threads = measure::threads(options.threads);
    let best = Isa::detect_capped(options.isa);
    let mut peaks = BTreeMap::new();
    let mut peak = |isa: Isa| {
        let measured = || Rates::of(isa, Peak::measure(&Ctx::new(isa, Threads::new(1))));
        *peaks.entry(isa.name()).or_insert_with(measured)
    };
    peak(best);
    let options = Options {
        profile: true,
        ..options
    };
    let mut session = Session::prepare(model, &options)?;
    let borrowed = measure::borrowed(inputs);
    for _ in 0..3 {
        session.run(&borrowed)?;
    }
    session.reset_profile();
    for _ in 0..10 {
        session.run(&borrowed)?;
    }
    let nodes = session.profile().nodes.into_iter();
    let nodes = nodes.map(|n| {
        let rates = peak(isa_of(&n.kernel).unwrap_or(best));
        node(n, &rates, threads)
    });
    let nodes = nodes.collect();
    Ok(Profiled {
        nodes,
        peaks: peaks.into_values().collect(),
    })
}

impl Rates {
    fn of(isa: Isa, peak: Peak) -> Self {
        Self {
            isa: isa.name(),
            f32_macs: peak.f32_macs,
            int8_macs: peak.int8_macs,
            bf16_macs: peak.bf16_macs,
            bytes: peak.bytes,
        }
    }
}

fn node(n: NodeProfile, rates: &Rates, threads: usize) -> Node {
    let ms = n.ns as f64 / 1e6 / n.calls.max(1) as f64;
    let best = threads as f64
        * match rates.bf16_macs {
            _ if n.macs == 0 => rates.bytes,
            _ if n.integer => rates.int8_macs,
            Some(macs) if n.kernel.contains("-bf16-") => macs,
            _ => rates.f32_macs,
        };
    let work = if n.macs == 0 { n.bytes } else { n.macs };
    // What runs elsewhere is not set against the arithmetic of this CPU.
    let ours = matches!(n.provider.as_str(), "cpu" | "reference");
    Node {
        ms,
        macs: n.macs,
        bytes: n.bytes,
        of_peak: (ours && work > 0 && ms > 0.0).then_some(work as f64 / ms * 1e3 / best),
        nominal: n.kernel.contains("winograd"),
        name: n.name,
        op: n.op,
        provider: n.provider,
        kernel: n.kernel,
        integer: n.integer,
    }
}

/// The instruction set that stands in the name of a kernel, behind the architecture.
fn isa_of(kernel: &str) -> Option<Isa> {
    let (_, rest) = kernel.split_once('-')?;
    let named = |isa: &Isa| {
        let after = rest.strip_prefix(isa.name());
        after.is_some_and(|r| r.starts_with('-'))
    };
    let all = Isa::ALL.into_iter().filter(named);
    all.max_by_key(|isa| isa.name().len())
        .filter(|isa| isa.available())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        isa: "generic",
        f32_macs: 1e9,
        int8_macs: 4e9,
        bf16_macs: Some(2e9),
        bytes: 1e10,
    };

    fn row(kernel: &str, integer: bool, macs: u64) -> Node {
        let n = NodeProfile {
            provider: "cpu".into(),
            kernel: kernel.into(),
            integer,
            macs,
            bytes: 5_000_000,
            ns: 2_000_000,
            calls: 2,
            ..NodeProfile::default()
        };
        node(n, &RATES, 1)
    }

    #[test]
    fn a_step_is_set_against_the_peak_of_what_it_does() {
        assert_eq!(row("generic-f32-4x4", false, 500_000).of_peak, Some(0.5));
        assert_eq!(row("generic-u8i8-4x4", true, 500_000).of_peak, Some(0.125));
        assert_eq!(row("x-amx-bf16-32x32", false, 500_000).of_peak, Some(0.25));
        assert_eq!(row("pool", false, 0).of_peak, Some(0.5));
        assert!(row("x86_64-avx512-winograd", false, 1).nominal);
        assert!(!row("pool", false, 0).nominal);
    }

    #[test]
    fn kernels_name_their_instruction_set() {
        let known = |kernel: &str, isa: Isa| {
            let expected = isa.available().then_some(isa);
            assert_eq!(isa_of(kernel), expected, "{kernel}");
        };
        known("x86_64-avx512-vnni-u8i8-12x32", Isa::Avx512Vnni);
        known("x86_64-avx512-f32-12x32, x86_64-avx2-f32-6x16", Isa::Avx512);
        known("x86_64-amx-u8i8-32x32", Isa::Amx);
        assert_eq!(isa_of("pool"), None);
        assert_eq!(isa_of("quantize-8"), None);
    }
}
