//! Examples with what a teacher makes of them.

use edgesmith_ir::{Error, Model, Result, Store, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::Data;
use edgesmith_train::training::{Fed, Wanted};

use crate::calibrate::{sealed, unsealed, written};
use crate::samples::named;

/// Answers of so many bytes are kept at most: of all epochs together where each has its own.
const MOST_BYTES: usize = 2 << 30;

/// Where the answers of an epoch are kept from run to run.
pub type Shelf<'a> = dyn Fn(usize) -> Box<dyn Store + 'a> + 'a;

/// Examples with the values of a teacher. It is asked once for each that looks the same in every epoch,
/// and for others once in each epoch; what is on a shelf from runs before is not asked again.
pub struct Taught<'a> {
    data: Box<dyn Data + 'a>,
    session: Session,
    inputs: Vec<String>,
    /// The names under which the values are fed.
    names: Vec<String>,
    kept: Option<Kept>,
    shelf: Option<Box<Shelf<'a>>>,
    /// Whether examples look the same in every epoch.
    is_steady: bool,
    /// Bytes that may still be kept.
    room: usize,
}

/// The answers to the examples of an epoch: for each value, the lengths and numbers of each example.
struct Kept {
    epoch: usize,
    dims: Vec<Vec<usize>>,
    rows: Vec<Option<Vec<f32>>>,
    is_changed: bool,
}

impl Kept {
    fn new(epoch: usize, count: usize) -> Self {
        Self {
            epoch,
            dims: Vec::new(),
            rows: vec![None; count],
            is_changed: false,
        }
    }

    /// The numbers of an example.
    fn length(&self) -> usize {
        let lengths = self.dims.iter().map(|d| d.iter().product::<usize>());
        lengths.sum()
    }

    /// The bytes of all examples.
    fn bytes(&self) -> usize {
        self.length().saturating_mul(4 * self.rows.len())
    }
}

impl<'a> Taught<'a> {
    /// `fed` are the inputs of the training graph beside those of the model. Where examples are
    /// the same in every epoch (`is_steady`), all answers are of epoch 0.
    ///
    /// # Errors
    /// When the teacher cannot be prepared, or has not the values.
    pub fn new(
        data: Box<dyn Data + 'a>,
        teacher: &Model,
        fed: &[Fed],
        (shelf, is_steady): (Option<Box<Shelf<'a>>>, bool),
        threads: usize,
    ) -> Result<Self> {
        let mut teacher = teacher.clone();
        let taught: Vec<&Fed> = fed.iter().filter(|f| f.wanted == Wanted::Teacher).collect();
        let mut outputs = Vec::new();
        for f in &taught {
            let value = teacher.graph.find_value(&f.of);
            outputs.push(
                value.ok_or_else(|| {
                    Error::usage(format!("the teacher has no value \"{}\"", f.of))
                })?,
            );
        }
        teacher.graph.outputs = outputs;
        let inputs = teacher.graph.inputs.iter().map(|&v| teacher.graph.value(v));
        let inputs = inputs
            .filter(|v| v.constant.is_none())
            .map(|v| v.name.clone())
            .collect();
        let options = Options {
            threads,
            ..Options::default()
        };
        Ok(Self {
            session: Session::prepare(&teacher, &options)?,
            data,
            inputs,
            names: taught.iter().map(|f| f.name.clone()).collect(),
            kept: None,
            shelf,
            is_steady,
            room: MOST_BYTES,
        })
    }

    /// Turns to the answers of an epoch, where any are kept; those before are put away.
    fn turn(&mut self, epoch: usize) -> Result<()> {
        let epoch = if self.is_steady { 0 } else { epoch };
        let is_open = self.kept.as_ref().is_some_and(|k| k.epoch == epoch);
        if is_open || self.room == 0 || (!self.is_steady && self.shelf.is_none()) {
            return Ok(());
        }
        self.keep()?;
        if let Some(before) = self.kept.take() {
            self.room = self.room.saturating_sub(before.bytes());
        }
        self.kept = (self.room > 0).then(|| self.load(epoch));
        Ok(())
    }

    /// What was kept of an epoch in runs before.
    fn load(&self, epoch: usize) -> Kept {
        let count = self.data.count();
        let bytes = self.shelf.as_ref().and_then(|s| s(epoch).load());
        let found = bytes.and_then(|b| postcard::from_bytes::<Rows>(unsealed(&b)?).ok());
        let mut kept = Kept::new(epoch, count);
        let Some((dims, rows)) = found else {
            return kept;
        };
        kept.dims = dims;
        let length = kept.length();
        let fits = kept.dims.len() == self.names.len()
            && rows.len() == count
            && rows.iter().flatten().all(|r| r.len() == length);
        match fits {
            true => kept.rows = rows,
            false => kept.dims.clear(),
        }
        kept
    }

    fn ask(&mut self, fed: &[(String, Tensor)]) -> Result<Vec<Tensor>> {
        let own: Vec<(String, Tensor)> = fed
            .iter()
            .filter(|(n, _)| self.inputs.contains(n))
            .cloned()
            .collect();
        self.session.run(&named(&own))
    }

    /// The answers for these examples, out of those that were kept.
    fn remembered(&self, samples: &[usize]) -> Result<Option<Vec<Tensor>>> {
        let Some(kept) = &self.kept else {
            return Ok(None);
        };
        let rows: Option<Vec<&Vec<f32>>> = samples
            .iter()
            .map(|&i| kept.rows.get(i)?.as_ref())
            .collect();
        let Some(rows) = rows.filter(|_| !kept.dims.is_empty()) else {
            return Ok(None);
        };
        let (mut all, mut start) = (Vec::new(), 0);
        for dims in &kept.dims {
            let length: usize = dims.iter().product();
            let data = rows
                .iter()
                .flat_map(|r| r[start..start + length].iter().copied());
            let dims = [&[samples.len()], &dims[..]].concat();
            all.push(Tensor::from_vec(&dims, data.collect::<Vec<f32>>())?);
            start += length;
        }
        Ok(Some(all))
    }

    fn remember(&mut self, samples: &[usize], answers: &[Tensor]) -> Result<()> {
        let Some(kept) = &mut self.kept else {
            return Ok(());
        };
        let dims: Vec<Vec<usize>> = answers.iter().map(|t| t.dims()[1..].to_vec()).collect();
        let is_other = !kept.dims.is_empty() && kept.dims != dims;
        kept.dims = dims;
        if is_other || kept.bytes() > self.room {
            // Lengths differ by batch, or there is too much: the teacher is asked each time.
            self.kept = None;
            self.room = 0;
            return Ok(());
        }
        let length = kept.length();
        for (at, &i) in samples.iter().enumerate() {
            let mut row = Vec::with_capacity(length);
            for t in answers {
                let each = t.count() / samples.len().max(1);
                row.extend_from_slice(&t.to_f32()?[at * each..][..each]);
            }
            kept.rows[i] = Some(row);
        }
        kept.is_changed = true;
        Ok(())
    }
}

/// Answers as they are written.
type Rows = (Vec<Vec<usize>>, Vec<Option<Vec<f32>>>);

impl Data for Taught<'_> {
    fn count(&self) -> usize {
        self.data.count()
    }

    fn lengths(&self) -> Result<Option<Vec<usize>>> {
        self.data.lengths()
    }

    fn name(&self, sample: usize) -> String {
        self.data.name(sample)
    }

    fn keep(&mut self) -> Result<()> {
        if let (Some(kept), Some(shelf)) = (&mut self.kept, &self.shelf)
            && kept.is_changed
        {
            let bytes = sealed(&written(&(&kept.dims, &kept.rows))?);
            shelf(kept.epoch).save(&bytes)?;
            kept.is_changed = false;
        }
        Ok(())
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
        self.turn(epoch)?;
        let mut fed = self.data.batch(samples, epoch)?;
        let answers = match self.remembered(samples)? {
            Some(answers) => answers,
            None => {
                let answers = self.ask(&fed)?;
                if let Some(t) = answers
                    .iter()
                    .find(|t| t.dims().first() != Some(&samples.len()))
                {
                    return Err(Error::unsupported(format!(
                        "the teacher gives {} for {} samples: its values have no batch",
                        t.ty(),
                        samples.len()
                    )));
                }
                self.remember(samples, &answers)?;
                answers
            }
        };
        fed.extend(self.names.iter().cloned().zip(answers));
        Ok(fed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use edgesmith_ir::text;

    use super::*;

    /// Sample i of epoch e is the number 10 e + i.
    struct Numbers;

    impl Data for Numbers {
        fn count(&self) -> usize {
            4
        }

        fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
            let data = samples.iter().map(|i| (10 * epoch + i) as f32);
            let x = Tensor::from_vec(&[samples.len(), 1], data.collect::<Vec<f32>>())?;
            Ok(vec![("x".into(), x)])
        }
    }

    type Files = RefCell<BTreeMap<usize, Vec<u8>>>;

    struct File<'a>(&'a Files, usize);

    impl Store for File<'_> {
        fn load(&self) -> Option<Vec<u8>> {
            self.0.borrow().get(&self.1).cloned()
        }

        fn save(&self, bytes: &[u8]) -> Result<()> {
            self.0.borrow_mut().insert(self.1, bytes.to_vec());
            Ok(())
        }

        fn forget(&self) {}
    }

    /// A teacher that multiplies by a number, and a shelf.
    fn taught(factor: u32, files: &Files, is_steady: bool) -> Taught<'_> {
        let source = format!(
            "opset 17\ngraph t(x: f32[n,1]) -> (y: f32[n,1]) {{\n  c: f32[1] = {{{factor}}}\n  y = Mul(x, c)\n}}\n"
        );
        let fed = Fed {
            name: "teacher/y".into(),
            wanted: Wanted::Teacher,
            of: "y".into(),
        };
        let shelf: Box<Shelf> = Box::new(|epoch| Box::new(File(files, epoch)));
        let teacher = text::parse(&source).unwrap();
        let shelf = (Some(shelf), is_steady);
        Taught::new(Box::new(Numbers), &teacher, &[fed], shelf, 1).unwrap()
    }

    fn answers(taught: &mut Taught, samples: &[usize], epoch: usize) -> Vec<f32> {
        let fed = taught.batch(samples, epoch).unwrap();
        let answer = fed.iter().find(|(n, _)| n == "teacher/y").unwrap();
        answer.1.to_f32().unwrap().into_owned()
    }

    #[test]
    fn answers_are_kept_by_sample_and_epoch_as_far_as_they_are_known() {
        let files = Files::default();
        let mut first = taught(2, &files, false);
        assert_eq!(answers(&mut first, &[3, 1], 0), [6.0, 2.0]);
        assert_eq!(
            answers(&mut first, &[0, 1, 2, 3], 1),
            [20.0, 22.0, 24.0, 26.0]
        );
        first.keep().unwrap();
        // Another teacher tells which answers were kept.
        let mut second = taught(5, &files, false);
        assert_eq!(answers(&mut second, &[1, 3], 0), [2.0, 6.0]);
        assert_eq!(
            answers(&mut second, &[1, 2], 0),
            [5.0, 10.0],
            "2 was not seen"
        );
        assert_eq!(answers(&mut second, &[2, 0], 1), [24.0, 20.0]);
        assert_eq!(answers(&mut second, &[0], 2), [100.0]);
    }

    #[test]
    fn answers_to_what_stays_the_same_are_those_of_one_epoch() {
        let files = Files::default();
        let mut first = taught(2, &files, true);
        assert_eq!(answers(&mut first, &[0, 1], 0), [0.0, 2.0]);
        assert_eq!(answers(&mut first, &[1, 0], 7), [2.0, 0.0], "as in epoch 0");
        first.keep().unwrap();
        let mut second = taught(5, &files, true);
        assert_eq!(answers(&mut second, &[1], 3), [2.0]);
        assert_eq!(files.borrow().len(), 1);
    }

    #[test]
    fn a_shelf_of_something_else_is_not_taken() {
        let files = Files::default();
        files.borrow_mut().insert(0, b"something".to_vec());
        assert_eq!(answers(&mut taught(2, &files, true), &[1], 0), [2.0]);
    }
}
