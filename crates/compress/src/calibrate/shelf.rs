//! What calibration in segments keeps by name: in stores where there are any, else in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use edgesmith_ir::{DType, Error, Result, Store, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Stores;
use super::stored::{sealed, unsealed, written};

/// Bytes of values that are kept together.
const PART: usize = 8 << 20;

/// Bytes by name.
pub struct Shelf<'a> {
    stores: Option<(&'a dyn Stores, String)>,
    held: RefCell<BTreeMap<String, Bytes>>,
}

impl<'a> Shelf<'a> {
    /// A shelf in `stores`, apart from those of other keys.
    pub fn new(stores: Option<&'a dyn Stores>, key: impl FnOnce() -> String) -> Self {
        Self {
            stores: stores.map(|s| (s, key())),
            held: RefCell::default(),
        }
    }

    /// True where what is put outlasts the run.
    pub fn is_kept(&self) -> bool {
        self.stores.is_some()
    }

    fn store(&self, name: &str) -> Option<Box<dyn Store + 'a>> {
        let (stores, key) = self.stores.as_ref()?;
        Some(stores.store(&format!("{key} {name}")))
    }

    fn put_bytes(&self, name: &str, body: &[u8]) -> Result<()> {
        if let Some(store) = self.store(name) {
            return store.save(&sealed(body));
        }
        let body = Bytes::copy_from_slice(body);
        self.held.borrow_mut().insert(name.to_owned(), body);
        Ok(())
    }

    fn bytes(&self, name: &str) -> Option<Bytes> {
        let Some(store) = self.store(name) else {
            return self.held.borrow().get(name).cloned();
        };
        let bytes = Bytes::from(store.load()?);
        Some(bytes.slice_ref(unsealed(&bytes)?))
    }

    /// Keeps something in the place of what had the name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, name: &str, what: &impl Serialize) -> Result<()> {
        self.put_bytes(name, &written(what)?)
    }

    /// What was kept by that name; `None` where it is not whole, too.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        postcard::from_bytes(&self.bytes(name)?).ok()
    }

    /// As [`Shelf::get`], for the last time in this run: memory does not hold it any longer.
    pub fn take<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let found = self.get(name);
        self.held.borrow_mut().remove(name);
        found
    }

    /// Drops what was kept.
    pub fn forget(&self, name: &str) {
        self.held.borrow_mut().remove(name);
        if let Some(store) = self.store(name) {
            store.forget();
        }
    }

    /// Drops the values of a cut.
    pub fn forget_values(&self, cut: usize, parts: usize) {
        (0..parts).for_each(|part| self.forget(&part_name(cut, part)));
    }

    /// True where all values of a cut are there.
    pub fn has_values(&self, cut: usize, parts: usize) -> bool {
        (0..parts).all(|part| {
            let bytes = self.bytes(&part_name(cut, part));
            bytes.is_some_and(|b| records(&b).is_some())
        })
    }
}

fn part_name(cut: usize, part: usize) -> String {
    format!("cut {cut} part {part}")
}

/// Element type and lengths of each tensor of each record.
type Heads = Vec<Vec<(i32, Vec<usize>)>>;

fn records(bytes: &Bytes) -> Option<VecDeque<Vec<Tensor>>> {
    let (heads, mut rest): (Heads, &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    let mut next = |(dtype, dims): (i32, Vec<usize>)| {
        let dtype = DType::from_onnx(dtype)?;
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let (data, behind) = rest.split_at_checked(dtype.bytes_of(count)?)?;
        rest = behind;
        Tensor::from_bytes(dtype, &dims, bytes.slice_ref(data)).ok()
    };
    let mut record = |heads: Vec<_>| heads.into_iter().map(&mut next).collect();
    heads.into_iter().map(&mut record).collect()
}

/// Keeps the values that cross a cut, a record for each batch.
pub struct Writer<'s> {
    shelf: &'s Shelf<'s>,
    cut: usize,
    heads: Heads,
    data: Vec<u8>,
    parts: usize,
}

impl<'s> Writer<'s> {
    /// Nothing kept yet.
    pub fn new(shelf: &'s Shelf<'s>, cut: usize) -> Self {
        Self {
            shelf,
            cut,
            heads: Vec::new(),
            data: Vec::new(),
            parts: 0,
        }
    }

    /// Adds the values of the next batch.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, record: &[Tensor]) -> Result<()> {
        let head = |t: &Tensor| (t.dtype().onnx(), t.dims().to_vec());
        self.heads.push(record.iter().map(head).collect());
        record.iter().for_each(|t| self.data.extend(&t.bytes()[..]));
        if self.data.len() >= PART {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut body = written(&std::mem::take(&mut self.heads))?;
        body.append(&mut self.data);
        let name = part_name(self.cut, self.parts);
        self.parts += 1;
        self.shelf.put_bytes(&name, &body)
    }

    /// How many parts there are in all.
    ///
    /// # Errors
    /// When the last cannot be written.
    pub fn finish(mut self) -> Result<usize> {
        if !self.heads.is_empty() {
            self.flush()?;
        }
        Ok(self.parts)
    }
}

/// Gives the values that cross a cut, batch by batch.
pub struct Reader<'s> {
    shelf: &'s Shelf<'s>,
    cut: usize,
    part: usize,
    records: VecDeque<Vec<Tensor>>,
}

impl<'s> Reader<'s> {
    /// From the first batch on.
    pub fn new(shelf: &'s Shelf<'s>, cut: usize) -> Self {
        Self {
            shelf,
            cut,
            part: 0,
            records: VecDeque::new(),
        }
    }

    /// The values of the next batch.
    ///
    /// # Errors
    /// When there are none.
    pub fn next(&mut self) -> Result<Vec<Tensor>> {
        if self.records.is_empty() {
            let bytes = self.shelf.bytes(&part_name(self.cut, self.part));
            self.records = bytes.and_then(|b| records(&b)).unwrap_or_default();
            self.part += 1;
        }
        let lost = || Error::io("values between two segments of the calibration are lost");
        self.records.pop_front().ok_or_else(lost)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Stores that stand in memory.
    #[derive(Default)]
    pub struct Memory(pub RefCell<BTreeMap<String, Vec<u8>>>);

    struct One<'a>(&'a Memory, String);

    impl Stores for Memory {
        fn store(&self, key: &str) -> Box<dyn Store + '_> {
            Box::new(One(self, key.to_owned()))
        }
    }

    impl Store for One<'_> {
        fn load(&self) -> Option<Vec<u8>> {
            self.0.0.borrow().get(&self.1).cloned()
        }

        fn save(&self, bytes: &[u8]) -> Result<()> {
            self.0.0.borrow_mut().insert(self.1.clone(), bytes.to_vec());
            Ok(())
        }

        fn forget(&self) {
            self.0.0.borrow_mut().remove(&self.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Memory;
    use super::*;

    fn record(i: usize) -> Vec<Tensor> {
        let floats = Tensor::from_vec(&[2, i], vec![i as f32; 2 * i]).unwrap();
        vec![floats, Tensor::scalar(i as i64)]
    }

    #[test]
    fn values_come_back_in_their_order() {
        let memory = Memory::default();
        for stores in [None, Some(&memory as &dyn Stores)] {
            let shelf = Shelf::new(stores, || "k".into());
            let mut writer = Writer::new(&shelf, 3);
            (0..5).for_each(|i| writer.add(&record(i)).unwrap());
            writer.flush().unwrap();
            (5..7).for_each(|i| writer.add(&record(i)).unwrap());
            assert_eq!(writer.finish().unwrap(), 2);
            assert!(shelf.has_values(3, 2) && !shelf.has_values(3, 3));
            let mut reader = Reader::new(&shelf, 3);
            for i in 0..7 {
                assert_eq!(reader.next().unwrap(), record(i));
            }
            assert!(reader.next().is_err());
            shelf.forget_values(3, 2);
            assert!(!shelf.has_values(3, 1));
        }
    }

    #[test]
    fn what_was_damaged_is_not_there() {
        let memory = Memory::default();
        let shelf = Shelf::new(Some(&memory), || "k".into());
        shelf.put("a", &7u32).unwrap();
        assert_eq!(shelf.get::<u32>("a"), Some(7));
        *memory
            .0
            .borrow_mut()
            .values_mut()
            .next()
            .unwrap()
            .last_mut()
            .unwrap() ^= 1;
        assert_eq!(shelf.get::<u32>("a"), None);
    }
}
