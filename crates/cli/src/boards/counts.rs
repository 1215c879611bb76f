//! What the plugin of QEMU wrote: instructions by inference, by mark and by block.

use edgesmith_ir::{Error, Result};

/// The counts of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions of each inference.
    pub inferences: Vec<u64>,
    /// Instructions before each mark since the one before it.
    pub marks: Vec<u64>,
    /// Where a block of instructions begins, and how many of it were executed.
    pub blocks: Vec<(u64, u64)>,
}

impl Counts {
    /// Reads the plugin's file.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn read(text: &str) -> Result<Self> {
        let mut counts = Self::default();
        let mut is_whole = false;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
            match (words[0], number(1)) {
                ("invoke", Some(n)) => counts.inferences.push(n),
                ("mark", Some(n)) => counts.marks.push(n),
                ("total", Some(_)) => is_whole = true,
                ("block", _) => {
                    let at = words.get(1).and_then(|w| u64::from_str_radix(w, 16).ok());
                    if let (Some(at), Some(each), Some(times)) = (at, number(2), number(3)) {
                        counts.blocks.push((at, each * times));
                    }
                }
                _ => {}
            }
        }
        match is_whole {
            true => Ok(counts),
            false => Err(Error::internal(
                "the emulator's counts of instructions are not whole",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind_are_read_and_a_cut_file_is_refused() {
        let text = "mark 3\nmark 10\ninvoke 15\nblock 1f0 4 100\ntotal 99\n";
        let expected = Counts {
            inferences: vec![15],
            marks: vec![3, 10],
            blocks: vec![(0x1f0, 400)],
        };
        assert_eq!(Counts::read(text).unwrap(), expected);
        assert!(Counts::read("invoke 15\n").is_err());
    }
}
