//! Compares the rules for ranges on calibration data alone: ranges from the first half of the
//! samples, the SQNR of the INT8 outputs on the second half. No test data and no labels.
//!
//! `cargo run --release -p edgesmith-compress --example choose_ranges -- MODEL.onnx CALIB.npz …`

#![allow(clippy::print_stdout, reason = "it is a program to be looked at")]

use std::path::Path;

use edgesmith_compress::calibrate::observers::{MIN_MAX, MSE, Observer, PERCENTILE, Tuning};
use edgesmith_compress::calibrate::{self, Statistics, calibrate};
use edgesmith_compress::quantize::int8;
use edgesmith_compress::{Batch, Samples, evaluate};
use edgesmith_data::Dataset;
use edgesmith_ir::{Error, Model, NoProgress, Result};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};

/// The rules, by the name that is printed.
static RULES: &[(&str, &Observer, f64)] = &[
    ("min-max", &MIN_MAX, 1.0),
    ("percentile", &PERCENTILE, 1.0),
    ("mse x1", &MSE, 1.0),
    ("mse x2", &MSE, 2.0),
    ("mse x3", &MSE, 3.0),
    ("mse x5", &MSE, 5.0),
    ("mse x10", &MSE, 10.0),
    ("mse x30", &MSE, 30.0),
];

/// The samples from `start` on.
struct Rest<'a> {
    set: &'a Dataset,
    start: usize,
}

impl Samples for Rest<'_> {
    fn count(&self) -> usize {
        self.set.len() - self.start
    }

    fn batches(&self, _: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let shifted = |batch: Result<Batch>| match batch {
            Ok((range, _)) if range.start < self.start => None,
            Ok((range, t)) => Some(Ok((range.start - self.start..range.end - self.start, t))),
            Err(e) => Some(Err(e)),
        };
        Box::new(self.set.batches(1).filter_map(shifted))
    }
}

fn main() -> Result<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() || !files.len().is_multiple_of(2) {
        return Err(Error::usage("give pairs of MODEL.onnx and CALIB.npz"));
    }
    for pair in files.chunks(2) {
        let model = edgesmith_formats::read(Path::new(&pair[0]))?;
        let set = Dataset::open(Path::new(&pair[1]), &model)?;
        println!("{}: {} samples, half for ranges", pair[0], set.len());
        let mut basic = model.clone();
        optimize(&mut basic, Level::Basic, &RunOptions::default())?;
        let half = calibrate::Settings {
            samples: Some(set.len() / 2),
            ..calibrate::Settings::default()
        };
        let statistics = calibrate(&basic, &set, &half, &NoProgress)?;
        let rest = Rest {
            start: set.len() / 2,
            set: &set,
        };
        for (name, observer, clip_weight) in RULES {
            let (sqnr, agreement) = measure(&basic, &statistics, observer, *clip_weight, &rest)?;
            println!("  {name:<12} {sqnr:6.2} dB  top-1 agreement {agreement:.4}");
        }
    }
    Ok(())
}

/// The SQNR in dB of the INT8 outputs and the share of equal first places.
fn measure(
    model: &Model,
    statistics: &Statistics,
    observer: &'static Observer,
    clip_weight: f64,
    rest: &Rest,
) -> Result<(f64, f64)> {
    let settings = int8::Settings {
        observer,
        tuning: Tuning {
            clip_weight,
            ..Tuning::default()
        },
        ..int8::Settings::default()
    };
    let (quantized, _) = int8::quantize(model, statistics, &settings)?;
    let options = Options::default();
    let mut float = Session::prepare(model, &options)?;
    let mut bytes = Session::prepare(&quantized, &options)?;
    let f = evaluate::fidelity(&mut float, &mut bytes, rest, 1, &NoProgress)?;
    Ok((
        f.sqnr_db,
        f.agreement.0 as f64 / f.agreement.1.max(1) as f64,
    ))
}
