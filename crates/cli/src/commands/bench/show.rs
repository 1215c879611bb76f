//! What was measured, as tables for people.

use edgesmith_report::evidence::Latency;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use super::profile::Profiled;
use super::{Held, Measured};
use crate::measure::cold::Cold;
use crate::measure::sustained;
use crate::ui;

/// One line for a model alone, a table beside peers, and what else was asked for.
pub fn text(all: &[Measured]) -> String {
    let mut parts = Vec::new();
    if let [one] = all
        && one.vs.is_empty()
    {
        parts.push(line(one));
    } else {
        parts.push(comparison(all));
    }
    for one in all {
        parts.extend(one.memory.map(held));
        if !one.profile.nodes.is_empty() {
            parts.push(nodes(&one.profile, one.latency.threads));
        }
        if !one.sustained.is_empty() {
            parts.push(seconds(one));
        }
    }
    parts.join("\n")
}

fn line(one: &Measured) -> String {
    let (l, ms) = (&one.latency, format::ms);
    let mut line = format!(
        "median {}, p90 {}, p99 {}, min {} over {} runs on {}",
        ms(l.p50_ms),
        ms(l.p90_ms),
        ms(l.p99_ms),
        ms(l.min_ms),
        l.iterations,
        format::plural(u64::from(l.threads), "thread")
    );
    if let Some(cold) = &one.cold {
        line += &format!(
            "\ncold start: load {}, first run {}, {} more memory",
            ms(cold.load_ms),
            ms(cold.first_ms),
            memory(cold)
        );
    }
    line
}

/// Ours first, then each peer: `ratio` is our CPU time in parts of the peer's.
fn comparison(all: &[Measured]) -> String {
    let mut table = Table::new([
        Column::left("model"),
        Column::left("engine"),
        Column::right("p50 ms"),
        Column::right("p99 ms"),
        Column::right("CPU ms"),
        Column::right("ratio"),
        Column::right("quartiles"),
        Column::right("cold ms"),
        Column::right("memory"),
        Column::right("apart"),
    ]);
    for one in all {
        let mut row =
            |name: &str, engine: &str, l: &Latency, cold: &Option<Cold>, rest: [&str; 3]| {
                let cpu = l.cpu_p50_ms.map_or_else(missing, format::ms);
                let start = cold.as_ref();
                let start = start.map_or_else(missing, |c| format::ms(c.load_ms + c.first_ms));
                let memory = cold.as_ref().map_or_else(missing, memory);
                let (p50, p99) = (format::ms(l.p50_ms), format::ms(l.p99_ms));
                let [ratio, spread, apart] = rest;
                table.row([
                    name, engine, &p50, &p99, &cpu, ratio, spread, &start, &memory, apart,
                ]);
            };
        let none = [format::MISSING; 3];
        row(
            &short(&one.model),
            "edgesmith",
            &one.latency,
            &one.cold,
            none,
        );
        for peer in &one.vs {
            let ratio = format!("{:.2}", peer.cpu_ratio);
            let spread = format!("{:.2}-{:.2}", peer.spread[0], peer.spread[1]);
            let apart = peer.difference.map_or_else(missing, |d| format!("{d:.1e}"));
            let engine = format!("{} {}", peer.engine, peer.version);
            row(
                "",
                &engine,
                &peer.latency,
                &peer.cold,
                [&ratio, &spread, &apart],
            );
        }
    }
    table.to_text(&ui::style())
}

/// The file without its extension, below the folder that it lies in.
fn short(model: &str) -> String {
    let path = std::path::Path::new(model).with_extension("");
    let parts: Vec<_> = path
        .iter()
        .rev()
        .take(2)
        .filter_map(|p| p.to_str())
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn missing() -> String {
    format::MISSING.into()
}

fn memory(cold: &Cold) -> String {
    cold.peak_bytes.map_or_else(missing, format::bytes)
}

fn held(memory: Held) -> String {
    let [arena, bound, weights] = [memory.arena_bytes, memory.lower_bound, memory.weight_bytes]
        .map(|bytes| format::bytes(bytes as u64));
    format!("arena {arena} (lower bound {bound}), packed weights {weights}")
}

fn nodes(profile: &Profiled, threads: u32) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("provider"),
        Column::left("kernel"),
        Column::right("ms"),
        Column::right("GMAC/s"),
        Column::right("GB/s"),
        Column::right("% of peak"),
    ]);
    for n in &profile.nodes {
        let rate = |work: u64| match work {
            0 => missing(),
            work => format!("{:.1}", work as f64 / n.ms / 1e6),
        };
        let share = n.of_peak.map_or_else(missing, format::percent);
        table.row([
            n.name.as_str(),
            &n.op,
            &n.provider,
            &n.kernel,
            &format!("{:.4}", n.ms),
            &rate(n.macs),
            &rate(n.bytes),
            &if n.nominal {
                format!("{share} *")
            } else {
                share
            },
        ]);
    }
    let mut text = table.to_text(&ui::style());
    for p in &profile.peaks {
        let giga = |rate: f64| format!("{:.1}", rate / 1e9);
        let bf16 = p.bf16_macs.map(|r| format!(", {} of BF16", giga(r)));
        text += &format!(
            "peak of one thread, {}: {} GMAC/s of f32, {} of INT8{}, {} GB/s read from memory\n",
            p.isa,
            giga(p.f32_macs),
            giga(p.int8_macs),
            bf16.unwrap_or_default(),
            giga(p.bytes)
        );
    }
    text += "steps without products are set against reading memory, which a cache outdoes";
    if threads > 1 {
        text += &format!("; peaks count {threads} times");
    }
    if profile.nodes.iter().any(|n| n.nominal) {
        text += "\n* products as the operator says; Winograd multiplies fewer";
    }
    text
}

fn seconds(one: &Measured) -> String {
    let mut table = Table::new([
        Column::right("second"),
        Column::right("inferences/s"),
        Column::right("MHz"),
        Column::right("°C"),
    ]);
    let whole = |x: Option<f64>| x.map_or_else(missing, |x| format!("{x:.0}"));
    for (i, s) in one.sustained.iter().enumerate() {
        table.row([
            (i + 1).to_string(),
            format!("{:.1}", s.rate),
            whole(s.mhz),
            whole(s.celsius),
        ]);
    }
    format!(
        "{}\nthe last fifth ran at {} % of the rate of the first",
        table.to_text(&ui::style()).trim_end(),
        format::percent(sustained::kept(&one.sustained))
    )
}
