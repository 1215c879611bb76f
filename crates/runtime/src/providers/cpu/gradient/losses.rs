//! SoftmaxCrossEntropyLoss of classes by index, and its gradient.

use edgesmith_ir::error::At;
use edgesmith_ir::{DType, Error, NodeId, Result, ValueId};
use edgesmith_kernels::loss::{self, Classes};

use super::super::operand::{Indices, Operand};
use crate::plan::{Checked, Layout, Planner, SlotId, Spec};

/// What becomes of the losses of rows.
#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

/// Rows of scores, and where their classes are found.
struct Rows {
    layout: Layout,
    count: usize,
    columns: usize,
    labels: Indices,
    weights: Option<Operand>,
    ignored: Option<i64>,
    reduction: Reduction,
    name: String,
}

impl Rows {
    /// Those of a loss or its gradient; the scores are read first.
    fn of(planner: &mut Planner, id: NodeId, reads: &mut Vec<SlotId>) -> Option<Self> {
        let node = planner.graph().node(id);
        let (scores, labels) = (node.input(0)?, node.input(1)?);
        let dims = planner.float_dims(scores)?;
        let columns = *dims.get(1)?;
        let (_, of_labels) = planner.typed(labels)?;
        if dims.contains(&0) || of_labels[..] != [&dims[..1], &dims[2..]].concat() {
            return None;
        }
        let reduction = match node.string("reduction").unwrap_or("mean") {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            _ => return None,
        };
        let layout = if dims.len() == 2 {
            Layout::Plain
        } else {
            Layout::Last
        };
        reads.push(planner.read_f32(scores, layout)?);
        let labels = Indices::of(planner, labels, reads)?;
        let weights = match node.input(2) {
            Some(w) if planner.float_dims(w)? != [columns] => return None,
            Some(w) => Some(Operand::of(planner, w, reads)?),
            None => None,
        };
        Some(Self {
            layout,
            count: of_labels.iter().product(),
            columns,
            labels,
            weights,
            ignored: node.int("ignore_index"),
            reduction,
            name: node.place(),
        })
    }

    /// The class of each row.
    fn classes(&self, x: &[&[u8]]) -> Result<Vec<Option<usize>>> {
        let one = |label: i64| {
            if self.ignored == Some(label) {
                return Ok(None);
            }
            let class = usize::try_from(label).ok().filter(|&c| c < self.columns);
            let found = class.ok_or_else(|| {
                let classes = self.columns;
                Error::invalid(format!("the target {label} is none of {classes} classes"))
            });
            found.map(Some)
        };
        let all: Result<Vec<_>> = self.labels.get(x).into_iter().map(one).collect();
        all.at(|| self.name.clone())
    }
}

fn is_f32(planner: &Planner, v: ValueId) -> bool {
    planner.typed(v).is_some_and(|t| t.0 == DType::F32)
}

/// SoftmaxCrossEntropyLoss.
pub(in super::super) fn cross_entropy(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (y, logs) = (node.output(0)?, node.output(1));
    if !is_f32(planner, y) || logs.is_some_and(|v| !is_f32(planner, v)) {
        return None;
    }
    let mut reads = Vec::new();
    let rows = Rows::of(planner, id, &mut reads)?;
    let to = planner.write(y, Layout::Plain)?;
    let mut makes = vec![(y, Layout::Plain)];
    let of_logs = match logs {
        Some(v) => {
            makes.push((v, rows.layout));
            planner.write(v, rows.layout)?
        }
        None => planner.slot(4 * rows.count * rows.columns),
    };
    let work: Checked = Box::new(move |ctx, x, y| {
        let [to, logs] = y else { return Ok(()) };
        let of_rows = rows.classes(x)?;
        let classes = Classes {
            of_rows: &of_rows,
            weights: rows.weights.as_ref().map(|w| w.get(x)),
        };
        let (scores, logs) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(logs));
        let to: &mut [f32] = bytemuck::cast_slice_mut(to);
        if rows.reduction == Reduction::None {
            loss::cross_entropy(ctx, scores, rows.columns, classes, logs, to);
            return Ok(());
        }
        let mut losses = vec![0.0; rows.count];
        loss::cross_entropy(ctx, scores, rows.columns, classes, logs, &mut losses);
        let mut sum: f64 = losses.into_iter().map(f64::from).sum();
        if rows.reduction == Reduction::Mean {
            sum /= classes.total();
        }
        to.fill(sum as f32);
        Ok(())
    });
    let spec = Spec {
        kernel: "rows",
        integer: false,
        reads,
        writes: vec![to, of_logs],
        makes,
        work: Box::new(|_, _, _| ()),
    };
    planner.checked_step(id, spec, work);
    Some(())
}

/// `SoftmaxCrossEntropyLossGrad(scores, labels, weight, dLoss)`.
pub(super) fn gradient(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (dloss, dx) = (node.input(3)?, node.output(0)?);
    if !is_f32(planner, dx) {
        return None;
    }
    let mut reads = Vec::new();
    let rows = Rows::of(planner, id, &mut reads)?;
    let count: usize = planner.float_dims(dloss)?.iter().product();
    if count != 1 && count != rows.count {
        return None;
    }
    let dloss = Operand::of(planner, dloss, &mut reads)?;
    let (layout, to) = (rows.layout, planner.write(dx, rows.layout)?);
    let work: Checked = Box::new(move |ctx, x, y| {
        let of_rows = rows.classes(x)?;
        let classes = Classes {
            of_rows: &of_rows,
            weights: rows.weights.as_ref().map(|w| w.get(x)),
        };
        let total = match rows.reduction {
            Reduction::Mean => classes.total(),
            Reduction::None | Reduction::Sum => 1.0,
        };
        let factors = dloss.get(x).iter();
        let factors: Vec<f32> = factors.map(|d| (f64::from(*d) / total) as f32).collect();
        let (scores, dx) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        loss::cross_entropy_gradient(ctx, scores, rows.columns, classes, &factors, dx);
        Ok(())
    });
    let spec = Spec {
        kernel: "rows",
        integer: false,
        reads,
        writes: vec![to],
        makes: vec![(dx, layout)],
        work: Box::new(|_, _, _| ()),
    };
    planner.checked_step(id, spec, work);
    Some(())
}
