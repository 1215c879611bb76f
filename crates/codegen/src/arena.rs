//! Where buffers lie in the arena: as those that live together do not meet, but for what a step may
//! write over what it reads.

use edgesmith_ir::random::Random;

/// How what a step makes may lie over what it reads for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// At the same address.
    Same,
    /// At so many bytes before it, or more: writes stay behind reads.
    Behind(usize),
}

/// A buffer to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Bytes.
    pub size: usize,
    /// The first and the last step during which it is alive.
    pub live: (usize, usize),
    /// Its offset is a multiple of this.
    pub align: usize,
}

/// What may lie over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The block that is read.
    pub read: usize,
    /// The block that is written.
    pub write: usize,
    /// How the second may lie over the first.
    pub overlap: Overlap,
}

/// Offsets of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// Of each block, in bytes.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub bytes: usize,
    /// The most bytes that one step needs: no arena for these blocks and pairs is smaller.
    pub bound: usize,
    /// The most bytes alive at one step where nothing lies over anything: what a plan without pairs
    /// cannot be below.
    pub apart: usize,
    /// The step that needs the most.
    pub peak: usize,
    /// The strategy that found it.
    pub strategy: &'static str,
}

/// Orders that are tried by chance after those of the strategies.
pub(crate) const TRIES: usize = 4000;

impl Arena {
    /// The smallest that is found: blocks are placed one by one at the lowest offset that is free, in
    /// the order of several strategies and then in orders that chance makes of the best one (hill
    /// climbing, by a fixed seed), until the bound is met.
    pub fn new(blocks: &[Block], pairs: &[Pair]) -> Self {
        Self::with(blocks, pairs, TRIES)
    }

    /// The same with so many orders by chance.
    pub(crate) fn with(blocks: &[Block], pairs: &[Pair], tries: usize) -> Self {
        let plan = Plan::new(blocks, pairs);
        let (bound, peak) = plan.bound(true);
        let (apart, _) = plan.bound(false);
        let mut best: Option<(usize, Vec<usize>, Vec<usize>, &'static str)> = None;
        for (name, order) in plan.orders() {
            let (bytes, offsets) = plan.place(&order);
            if best.as_ref().is_none_or(|b| bytes < b.0) {
                best = Some((bytes, offsets, order, name));
            }
        }
        let (mut bytes, mut offsets, mut order, mut strategy) = best.unwrap_or_default();
        let mut random = Random::new(1);
        for _ in 0..tries {
            if bytes <= bound || blocks.len() < 2 {
                break;
            }
            let mut other = order.clone();
            let from = random.below(other.len());
            let moved = other.remove(from);
            other.insert(random.below(order.len()), moved);
            let (found, places) = plan.place(&other);
            if found <= bytes {
                if found < bytes {
                    strategy = "hill climbing";
                }
                (bytes, offsets, order) = (found, places, other);
            }
        }
        Self {
            offsets,
            bytes,
            bound,
            apart,
            peak,
            strategy,
        }
    }
}

/// Blocks with what may lie over what.
struct Plan<'a> {
    blocks: &'a [Block],
    /// For each block, the pairs that it is in.
    pairs: Vec<Vec<Pair>>,
}

impl<'a> Plan<'a> {
    fn new(blocks: &'a [Block], pairs: &[Pair]) -> Self {
        let mut of: Vec<Vec<Pair>> = vec![Vec::new(); blocks.len()];
        for &pair in pairs {
            of[pair.read].push(pair);
            of[pair.write].push(pair);
        }
        Self { blocks, pairs: of }
    }

    fn steps(&self) -> usize {
        let lasts = self.blocks.iter().map(|b| b.live.1 + 1);
        lasts.max().unwrap_or(0)
    }

    /// The most bytes that a step needs, and the step.
    fn bound(&self, over: bool) -> (usize, usize) {
        let mut most = (0, 0);
        for step in 0..self.steps() {
            let alive = |b: &Block| b.live.0 <= step && step <= b.live.1;
            let mut bytes = 0;
            let mut saved = 0;
            for (i, block) in self.blocks.iter().enumerate().filter(|(_, b)| alive(b)) {
                bytes += block.size;
                if !over || block.live.0 != step {
                    continue;
                }
                let here = self.pairs[i].iter().filter(|p| p.write == i);
                let best = here.map(|p| {
                    let read = self.blocks[p.read].size;
                    let together = match p.overlap {
                        Overlap::Same => read.max(block.size),
                        Overlap::Behind(distance) => (distance + read).max(block.size),
                    };
                    (read + block.size).saturating_sub(together)
                });
                saved += best.max().unwrap_or(0);
            }
            let needed = bytes - saved.min(bytes);
            if needed > most.0 {
                most = (needed, step);
            }
        }
        most
    }

    /// The orders of the strategies, by name.
    fn orders(&self) -> Vec<(&'static str, Vec<usize>)> {
        let by = |key: &dyn Fn(usize) -> (i64, i64)| {
            let mut order: Vec<usize> = (0..self.blocks.len()).collect();
            order.sort_by_key(|&i| (key(i), i));
            order
        };
        let size = |i: usize| -(self.blocks[i].size as i64);
        let first = |i: usize| self.blocks[i].live.0 as i64;
        let last = |i: usize| self.blocks[i].live.1 as i64;
        vec![
            ("by size, later first", by(&|i| (size(i), -first(i)))),
            ("by size", by(&|i| (size(i), first(i)))),
            ("later first", by(&|i| (-last(i), size(i)))),
            ("by first use", by(&|i| (first(i), size(i)))),
            (
                "by area",
                by(&|i| (size(i) * (last(i) - first(i) + 1), -first(i))),
            ),
        ]
    }

    /// Bytes and offsets where blocks are placed in this order.
    fn place(&self, order: &[usize]) -> (usize, Vec<usize>) {
        let mut offsets = vec![0; self.blocks.len()];
        let mut placed: Vec<usize> = Vec::with_capacity(order.len());
        let mut bytes = 0;
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for &i in order {
            let block = &self.blocks[i];
            if block.size == 0 {
                continue;
            }
            taken.clear();
            for &other in &placed {
                taken.extend(self.taken(i, other, &offsets));
            }
            let mut at = 0usize;
            while let Some(&(_, until)) = taken.iter().find(|t| t.0 <= at && at < t.1) {
                at = until.next_multiple_of(block.align);
            }
            offsets[i] = at;
            bytes = bytes.max(at + block.size);
            placed.push(i);
        }
        (bytes, offsets)
    }

    /// Offsets, from and until, at which block `i` may not begin because of `other`.
    fn taken(&self, i: usize, other: usize, offsets: &[usize]) -> Vec<(usize, usize)> {
        let (block, placed) = (&self.blocks[i], &self.blocks[other]);
        if block.live.1 < placed.live.0 || placed.live.1 < block.live.0 {
            return Vec::new();
        }
        let at = offsets[other];
        let (from, until) = ((at + 1).saturating_sub(block.size), at + placed.size);
        let pair = self.pairs[i]
            .iter()
            .find(|p| (p.read == i && p.write == other) || (p.write == i && p.read == other));
        match pair {
            None => vec![(from, until)],
            Some(pair) => match pair.overlap {
                // Around the one place.
                Overlap::Same => vec![(from, at), (at + 1, until)],
                // What is written ends before what is read, and by the distance at least.
                Overlap::Behind(distance) if pair.write == i => {
                    vec![(from.max((at + 1).saturating_sub(distance)), until)]
                }
                Overlap::Behind(distance) => vec![(from, until.min(at + distance))],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: usize, first: usize, last: usize) -> Block {
        Block {
            size,
            live: (first, last),
            align: 4,
        }
    }

    /// Panics where two blocks meet that may not.
    fn check(blocks: &[Block], pairs: &[Pair], arena: &Arena) {
        for (i, a) in blocks.iter().enumerate() {
            assert!(arena.offsets[i].is_multiple_of(a.align));
            assert!(arena.offsets[i] + a.size <= arena.bytes);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                let together = a.live.0 <= b.live.1 && b.live.0 <= a.live.1;
                let (x, y) = (arena.offsets[i], arena.offsets[j]);
                let apart = x + a.size <= y || y + b.size <= x;
                let pair = pairs
                    .iter()
                    .find(|p| (p.read, p.write) == (i, j) || (p.read, p.write) == (j, i));
                let allowed = pair.is_some_and(|p| match p.overlap {
                    Overlap::Same => x == y,
                    Overlap::Behind(d) => arena.offsets[p.write] + d <= arena.offsets[p.read],
                });
                assert!(!together || apart || allowed || a.size == 0 || b.size == 0);
            }
        }
        assert!(arena.bound <= arena.bytes);
    }

    #[test]
    fn a_chain_in_place_takes_one_buffer() {
        let blocks = [block(8000, 0, 1), block(8000, 1, 2), block(8000, 2, 3)];
        let pairs = [
            Pair {
                read: 0,
                write: 1,
                overlap: Overlap::Same,
            },
            Pair {
                read: 1,
                write: 2,
                overlap: Overlap::Behind(0),
            },
        ];
        let arena = Arena::new(&blocks, &pairs);
        check(&blocks, &pairs, &arena);
        assert_eq!((arena.bytes, arena.bound, arena.apart), (8000, 8000, 16000));
    }

    #[test]
    fn what_is_written_stays_behind_what_is_read() {
        let blocks = [block(1000, 0, 1), block(1000, 1, 2)];
        let pairs = [Pair {
            read: 0,
            write: 1,
            overlap: Overlap::Behind(100),
        }];
        let arena = Arena::new(&blocks, &pairs);
        check(&blocks, &pairs, &arena);
        assert_eq!((arena.bytes, arena.bound), (1100, 1100));
    }

    #[test]
    fn nothing_meets_that_may_not() {
        let mut random = Random::new(7);
        for _ in 0..300 {
            let n = 1 + random.below(9);
            let blocks: Vec<Block> = (0..n)
                .map(|i| block(random.below(300), i, i + 1 + random.below(3)))
                .collect();
            let mut pairs = Vec::new();
            for write in 1..n {
                let read = write - 1;
                if blocks[read].live.1 == write && random.below(2) == 0 {
                    let overlap = match random.below(2) {
                        0 => Overlap::Same,
                        _ => Overlap::Behind(random.below(200)),
                    };
                    pairs.push(Pair {
                        read,
                        write,
                        overlap,
                    });
                }
            }
            let arena = Arena::new(&blocks, &pairs);
            check(&blocks, &pairs, &arena);
        }
    }
}
