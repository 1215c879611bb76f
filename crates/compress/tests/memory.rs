//! The peak memory of calibration, by an allocator that counts: alone in its process.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use std::path::Path;

use edgesmith_compress::calibrate::{self, calibrate};
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

#[test]
fn calibration_with_1000_samples_takes_the_memory_of_100() {
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
