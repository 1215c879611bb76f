//! The overflow analysis of floats of fewer bits: its table, and the line that sums it up.

use edgesmith_compress::quantize::changes::{Activations, RangeChange, Ranges};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use crate::ui;

/// Tensors with less room than this factor have a row.
const ROOM: f64 = 4.0;

/// Activations of which a smaller share is lost have none: shares of them are estimates.
const LITTLE: f64 = 1e-4;

/// The tensors that lose something or come near the largest number; `None` where there are none.
pub fn table(ranges: &Ranges) -> Option<String> {
    let mut table = Table::new([
        Column::left("range of"),
        Column::left("is"),
        Column::right("largest"),
        Column::right("room"),
        Column::right("overflow"),
        Column::right("to zero"),
        Column::right("subnormal"),
        Column::left("what"),
    ]);
    let is_told = |r: &&RangeChange| loses(r) || r.headroom.is_some_and(|room| room < ROOM);
    let told: Vec<&RangeChange> = ranges.rows.iter().filter(is_told).collect();
    for r in &told {
        table.row([
            r.name.as_str(),
            if r.is_weight {
                "constant"
            } else {
                "activation"
            },
            &format!("{:.4e}", r.largest),
            &r.headroom.map_or_else(|| "scaled".to_owned(), times),
            &share(r.overflow),
            &share(r.zero),
            &share(r.subnormal),
            if r.kept { "stays" } else { "converted" },
        ]);
    }
    (!told.is_empty()).then(|| table.to_text(&ui::style()))
}

fn loses(r: &RangeChange) -> bool {
    let lost = r.overflow + r.zero + r.subnormal;
    r.overflow > 0.0 || lost > if r.is_weight { 0.0 } else { LITTLE }
}

fn times(room: f64) -> String {
    match room < 0.01 {
        true => format!("{room:.1e}x"),
        false => format!("{}x", format::significant(room, 3)),
    }
}

fn share(x: f64) -> String {
    match x > 0.0 {
        true => format!("{} %", format::significant(100.0 * x, 3)),
        false => format::MISSING.to_owned(),
    }
}

/// One line: how many numbers of converted constants are lost, and how near activations come.
pub fn summary(ranges: &Ranges) -> String {
    let weights = ranges.rows.iter().filter(|r| r.is_weight && !r.kept);
    let weights: Vec<&RangeChange> = weights.collect();
    let numbers: u64 = weights.iter().map(|r| r.numbers).sum();
    let count = |share: fn(&RangeChange) -> f64| {
        let all = weights.iter().map(|r| share(r) * r.numbers as f64);
        format::count(all.sum::<f64>().round() as u64)
    };
    format!(
        "range of {}: of {} numbers in {} constants {} overflow, {} become zero, {} subnormal; {}",
        ranges.format,
        format::count(numbers),
        weights.len(),
        count(|r| r.overflow),
        count(|r| r.zero),
        count(|r| r.subnormal),
        activations(ranges)
    )
}

fn activations(ranges: &Ranges) -> String {
    let rows = || ranges.rows.iter().filter(|r| !r.is_weight);
    match ranges.activations {
        Activations::StayFloat => return "activations stay float".into(),
        Activations::NotLookedAt => {
            return "activations were not looked at, which --calibrate does".into();
        }
        Activations::LookedAt => {}
    }
    let over = rows().filter(|r| r.overflow > 0.0).count();
    let mut line = format!("{} activations, of which {over} overflow", rows().count());
    let room = |r: &RangeChange| r.headroom.unwrap_or(f64::INFINITY);
    let nearest = rows().min_by(|a, b| room(a).total_cmp(&room(b)));
    if let Some(r) = nearest.filter(|r| room(r).is_finite()) {
        line += &format!(", the nearest \"{}\" has {} room", r.name, times(room(r)));
    }
    let most = rows().max_by(|a, b| a.zero.total_cmp(&b.zero));
    if let Some(r) = most.filter(|r| r.zero > 0.0) {
        line += &format!(", most vanish of \"{}\", about {}", r.name, share(r.zero));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, is_weight: bool, headroom: f64, zero: f64) -> RangeChange {
        RangeChange {
            name: name.into(),
            is_weight,
            nodes: Vec::new(),
            numbers: 200,
            largest: 1.0,
            headroom: Some(headroom),
            overflow: 0.0,
            zero,
            subnormal: 0.0,
            kept: false,
        }
    }

    fn ranges(activations: Activations, rows: Vec<RangeChange>) -> Ranges {
        Ranges {
            format: "fp16",
            largest: 65504.0,
            activations,
            rows,
        }
    }

    #[test]
    fn tensors_with_room_have_no_row() {
        let rows = vec![row("w", true, 4.5, 0.0), row("v", true, 1e4, 0.1)];
        let text = table(&ranges(Activations::LookedAt, rows)).unwrap();
        assert!(text.contains("v ") && text.contains("10"), "{text}");
        assert!(!text.contains("4.5"), "{text}");
        let rows = vec![row("w", true, 4.5, 0.0)];
        assert!(table(&ranges(Activations::LookedAt, rows)).is_none());
    }

    #[test]
    fn the_line_says_whether_activations_were_looked_at() {
        let rows = || vec![row("w", true, 1e4, 0.01), row("a", false, 2.5, 0.25)];
        let seen = summary(&ranges(Activations::LookedAt, rows()));
        assert_eq!(
            seen,
            "range of fp16: of 200 numbers in 1 constants 0 overflow, 2 become zero, 0 subnormal; \
             1 activations, of which 0 overflow, the nearest \"a\" has 2.50x room, \
             most vanish of \"a\", about 25.0 %"
        );
        let not = summary(&ranges(Activations::NotLookedAt, Vec::new()));
        assert!(
            not.ends_with("were not looked at, which --calibrate does"),
            "{not}"
        );
    }
}
