//! Examples with what a teacher makes of them.

use edgesmith_ir::{Error, Model, Result, Store, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::Data;
use edgesmith_train::training::{Fed, Wanted};

use crate::samples::named;

/// Answers are kept where they take at most so many bytes.
const MOST_BYTES: usize = 2 << 30;

/// Examples with the values of a teacher, which runs on each once where its answers stay the
/// same and fit.
pub struct Taught<'a> {
    data: Box<dyn Data + 'a>,
    session: Session,
    inputs: Vec<String>,
    /// The names under which the values are fed.
    names: Vec<String>,
    kept: Option<Kept>,
    store: Option<Box<dyn Store + 'a>>,
    /// Whether examples look the same in every epoch.
    is_steady: bool,
}

/// The answers of examples: for each value, the lengths and numbers of each example.
#[derive(Default)]
struct Kept {
    dims: Vec<Vec<usize>>,
    rows: Vec<Option<Vec<f32>>>,
    missing: usize,
    saved: bool,
}

impl<'a> Taught<'a> {
    /// `fed` are the inputs of the training graph beside those of the model. Where examples are
    /// the same in every epoch (`is_steady`), answers are kept, and in `store` from run to run.
    ///
    /// # Errors
    /// When the teacher cannot be prepared, or has not the values.
    pub fn new(
        data: Box<dyn Data + 'a>,
        teacher: &Model,
        fed: &[Fed],
        (store, is_steady): (Option<Box<dyn Store + 'a>>, bool),
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
        let count = data.count();
        let mut made = Self {
            session: Session::prepare(&teacher, &options)?,
            data,
            inputs,
            names: taught.iter().map(|f| f.name.clone()).collect(),
            kept: is_steady.then(|| Kept {
                dims: Vec::new(),
                rows: vec![None; count],
                missing: count,
                saved: false,
            }),
            store,
            is_steady,
        };
        made.load();
        Ok(made)
    }

    /// Takes over what was kept in the run before.
    fn load(&mut self) {
        let bytes = self.store.as_ref().and_then(|s| s.load());
        let found =
            bytes.and_then(|b| postcard::from_bytes::<(Vec<Vec<usize>>, Vec<Vec<f32>>)>(&b).ok());
        let (Some((dims, rows)), Some(kept)) = (found, &mut self.kept) else {
            return;
        };
        let length: usize = dims.iter().map(|d| d.iter().product::<usize>()).sum();
        let fits = dims.len() == self.names.len()
            && rows.len() == kept.rows.len()
            && rows.iter().all(|r| r.len() == length);
        if fits {
            *kept = Kept {
                dims,
                rows: rows.into_iter().map(Some).collect(),
                missing: 0,
                saved: true,
            };
        }
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
        let length: usize = dims.iter().map(|d| d.iter().product::<usize>()).sum();
        let first = kept.dims.is_empty();
        if (!first && kept.dims != dims) || length.saturating_mul(4 * kept.rows.len()) > MOST_BYTES
        {
            // Lengths differ by batch, or there is too much: the teacher is asked each time.
            self.kept = None;
            return Ok(());
        }
        kept.dims = dims;
        for (at, &i) in samples.iter().enumerate() {
            let mut row = Vec::with_capacity(length);
            for t in answers {
                let each = t.count() / samples.len().max(1);
                row.extend_from_slice(&t.to_f32()?[at * each..][..each]);
            }
            kept.missing -= usize::from(kept.rows[i].is_none());
            kept.rows[i] = Some(row);
        }
        if kept.missing == 0 && !kept.saved {
            kept.saved = true;
            if let Some(store) = &self.store {
                let rows: Vec<&[f32]> = kept.rows.iter().flatten().map(Vec::as_slice).collect();
                let bytes = postcard::to_stdvec(&(&kept.dims, rows));
                let bytes =
                    bytes.map_err(|e| Error::internal(format!("answers cannot be kept: {e}")))?;
                store.save(&bytes)?;
            }
        }
        Ok(())
    }
}

impl Data for Taught<'_> {
    fn count(&self) -> usize {
        self.data.count()
    }

    fn lengths(&self) -> Result<Option<Vec<usize>>> {
        self.data.lengths()
    }

    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>> {
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
                if self.is_steady {
                    self.remember(samples, &answers)?;
                }
                answers
            }
        };
        fed.extend(self.names.iter().cloned().zip(answers));
        Ok(fed)
    }
}
