//! Sustained load: throughput, clock and temperature second by second.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edgesmith_ir::{Progress, Result};
use serde::Serialize;

use super::Run;

/// One second under load.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Second {
    /// Inferences in a second.
    pub rate: f64,
    /// Clock of the fastest core in MHz, where the system says it.
    pub mhz: Option<f64>,
    /// Temperature of the hottest zone in °C, where the system says it.
    pub celsius: Option<f64>,
}

/// Runs without a pause for `seconds`.
///
/// # Errors
/// When a run fails or is cancelled.
pub fn sustained(
    run: &mut Run,
    seconds: u64,
    sysfs: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Second>> {
    let sensors = Sensors::find(sysfs);
    let mut rows = Vec::new();
    progress.start("sustained load", seconds);
    for _ in 0..seconds {
        let (started, mut runs) = (Instant::now(), 0u32);
        while runs == 0 || started.elapsed() < Duration::from_secs(1) {
            progress.check()?;
            run()?;
            runs += 1;
        }
        rows.push(Second {
            rate: f64::from(runs) / started.elapsed().as_secs_f64(),
            mhz: largest(&sensors.clocks).map(|khz| khz / 1e3),
            celsius: largest(&sensors.zones).map(|milli| milli / 1e3),
        });
        progress.advance(1);
    }
    progress.finish();
    Ok(rows)
}

/// The rate of the last fifth of the time in parts of that of the first fifth.
pub fn kept(rows: &[Second]) -> f64 {
    let part = rows.len().div_ceil(5);
    let mean = |rows: &[Second]| rows.iter().map(|r| r.rate).sum::<f64>() / rows.len() as f64;
    mean(&rows[rows.len() - part..]) / mean(&rows[..part])
}

/// Files of the system that tell clocks and temperatures.
struct Sensors {
    clocks: Vec<PathBuf>,
    zones: Vec<PathBuf>,
}

impl Sensors {
    fn find(sysfs: &Path) -> Self {
        let each = |folder: &str, start: &str, file: &str| {
            let read = std::fs::read_dir(sysfs.join(folder)).into_iter().flatten();
            let named = read.flatten().filter(|e| {
                let name = e.file_name();
                name.to_str().is_some_and(|n| n.starts_with(start))
            });
            let files = named.map(|e| e.path().join(file));
            files.filter(|f| f.is_file()).collect()
        };
        Self {
            clocks: each("devices/system/cpu", "cpu", "cpufreq/scaling_cur_freq"),
            zones: match each("class/thermal", "thermal_zone", "temp") {
                zones if zones.is_empty() => monitors(sysfs),
                zones => zones,
            },
        }
    }
}

/// Names of the drivers whose temperatures are of the CPU.
const OF_CPU: &[&str] = &[
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "soc_thermal",
];

/// The temperatures of hardware monitors: those of the CPU where there are any.
fn monitors(sysfs: &Path) -> Vec<PathBuf> {
    let read = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.flatten().map(|e| e.path()).collect::<Vec<_>>()
    };
    let (mut of_cpu, mut others) = (Vec::new(), Vec::new());
    for monitor in read(&sysfs.join("class/hwmon")) {
        let name = std::fs::read_to_string(monitor.join("name")).unwrap_or_default();
        let is_input = |f: &PathBuf| {
            let name = f.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.starts_with("temp") && name.ends_with("_input") && f.is_file()
        };
        let inputs = read(&monitor).into_iter().filter(is_input);
        match OF_CPU.contains(&name.trim()) {
            true => of_cpu.extend(inputs),
            false => others.extend(inputs),
        }
    }
    if of_cpu.is_empty() { others } else { of_cpu }
}

/// Seconds out of `60`, `60s`, `2m` or `1h`: a day at most.
///
/// # Errors
/// What is expected instead.
pub fn seconds(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    let seconds = seconds.filter(|s| (1..=86_400).contains(s));
    seconds.ok_or_else(|| "expected a time from 1s to 24h, such as 60, 60s or 2m".into())
}

fn largest(files: &[PathBuf]) -> Option<f64> {
    let read = |f: &PathBuf| std::fs::read_to_string(f).ok()?.trim().parse::<f64>().ok();
    files.iter().filter_map(read).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors_are_read_from_the_given_folder() {
        let root = std::env::temp_dir().join(format!("edgesmith-sysfs-{}", std::process::id()));
        let cpu = root.join("devices/system/cpu/cpu0/cpufreq");
        let zone = root.join("class/thermal/thermal_zone0");
        for folder in [&cpu, &zone] {
            std::fs::create_dir_all(folder).expect("a folder in the temporary folder");
        }
        std::fs::write(cpu.join("scaling_cur_freq"), "2400000\n").expect("a file in it");
        std::fs::write(zone.join("temp"), "61500\n").expect("a file in it");
        let mut run: Run = Box::new(|| Ok(()));
        let rows =
            sustained(&mut run, 1, &root, &edgesmith_ir::progress::NoProgress).expect("it runs");
        assert_eq!((rows[0].mhz, rows[0].celsius), (Some(2400.0), Some(61.5)));
        assert!(rows[0].rate > 0.0);
        std::fs::remove_dir_all(&root).expect("the folder is ours");
    }

    #[test]
    fn monitors_tell_the_temperature_where_there_are_no_zones() {
        let root = std::env::temp_dir().join(format!("edgesmith-hwmon-{}", std::process::id()));
        for (monitor, name, milli) in [("hwmon0", "nvme", "80000"), ("hwmon1", "k10temp", "51500")]
        {
            let folder = root.join("class/hwmon").join(monitor);
            std::fs::create_dir_all(&folder).expect("a folder in the temporary folder");
            std::fs::write(folder.join("name"), format!("{name}\n")).expect("a file in it");
            std::fs::write(folder.join("temp1_input"), milli).expect("a file in it");
            std::fs::write(folder.join("temp1_max"), "99000").expect("a file in it");
        }
        let sensors = Sensors::find(&root);
        assert_eq!(largest(&sensors.zones), Some(51500.0));
        std::fs::remove_dir_all(&root).expect("the folder is ours");
    }

    #[test]
    fn a_time_is_in_seconds_unless_it_says_otherwise() {
        for (text, expected) in [("60", 60), ("60s", 60), ("2m", 120), ("1h", 3600)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "0s",
            "s",
            "1.5s",
            "-3",
            "2d",
            "25h",
            "9999999999999999999m",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_compares_the_end_with_the_start() {
        let row = |rate| Second {
            rate,
            mhz: None,
            celsius: None,
        };
        let rows: Vec<Second> = [10.0, 9.0, 8.0, 7.0, 5.0].map(row).to_vec();
        assert_eq!(kept(&rows), 0.5);
    }
}
