//! Damage to the bytes of a file.

use super::evil;
use super::wire::{self, Wire};
use crate::rng::Rng;

/// A damaged copy of a file of protobuf messages: bits, lengths, names, fields.
pub fn mutate(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    match rng.below(10) {
        0 | 1 => flip_bits(seed, rng),
        2 => seed[..rng.below(seed.len())].to_vec(),
        3 => overwrite(seed, rng),
        4 => rename(seed, rng),
        _ => match wire::parse(seed, 0) {
            Some(mut tree) => {
                for _ in 0..1 + rng.below(3) {
                    change_tree(&mut tree, rng);
                }
                wire::encode(&tree)
            }
            None => flip_bits(seed, rng),
        },
    }
}

fn flip_bits(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(8) {
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes
}

/// A number of ten bytes in the middle of the file: a huge length, most often.
fn overwrite(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let at = rng.below(bytes.len());
    let mut huge = vec![0xff; 1 + rng.below(9)];
    huge.push(rng.below(128) as u8);
    let end = (at + rng.below(huge.len() + 1)).min(bytes.len());
    bytes.splice(at..end, huge);
    bytes
}

/// A short text in place of another of its length: values that are made twice, by themselves, by
/// nothing, or in a circle.
fn rename(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let length = 1 + rng.below(3);
    let texts: Vec<usize> = (0..bytes.len().saturating_sub(length + 1))
        .filter(|&i| {
            usize::from(bytes[i]) == length
                && bytes[i + 1..=i + length]
                    .iter()
                    .all(u8::is_ascii_alphanumeric)
        })
        .take(1000)
        .collect();
    if texts.len() < 2 {
        return flip_bits(seed, rng);
    }
    for _ in 0..1 + rng.below(3) {
        let (from, to) = (*rng.pick(&texts), *rng.pick(&texts));
        bytes.copy_within(from + 1..=from + length, to + 1);
    }
    bytes
}

/// Changes, swaps, repeats, drops or nests one field.
fn change_tree(tree: &mut Vec<(u64, Wire)>, rng: &mut Rng) {
    let total = wire::count(tree);
    if total == 0 {
        return;
    }
    let mut other = None;
    wire::change(tree, &mut rng.below(total), &mut |fields, i| {
        other = Some(fields[i].clone());
    });
    let Some(other) = other else { return };
    wire::change(
        tree,
        &mut rng.below(total),
        &mut |fields, i| match rng.below(8) {
            0 => fields[i].1 = other.1.clone(),
            1 => fields.push(other.clone()),
            2 => drop(fields.remove(i)),
            3 => {
                let copies = 1 + rng.below(40);
                fields.extend(std::iter::repeat_n(fields[i].clone(), copies));
            }
            4 => fields[i].0 = 1 + rng.below(26) as u64,
            5 => {
                for _ in 0..rng.below(60) {
                    let inner = fields[i].clone();
                    fields[i].1 = Wire::Message(vec![inner]);
                }
            }
            _ => change_value(&mut fields[i].1, rng),
        },
    );
}

fn change_value(wire: &mut Wire, rng: &mut Rng) {
    match wire {
        Wire::Varint(v) if rng.one_in(2) => *v = evil(rng.below(64)),
        Wire::Varint(v) => *v = rng.below(30) as u64,
        Wire::Fixed(b) => {
            let at = rng.below(b.len());
            b[at] = rng.below(256) as u8;
        }
        Wire::Bytes(b) => b.truncate(rng.below(b.len() + 1)),
        Wire::Message(m) => {
            for (_, w) in m.iter_mut() {
                if let Wire::Varint(v) = w {
                    *v = evil(rng.below(64));
                }
            }
        }
    }
}
