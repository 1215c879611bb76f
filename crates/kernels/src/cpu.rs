//! Instruction sets: which there are, which this CPU has, and what it calls itself.

use std::sync::OnceLock;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Portable Rust; the oracle of all others.
    Generic,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit int8 dot product.
    AvxVnni,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 with the int8 dot product.
    Avx512Vnni,
    /// AVX-512 with the int8 dot product, and AMX tiles of int8 and BF16.
    Amx,
    /// 64-bit Arm with NEON.
    Neon,
    /// NEON with the int8 dot product of Armv8.2.
    NeonDot,
    /// NEON with the dot product, and that of unsigned with signed bytes of Armv8.6.
    NeonI8mm,
}

impl Isa {
    /// All of them, best first.
    pub const ALL: [Isa; 9] = [
        Isa::Amx,
        Isa::Avx512Vnni,
        Isa::Avx512,
        Isa::AvxVnni,
        Isa::Avx2,
        Isa::NeonI8mm,
        Isa::NeonDot,
        Isa::Neon,
        Isa::Generic,
    ];

    /// The name used in kernel names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Generic => "generic",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The instruction set called `name`, if there is one.
    pub fn parse(name: &str) -> Option<Isa> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether code for `other` runs on a CPU with `self`.
    pub fn includes(self, other: Isa) -> bool {
        let wide = matches!(self, Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx);
        match other {
            Isa::Generic => true,
            Isa::Avx2 => wide || matches!(self, Isa::Avx2 | Isa::AvxVnni),
            Isa::Avx512 => wide,
            Isa::Avx512Vnni => matches!(self, Isa::Avx512Vnni | Isa::Amx),
            Isa::Neon => matches!(self, Isa::Neon | Isa::NeonDot | Isa::NeonI8mm),
            Isa::NeonDot => matches!(self, Isa::NeonDot | Isa::NeonI8mm),
            _ => self == other,
        }
    }

    /// Whether it has instructions that multiply BF16.
    pub fn multiplies_bf16(self) -> bool {
        self == Isa::Amx
    }

    /// Whether it is one with the int8 dot product in vectors of 64 bytes, and this CPU picks any of 64
    /// bytes at once (AVX-512 VBMI).
    pub(crate) fn picks_bytes(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let vbmi = std::arch::is_x86_feature_detected!("avx512vbmi");
        #[cfg(not(target_arch = "x86_64"))]
        let vbmi = false;
        vbmi && self.includes(Isa::Avx512Vnni)
    }

    /// The set whose vectors `n` lanes fill, of those that come with this one.
    pub(crate) fn narrowed(self, n: usize) -> Isa {
        match self {
            Isa::Avx512Vnni | Isa::Amx if n <= 8 && Isa::AvxVnni.available() => Isa::AvxVnni,
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx if n <= 8 => Isa::Avx2,
            _ => self,
        }
    }

    /// Whether this CPU has it.
    pub fn available(self) -> bool {
        available_sets().contains(&self)
    }

    /// The best instruction set of this CPU.
    pub fn detect() -> Isa {
        available_sets()[0]
    }

    /// The best instruction set of this CPU that `cap` includes.
    pub fn detect_capped(cap: Option<Isa>) -> Isa {
        let Some(cap) = cap else {
            return Self::detect();
        };
        *available_sets()
            .iter()
            .find(|isa| cap.includes(**isa))
            .expect("every instruction set includes the generic one")
    }
}

fn available_sets() -> &'static [Isa] {
    static SETS: OnceLock<Vec<Isa>> = OnceLock::new();
    SETS.get_or_init(|| Isa::ALL.into_iter().filter(|isa| probe(*isa)).collect())
}

#[cfg(target_arch = "x86_64")]
fn probe(isa: Isa) -> bool {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c");
    let avx512 =
        avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
    match isa {
        Isa::Generic => true,
        Isa::Avx2 => avx2,
        Isa::AvxVnni => avx2 && has!("avxvnni"),
        Isa::Avx512 => avx512,
        Isa::Avx512Vnni => avx512 && has!("avx512vnni"),
        Isa::Amx => {
            avx512 && has!("avx512vnni") && has!("avx512bf16") && crate::simd::amx::available()
        }
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn probe(isa: Isa) -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    match isa {
        Isa::Generic => true,
        Isa::Neon => has!("neon"),
        Isa::NeonDot => has!("neon") && has!("dotprod"),
        Isa::NeonI8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn probe(isa: Isa) -> bool {
    isa == Isa::Generic
}

/// What a report says about the CPU.
#[derive(Clone, Debug)]
pub struct CpuInfo {
    /// The CPU's own name, or the architecture where it has none.
    pub brand: String,
    /// Names of the instruction sets that kernels can use here, best first.
    pub sets: Vec<&'static str>,
    /// Threads that the system offers.
    pub threads: usize,
}

impl CpuInfo {
    /// Looks at this machine.
    pub fn read() -> Self {
        Self {
            brand: brand(),
            sets: available_sets().iter().map(|isa| isa.name()).collect(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn brand() -> String {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return std::env::consts::ARCH.to_string();
    }
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004 {
        let r = __cpuid(leaf);
        for word in [r.eax, r.ebx, r.ecx, r.edx] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    String::from_utf8_lossy(&bytes)
        .trim_matches(['\0', ' '])
        .to_string()
}

#[cfg(not(target_arch = "x86_64"))]
fn brand() -> String {
    std::env::consts::ARCH.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()), Some(isa));
        }
        assert_eq!(Isa::parse("mmx"), None);
    }

    #[test]
    fn a_cap_is_never_exceeded() {
        for cap in Isa::ALL {
            let isa = Isa::detect_capped(Some(cap));
            assert!(isa.available() && cap.includes(isa));
        }
        assert_eq!(Isa::detect_capped(Some(Isa::Generic)), Isa::Generic);
        assert_eq!(Isa::detect_capped(None), Isa::detect());
    }
}
