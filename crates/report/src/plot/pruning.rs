//! The plots of pruning: what each layer keeps, what each block does, how good tickets are.

use super::epochs::{Curve, Epochs};
use super::rows::{Form, Mark, Row, Rows};
use super::{Figure, MOST_NODES, left_out};
use crate::evidence::{Evidence, Removal, RemovedGroup, Tickets};

/// All of them, in the order of the steps.
pub(super) fn figures(evidence: &Evidence) -> Vec<Figure> {
    let removals = &evidence.removals;
    let names_step = removals.len() > 1;
    let kept = removals
        .iter()
        .flat_map(|r| [kept(r, names_step), blocks(r, names_step)]);
    let tickets = evidence.tickets.iter().map(|t| Some(tickets(t)));
    kept.chain(tickets).flatten().collect()
}

fn of_step(r: &Removal, names_step: bool) -> String {
    match names_step {
        true => format!(" Of the step {}.", r.step),
        false => String::new(),
    }
}

/// The share that each group keeps.
fn kept(r: &Removal, names_step: bool) -> Option<Figure> {
    let mut kinds: Vec<&str> = Vec::new();
    for group in &r.groups {
        if !kinds.contains(&group.kind.as_str()) {
            kinds.push(&group.kind);
        }
    }
    let share = |g: &RemovedGroup| 100.0 * g.after as f64 / g.before.max(1) as f64;
    let mut shown: Vec<usize> = (0..r.groups.len()).collect();
    if shown.len() > MOST_NODES {
        shown.sort_by(|&a, &b| share(&r.groups[a]).total_cmp(&share(&r.groups[b])));
        shown.truncate(MOST_NODES);
        shown.sort_unstable();
    }
    let row = |&i: &usize| {
        let g = &r.groups[i];
        let kind = kinds.iter().position(|k| *k == g.kind).unwrap_or(0);
        let mark = Mark {
            series: kind + 1,
            value: share(g),
            solid: share(g),
            text: format!("{} of {}", g.after, g.before),
            title: format!("{}: {} of {} {} stay", g.name, g.after, g.before, g.kind),
        };
        Row {
            name: g.name.clone(),
            marks: vec![mark],
        }
    };
    let caption = format!(
        "What goes together is one bar, by the layers that make it.{}",
        left_out(shown.len(), r.groups.len(), ["most shortened", "groups"])
    );
    let chart = Rows {
        label: "What each layer keeps",
        axis_label: "kept in %".into(),
        form: Form::Bars { thick: 12.0 },
        names: 156.0,
        after: 76.0,
        rows: shown.iter().map(row).collect(),
    };
    let series = kinds.iter().enumerate();
    (!r.groups.is_empty()).then(|| Figure {
        title: chart.label,
        caption: caption + &of_step(r, names_step),
        svg: chart.draw(),
        series: series.map(|(i, k)| (i + 1, (*k).to_owned())).collect(),
        wide: false,
    })
}

/// How much each block changes what it takes.
fn blocks(r: &Removal, names_step: bool) -> Option<Figure> {
    let names = ["stays", "left out"];
    let row = |b: &crate::evidence::RemovedBlock| {
        let change = b.change.filter(|c| c.is_finite())?;
        let fate = usize::from(b.is_gone);
        let mark = Mark {
            series: fate + 1,
            value: change,
            solid: change,
            text: format!("{change:.4}"),
            title: format!("{} to {}: {change:.4}, {}", b.from, b.to, names[fate]),
        };
        Some(Row {
            name: b.to.clone(),
            marks: vec![mark],
        })
    };
    let rows: Vec<Row> = r.blocks.iter().filter_map(row).collect();
    let chart = Rows {
        label: "What each block does",
        axis_label: "1 − cos of what it takes and gives".into(),
        form: Form::Bars { thick: 12.0 },
        names: 156.0,
        after: 58.0,
        rows,
    };
    let series = names.iter().enumerate();
    (!chart.rows.is_empty()).then(|| Figure {
        title: chart.label,
        caption: "Blocks that change the least go first.".to_owned() + &of_step(r, names_step),
        svg: chart.draw(),
        series: series.map(|(i, n)| (i + 1, (*n).to_owned())).collect(),
        wide: false,
    })
}

/// Right answers by the weights that are left, of tickets and of what they are compared with.
fn tickets(t: &Tickets) -> Figure {
    let levels: Vec<u64> = (0..t.levels()).collect();
    let kinds = t.kinds();
    let is_test = t.runs.iter().all(|r| r.right_on_test.is_some());
    let of = |level: u64, kind: &str| {
        let mean = t.mean(level, kind)?;
        let right = if is_test { mean.test? } else { mean.right };
        Some(right.map(|x| 100.0 * x))
    };
    let curve = |(i, kind): (usize, &&str)| {
        let points = || levels.iter().map(|&level| of(level, kind));
        Curve {
            name: (*kind).to_owned(),
            series: i + 1,
            values: points().map(|p| p.map_or(f64::NAN, |p| p[0])).collect(),
            spread: points().map(|p| p.map_or(0.0, |p| p[1])).collect(),
        }
    };
    let curves: Vec<Curve> = kinds.iter().enumerate().map(curve).collect();
    let left = |level: &u64| {
        let mean = kinds.iter().find_map(|kind| t.mean(*level, kind));
        mean.map_or(String::new(), |m| format!("{:.1}", 100.0 * m.left))
    };
    let data = if is_test { "the test" } else { "validation" };
    let series = curves.iter().map(|c| (c.series, c.name.clone())).collect();
    let chart = Epochs {
        label: "Accuracy by weights left",
        y_label: "right answers in %",
        x_label: "weights left in %",
        places: levels.iter().map(left).collect(),
        curves,
        best: 0,
        text: |v| format!("{v:.2} %"),
        from_zero: false,
    };
    Figure {
        title: chart.label,
        caption: format!(
            "After the last step, on {data}: means of trials, with bars of one standard deviation. Tickets begin with \
             the numbers that they began with, controls with others or with other weights."
        ),
        svg: chart.draw(),
        series,
        wide: false,
    }
}
