//! The peak memory of calibration and of rounding, by an allocator that counts: alone in its process.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use std::path::Path;
use std::sync::Mutex;

use edgesmith_compress::calibrate::{self, calibrate};
use edgesmith_compress::quantize::weight_only::{self, method};
use edgesmith_data::Dataset;
use edgesmith_formats::npz;
use edgesmith_ir::{NoProgress, Tensor, text};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const NET: &str = r#"
opset 17
graph net(x: f32[n,3,16,16]) -> (y: f32[n,8,16,16]) {
  w: f32[8,3,1,1] = {0.5,-0.25,1.0,0.75,0.3,0.7,0.1,-0.2,0.4,0.6,-0.9,0.2,0.5,-0.25,1.0,0.75,0.3,0.7,0.1,-0.2,0.4,0.6,-0.9,0.2}
  h = Conv(x, w) {name="c"}
  y = Relu(h) {name="r"}
}
"#;

/// Bytes at the peak of calibrating with the first `count` samples of a file, beyond those before.
fn peak(path: &Path, count: usize) -> usize {
    let model = text::parse(NET).unwrap();
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let set = Dataset::open(path, &model).unwrap();
    let settings = calibrate::Settings {
        only: None,
        samples: Some(count),
        batch: 10,
        threads: 1,
        ..calibrate::Settings::default()
    };
    let statistics = calibrate(&model, &set, &settings, &NoProgress).unwrap();
    assert_eq!(statistics.samples, count as u64);
    ALLOCATED.peak_usage() - before
}

/// One counts at a time.
static COUNTING: Mutex<()> = Mutex::new(());

#[test]
fn a_table_is_rounded_in_less_memory_than_it_takes() {
    let _alone = COUNTING.lock().unwrap();
    let (rows, width) = (16384, 1024);
    let mut model = text::parse("opset 21\ngraph g(i: i64[n]) -> (y) {\n  t: f32[1,1] = {1}\n  y = Gather(t, i) {name=\"t\"}\n}\n").unwrap();
    let data = (0..rows * width).map(|i| (i % 251) as f32 / 125.0 - 1.0);
    let table = Tensor::from_vec(&[rows, width], data.collect()).unwrap();
    let node = model.graph.nodes().next().unwrap().0;
    let v = model.graph.add_constant("table", table);
    model.graph.set_input(node, 0, Some(v));
    let settings = weight_only::Settings::new(&method::RTN, 4);
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let (_, changes) = weight_only::quantize(&model, None, &settings, &NoProgress).unwrap();
    let peak = ALLOCATED.peak_usage() - before;
    assert_eq!(changes.weights.len(), 1);
    assert!(peak < rows * width * 4, "{peak} bytes");
}

#[test]
fn calibration_with_1000_samples_takes_the_memory_of_100() {
    let _alone = COUNTING.lock().unwrap();
    let path = std::env::temp_dir().join(format!("edgesmith-calib-{}.npz", std::process::id()));
    let data = (0..1000 * 768).map(|i| (i % 251) as f32 / 125.0 - 1.0);
    let x = Tensor::from_vec(&[1000, 3, 16, 16], data.collect()).unwrap();
    npz::write(&path, &[("x".into(), x)], false).unwrap();
    let (few, many) = (peak(&path, 100), peak(&path, 1000));
    std::fs::remove_file(&path).unwrap();
    assert!(few > 10_000, "{few} bytes are less than one batch");
    assert!(many <= few + 4096, "{few} bytes at 100, {many} at 1,000");
    assert!(
        many < 768 * 4 * 500,
        "{many} bytes hold half of the samples"
    );
}
