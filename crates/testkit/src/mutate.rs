//! Damage to files and models, by random numbers: what hostile ones may look like.

pub mod file;
pub mod model;
pub mod wire;

/// Numbers that programs stumble over: lengths, axes, counts.
const EVIL: [u64; 14] = [
    0,
    1,
    2,
    7,
    0x7f,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// A number that programs stumble over.
pub fn evil(random: usize) -> u64 {
    EVIL[random % EVIL.len()]
}
