//! `edgesmith quantize --to int4` and its like: weights alone in few bits.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use clap::{ArgMatches, Command as Clap};
use edgesmith_compress::calibrate::{self, Statistics};
use edgesmith_compress::quantize::weight_only::blocks::Scheme;
use edgesmith_compress::quantize::weight_only::{self, Settings, WeightReport, format, method};
use edgesmith_data::Dataset;
use edgesmith_ir::{Error, Model};
use edgesmith_report::format as write;
use edgesmith_report::table::{Column, Table};

use super::super::{flag, option, text};
use crate::ui;

/// The flags of weight-only quantisation.
pub fn args(c: Clap) -> Clap {
    let methods: Vec<&str> = method::METHODS.iter().map(|m| m.name).collect();
    let formats: Vec<&str> = format::FORMATS.iter().map(|f| f.name).collect();
    c.arg(
        option(
            "method",
            "NAME",
            "How weights alone are rounded; with data gptq, else rtn",
        )
        .value_parser(methods),
    )
    .arg(
        option(
            "group",
            "N",
            "Weights alone: numbers that share a scale, or `row`",
        )
        .value_parser(["16", "32", "64", "128", "256", "row"]),
    )
    .arg(
        option(
            "format",
            "NAME",
            "Weights alone: the form in which they are written",
        )
        .value_parser(formats),
    )
    .arg(flag("symmetric", "Weights alone: no zero points"))
    .arg(flag(
        "search-range",
        "Weights alone: ranges narrower than the whole where that costs less",
    ))
    .arg(flag(
        "act-order",
        "GPTQ: columns in the order of their share in the inputs",
    ))
    .arg(
        option(
            "damping",
            "SHARE",
            "GPTQ: what is added to the diagonal, as a share of its mean",
        )
        .value_parser(clap::value_parser!(f64)),
    )
    .arg(flag("double-quantize", "NF4: the scales in 8 bits too"))
    .arg(flag(
        "keep-embeddings",
        "Weights alone: tables stay in float",
    ))
}

/// The settings that the flags ask for; `None` where they ask for activations of few bits too.
pub fn settings(matches: &ArgMatches, exclude: &[String]) -> Result<Option<Settings>> {
    let named = matches.get_one::<String>("method");
    let bits = match (text(matches, "to"), named.map(String::as_str)) {
        ("int4" | "nf4", _) => 4,
        ("int3", _) => 3,
        ("int2", _) => 2,
        ("int8", Some(_)) => 8,
        (_, None) => return Ok(None),
        (to, Some(_)) => {
            return Err(
                Error::usage(format!("--method rounds weights to integers, not to {to}")).into(),
            );
        }
    };
    let name = match (named, text(matches, "to"), matches.contains_id("calibrate")) {
        (_, "nf4", _) => "nf4",
        (Some(name), ..) => name,
        (None, _, true) => "gptq",
        (None, _, false) => "rtn",
    };
    let method = method::find(name).unwrap_or(&method::RTN);
    let default = Settings::new(method, bits);
    let group = match matches.get_one::<String>("group").map(String::as_str) {
        None => default.scheme.group,
        Some("row") => 0,
        Some(n) => n.parse()?,
    };
    let form = matches.get_one::<String>("format");
    Ok(Some(Settings {
        format: form.and_then(|f| format::find(f)).unwrap_or(default.format),
        scheme: Scheme {
            bits,
            group,
            symmetric: matches.get_flag("symmetric"),
        },
        search_range: matches.get_flag("search-range"),
        act_order: matches.get_flag("act-order"),
        damping: matches
            .get_one("damping")
            .copied()
            .unwrap_or(default.damping),
        double_quantize: matches.get_flag("double-quantize"),
        embeddings: !matches.get_flag("keep-embeddings"),
        exclude: exclude.to_vec(),
        ..default
    }))
}

/// XᵀX of what weights multiply, where the method asks for it.
pub fn statistics(
    matches: &ArgMatches,
    original: &Model,
    basic: &Model,
    settings: &Settings,
) -> Result<Option<Statistics>> {
    let Some(path) = matches.get_one::<String>("calibrate") else {
        if settings.method.needs_data {
            let message = format!("{} needs --calibrate CALIB.npz", settings.method.name);
            return Err(Error::usage(message)
                .hint("an npz with an array for each input, 100 to 500 samples; or --method rtn, hqq, nf4")
                .into());
        }
        return Ok(None);
    };
    let samples = Dataset::open(Path::new(path), original)?;
    let wanted = calibrate::Settings {
        samples: matches.get_one("samples").copied(),
        only: Some(BTreeSet::new()),
        grams: weight_only::grams(&basic.graph, settings),
        ..calibrate::Settings::default()
    };
    let statistics = calibrate::calibrate(basic, &samples, &wanted, &ui::Bar::default())?;
    for warning in &statistics.warnings {
        ui::say(&format!("warning: {warning}"));
    }
    Ok(Some(statistics))
}

/// The table of weights: how many bits, and what was lost.
pub fn explain(reports: &[WeightReport]) -> String {
    let mut table = Table::new([
        Column::left("weight"),
        Column::right("outputs x inputs"),
        Column::right("bits"),
        Column::right("SQNR dB"),
        Column::right("output error"),
        Column::right("of rounding"),
    ]);
    let share = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.3e}"));
    for r in reports {
        table.row([
            r.weight.as_str(),
            &format!("{} x {}", r.dims[0], r.dims[1]),
            &format!("{:.3}", r.bits),
            &format!("{:.1}", r.sqnr_db),
            &share(r.output_error),
            &share(r.output_error_of_rounding),
        ]);
    }
    table.to_text(&ui::style())
}

/// One line: true bits for each weight, and the error beside that of rounding.
pub fn summary(settings: &Settings, reports: &[WeightReport]) -> String {
    let count = |r: &WeightReport| (r.dims[0] * r.dims[1]) as f64;
    let numbers: f64 = reports.iter().map(count).sum();
    let bits = reports.iter().map(|r| r.bits * count(r)).sum::<f64>() / numbers;
    let ratios: Vec<f64> = reports
        .iter()
        .filter_map(|r| {
            Some((r.output_error? / r.output_error_of_rounding?.max(f64::MIN_POSITIVE)).ln())
        })
        .collect();
    let mut line = format!(
        "weights only, {} as {}: {bits:.3} bits for each of {} weights",
        settings.method.name,
        settings.format.name,
        write::count(numbers as u64),
    );
    if !ratios.is_empty() {
        let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
        line += &format!("; squared output error {mean:.3} of that of rounding (geometric mean)");
    }
    line
}
