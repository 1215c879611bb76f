//! Float operands of a step, computed or constant.

use edgesmith_ir::ValueId;

use crate::plan::{Layout, Planner, SlotId};

/// Where a step finds an operand.
pub(crate) enum Operand {
    /// In the slot read at this place.
    Read(usize),
    /// The same in every run.
    Constant(Vec<f32>),
}

impl Operand {
    /// The operand `v` row-major; what is read is added to `reads`.
    pub fn of(planner: &mut Planner, v: ValueId, reads: &mut Vec<SlotId>) -> Option<Self> {
        Self::in_layout(planner, v, Layout::Plain, reads)
    }

    /// As [`Operand::of`], of what is computed in `layout`; constants are row-major.
    pub fn in_layout(
        planner: &mut Planner,
        v: ValueId,
        layout: Layout,
        reads: &mut Vec<SlotId>,
    ) -> Option<Self> {
        planner.float_dims(v)?;
        if let Some(data) = planner.floats(v) {
            return Some(Self::Constant(data));
        }
        reads.push(planner.read_f32(v, layout)?);
        Some(Self::Read(reads.len() - 1))
    }

    /// The elements, out of what a step reads.
    pub fn get<'a>(&'a self, x: &[&'a [u8]]) -> &'a [f32] {
        match self {
            Self::Read(i) => bytemuck::cast_slice(x[*i]),
            Self::Constant(data) => data,
        }
    }
}

/// Integers of a step, computed or constant.
pub(crate) enum Indices {
    /// 32-bit ones in the slot read at this place.
    I32(usize),
    /// 64-bit ones in the slot read at this place.
    I64(usize),
    /// The same in every run.
    Constant(Vec<i64>),
}

impl Indices {
    /// The integers of `v`; what is read is added to `reads`.
    pub fn of(planner: &mut Planner, v: ValueId, reads: &mut Vec<SlotId>) -> Option<Self> {
        use edgesmith_ir::DType;
        if let Some(t) = planner.constant(v) {
            return t.to_i64().ok().map(Self::Constant);
        }
        let dtype = planner.typed(v)?.0;
        let at = reads.len();
        let found = match dtype {
            DType::I32 => Self::I32(at),
            DType::I64 => Self::I64(at),
            _ => return None,
        };
        reads.push(planner.read(v, Layout::Plain)?);
        Some(found)
    }

    /// The integers, out of what a step reads.
    pub fn get(&self, x: &[&[u8]]) -> Vec<i64> {
        match self {
            Self::I32(i) => {
                let data: &[i32] = bytemuck::cast_slice(x[*i]);
                data.iter().map(|&i| i64::from(i)).collect()
            }
            Self::I64(i) => bytemuck::cast_slice(x[*i]).to_vec(),
            Self::Constant(data) => data.clone(),
        }
    }
}
