//! Finding a value in the layout and width that a kernel wants, adding steps where it is not there.

use edgesmith_ir::{DType, ValueId};
use edgesmith_kernels::convert;
use edgesmith_kernels::permute::permute;

use super::{Form, Kernel, Layout, Planner, SlotId, Spec, Step, StepRow, Work};
use crate::providers::cpu;

/// The order of axes that leads from plain to channels-last, or back.
fn order(rank: usize, to: Layout) -> Vec<usize> {
    match to {
        Layout::Last => [0].into_iter().chain(2..rank).chain([1]).collect(),
        Layout::Plain => [0, rank - 1].into_iter().chain(1..rank - 1).collect(),
    }
}

/// The dimensions as they follow each other in memory.
pub(crate) fn in_memory(dims: &[usize], layout: Layout) -> Vec<usize> {
    match layout {
        Layout::Plain => dims.to_vec(),
        Layout::Last => order(dims.len(), Layout::Last)
            .iter()
            .map(|&a| dims[a])
            .collect(),
    }
}

/// Widens numbers of a narrower type.
fn widen(dtype: DType) -> Option<Kernel> {
    Some(match dtype {
        DType::F16 => Box::new(|ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            convert::from_f16(ctx, x, y);
        }),
        DType::BF16 => Box::new(|ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            convert::from_bf16(ctx, x, y);
        }),
        _ => return None,
    })
}

/// Rounds to a narrower type.
fn narrow(dtype: DType) -> Option<Kernel> {
    Some(match dtype {
        DType::F16 => Box::new(|ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            convert::to_f16(ctx, x, y);
        }),
        DType::BF16 => Box::new(|ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            convert::to_bf16(ctx, x, y);
        }),
        _ => return None,
    })
}

/// True where both layouts are the same bytes.
fn coincide(dims: &[usize]) -> bool {
    dims.len() < 3 || dims[1] <= 1 || dims[2..].iter().product::<usize>() <= 1
}

impl Planner<'_> {
    /// The slot of `v` in `layout`, as its own type; `None` where it is constant, on the heap or
    /// of unknown shape.
    pub fn read(&mut self, v: ValueId, layout: Layout) -> Option<SlotId> {
        let (dtype, dims) = self.typed(v)?;
        if let Some(slot) = *self.places[v.index()].slot(layout, Form::Own) {
            return Some(slot);
        }
        let other = if layout == Layout::Plain {
            Layout::Last
        } else {
            Layout::Plain
        };
        if self.places[v.index()].slot(other, Form::Own).is_none() {
            if let Some(there) = [layout, other].into_iter().find(|&l| self.is_rounded(v, l)) {
                self.unrounded(v, there)?;
                return self.read(v, layout);
            }
            cpu::dequantize::make(self, v, layout)?;
            return *self.places[v.index()].slot(layout, Form::Own);
        }
        let from = (*self.places[v.index()].slot(other, Form::Own))?;
        let slot = self.reordered(v, from, dtype, &dims, layout)?;
        *self.places[v.index()].slot(layout, Form::Own) = Some(slot);
        Some(slot)
    }

    /// Widens what is there in `layout`, rounded to BF16.
    fn unrounded(&mut self, v: ValueId, layout: Layout) -> Option<()> {
        let from = (*self.places[v.index()].slot(layout, Form::Rounded))?;
        let count: usize = self.typed(v)?.1.iter().product();
        let slot = self.slot(4 * count);
        self.add("widen", v, from, slot, widen(DType::BF16)?);
        *self.places[v.index()].slot(layout, Form::Own) = Some(slot);
        Some(())
    }

    fn reordered(
        &mut self,
        v: ValueId,
        from: SlotId,
        dtype: DType,
        dims: &[usize],
        to: Layout,
    ) -> Option<SlotId> {
        if coincide(dims) {
            return Some(from);
        }
        let size = dtype.bits() / 8;
        if !matches!(size, 1 | 2 | 4 | 8) {
            return None;
        }
        let other = if to == Layout::Plain {
            Layout::Last
        } else {
            Layout::Plain
        };
        let (source, axes) = (in_memory(dims, other), order(dims.len(), to));
        let slot = self.slot(dtype.bytes_of(dims.iter().product())?);
        let work: Kernel =
            Box::new(move |ctx, x, y| permute(ctx, size, &source, &axes, x[0], y[0]));
        self.add("reorder", v, from, slot, work);
        Some(slot)
    }

    /// The slot of `v` in `layout` as f32; f16 and bf16 are widened.
    pub fn read_f32(&mut self, v: ValueId, layout: Layout) -> Option<SlotId> {
        let (dtype, dims) = self.typed(v)?;
        if dtype == DType::F32 {
            return self.read(v, layout);
        }
        if let Some(slot) = *self.places[v.index()].slot(layout, Form::Wide) {
            return Some(slot);
        }
        let from = self.read(v, layout)?;
        let slot = self.slot(4 * dims.iter().product::<usize>());
        self.add("widen", v, from, slot, widen(dtype)?);
        *self.places[v.index()].slot(layout, Form::Wide) = Some(slot);
        Some(slot)
    }

    /// The slot of `v` in `layout` for a kernel that takes f32, and BF16 where `rounded`; whether it
    /// is that.
    pub fn read_floats(
        &mut self,
        v: ValueId,
        layout: Layout,
        rounded: bool,
    ) -> Option<(SlotId, bool)> {
        match *self.places[v.index()].slot(layout, Form::Rounded) {
            Some(slot) if rounded => Some((slot, true)),
            _ => Some((self.read_f32(v, layout)?, false)),
        }
    }

    /// Adds a step of the planner's own, which brings `v` from one slot to another.
    pub fn add(&mut self, op: &str, v: ValueId, from: SlotId, to: SlotId, work: Kernel) {
        let row = StepRow {
            name: self.graph().value(v).name.clone(),
            op: op.into(),
            provider: "cpu",
            ..StepRow::default()
        };
        let (reads, writes) = (vec![from], vec![to]);
        self.push(Step {
            work: Work::Kernel(work),
            reads,
            writes,
            row,
            makes: Vec::new(),
            lines: None,
        });
    }

    /// A slot for output `v` in `layout`, in its own type.
    pub fn write(&mut self, v: ValueId, layout: Layout) -> Option<SlotId> {
        let (dtype, dims) = self.typed(v)?;
        let slot = self.slot(dtype.bytes_of(dims.iter().product())?);
        *self.places[v.index()].slot(layout, Form::Own) = Some(slot);
        Some(slot)
    }

    /// Adds the step of node `id` that writes `v` rounded to BF16 in `layout`.
    #[allow(
        clippy::too_many_arguments,
        reason = "what a step does, reads and writes"
    )]
    pub fn step_rounded(
        &mut self,
        id: edgesmith_ir::NodeId,
        nodes: &[edgesmith_ir::NodeId],
        (v, layout): (ValueId, Layout),
        kernel: &'static str,
        reads: Vec<SlotId>,
        work: Kernel,
    ) -> Option<()> {
        let count: usize = self.typed(v)?.1.iter().product();
        let slot = self.slot(2 * count);
        *self.places[v.index()].slot(layout, Form::Rounded) = Some(slot);
        let spec = Spec {
            kernel,
            integer: false,
            reads,
            writes: vec![slot],
            makes: Vec::new(),
            work,
        };
        self.step(id, nodes, spec);
        Some(())
    }

    /// Adds the step of node `id` that writes `v` as f32 in `layout`; a narrower type is rounded
    /// to by a step after it.
    #[allow(
        clippy::too_many_arguments,
        reason = "what a step does, reads and writes"
    )]
    pub fn step_f32(
        &mut self,
        id: edgesmith_ir::NodeId,
        nodes: &[edgesmith_ir::NodeId],
        (v, layout): (ValueId, Layout),
        kernel: &'static str,
        reads: Vec<SlotId>,
        work: Kernel,
    ) -> Option<()> {
        let (dtype, dims) = self.typed(v)?;
        let narrow = match dtype {
            DType::F32 => None,
            _ => Some(narrow(dtype)?),
        };
        let slot = self.slot(4 * dims.iter().product::<usize>());
        let makes = if narrow.is_none() {
            vec![(v, layout)]
        } else {
            Vec::new()
        };
        if narrow.is_none() {
            *self.places[v.index()].slot(layout, Form::Own) = Some(slot);
        }
        let spec = Spec {
            kernel,
            integer: false,
            reads,
            writes: vec![slot],
            makes,
            work,
        };
        self.step(id, nodes, spec);
        if let Some(work) = narrow {
            let to = self.write(v, layout)?;
            self.add("narrow", v, slot, to, work);
            let last = self.steps.last_mut()?;
            last.makes.push((v, to, layout));
        }
        Some(())
    }
}
