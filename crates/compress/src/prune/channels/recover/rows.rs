//! Rows of what a layer reads and gives: the same places of both models, some of each sample.

use edgesmith_ir::geometry::Window;
use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Node, NodeId, Result, Tensor, ValueId};

use crate::calibrate::Mask;

/// Rows of a layer that are looked at, at most.
const MOST: usize = 6144;

/// How a layer takes its input apart.
pub(super) enum Form {
    /// Windows of an image, with a kernel of these lengths.
    Windows(Box<Node>, Vec<usize>),
    /// The last axis; the weight is turned.
    Rows(bool),
    /// Each channel alone: axis 1.
    Channels,
}

/// A layer, what it reads and gives, and which of its outputs stay.
pub(super) struct Site {
    pub node: NodeId,
    pub x: ValueId,
    pub y: ValueId,
    form: Form,
    stay: Option<Vec<usize>>,
}

impl Site {
    pub fn new(
        node: NodeId,
        (x, y): (ValueId, ValueId),
        form: Form,
        stay: Option<Vec<usize>>,
    ) -> Self {
        Self {
            node,
            x,
            y,
            form,
            stay,
        }
    }

    /// True where a row of what it reads is a row of its weight.
    pub fn is_window_or_row(&self) -> bool {
        !matches!(self.form, Form::Channels)
    }

    /// True where its weight is \[inputs, outputs\].
    pub fn is_turned(&self) -> bool {
        matches!(self.form, Form::Rows(false))
    }
}

/// Rows, one after another.
#[derive(Default)]
pub(super) struct Rows {
    pub width: usize,
    pub data: Vec<f32>,
}

/// Which sample of how many.
type Number = (usize, usize);

impl Rows {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    /// Adds what a layer of the dense model gives.
    pub fn add_output(
        &mut self,
        site: &Site,
        t: &Tensor,
        number: Number,
        mask: Option<&Mask>,
        seed: u64,
    ) -> Result<()> {
        let stay = site.stay.as_deref();
        match site.form {
            Form::Rows(_) => self.add_rows(site, t, number, mask, seed, stay),
            Form::Windows(..) | Form::Channels => self.add_pixels(site, t, number, seed, stay),
        }
    }

    /// Adds what a layer of the pruned model reads; where it takes channels alone, what is given.
    pub fn add_own(
        &mut self,
        site: &Site,
        t: &Tensor,
        number: Number,
        mask: Option<&Mask>,
        seed: u64,
    ) -> Result<()> {
        match &site.form {
            Form::Rows(_) => self.add_rows(site, t, number, mask, seed, None),
            Form::Channels => self.add_pixels(site, t, number, seed, None),
            Form::Windows(node, kernel) => self.add_windows(site, t, (node, kernel), number, seed),
        }
    }

    fn start(&mut self, width: usize) -> Result<()> {
        if self.data.is_empty() {
            self.width = width;
        }
        match self.width == width {
            true => Ok(()),
            false => Err(Error::internal("rows of a layer differ in length")),
        }
    }

    fn add_rows(
        &mut self,
        site: &Site,
        t: &Tensor,
        number: Number,
        mask: Option<&Mask>,
        seed: u64,
        stay: Option<&[usize]>,
    ) -> Result<()> {
        let data = t.to_f32()?;
        let width = t.dims().last().copied().unwrap_or(1).max(1);
        let all = data.len() / width;
        let mask = mask
            .and_then(|m| m.of_rows(t.dims()))
            .filter(|m| m.len() == all);
        let rows: Vec<usize> = (0..all).filter(|&r| mask.is_none_or(|m| m[r])).collect();
        self.start(stay.map_or(width, <[usize]>::len))?;
        for at in some(site, rows.len(), number, seed) {
            let row = &data[rows[at] * width..][..width];
            self.push(row.iter().copied(), stay);
        }
        Ok(())
    }

    fn push(&mut self, row: impl Iterator<Item = f32>, stay: Option<&[usize]>) {
        match stay {
            None => self.data.extend(row),
            Some(stay) => {
                let row: Vec<f32> = row.collect();
                self.data.extend(stay.iter().map(|&i| row[i]));
            }
        }
    }

    /// Pixels of all channels.
    fn add_pixels(
        &mut self,
        site: &Site,
        t: &Tensor,
        number: Number,
        seed: u64,
        stay: Option<&[usize]>,
    ) -> Result<()> {
        let (data, dims) = (t.to_f32()?, t.dims());
        let channels = dims.get(1).copied().unwrap_or(1);
        let area: usize = dims.get(2..).unwrap_or_default().iter().product();
        let samples = dims.first().copied().unwrap_or(1);
        self.start(stay.map_or(channels, <[usize]>::len))?;
        for at in some(site, samples * area, number, seed) {
            let first = at / area * channels * area + at % area;
            self.push((0..channels).map(|c| data[first + c * area]), stay);
        }
        Ok(())
    }

    fn add_windows(
        &mut self,
        site: &Site,
        t: &Tensor,
        (node, kernel): (&Node, &[usize]),
        number: Number,
        seed: u64,
    ) -> Result<()> {
        let (data, dims) = (t.to_f32()?, t.dims());
        let (samples, channels) = (dims[0], dims[1]);
        let area: usize = dims[2..].iter().product();
        let window = Window::of(node, &dims[2..], kernel)?;
        let (plane, taps) = (window.output().iter().product::<usize>(), window.taps());
        self.start(channels * taps)?;
        let mut sources = Vec::new();
        let mut row = vec![0.0f32; channels * taps];
        for at in some(site, samples * plane, number, seed) {
            sources.clear();
            window.sources(at % plane, &mut sources);
            row.fill(0.0);
            for c in 0..channels {
                let first = (at / plane * channels + c) * area;
                for &(tap, i) in &sources {
                    row[c * taps + tap] = data[first + i];
                }
            }
            self.data.extend_from_slice(&row);
        }
        Ok(())
    }
}

/// Which of so many places of a sample are looked at: the same of both models.
fn some(site: &Site, all: usize, (number, samples): Number, seed: u64) -> Vec<usize> {
    let wanted = (MOST / samples.max(1)).max(1);
    if all <= wanted {
        return (0..all).collect();
    }
    let place = [seed, 43, site.node.index() as u64, number as u64];
    let mut chosen = Random::of(&place).some(wanted, all);
    chosen.sort_unstable();
    chosen
}
