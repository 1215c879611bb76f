//! Damaged files and models through everything: no panic, no hang, no memory above the cap.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Arg, ArgMatches};
use peak_alloc::PeakAlloc;

use crate::workers::{self, Worker};
use crate::{Task, flag, number, number_of};

mod case;

/// The task.
pub static TASK: Task = Task {
    name: "mutate",
    about: "Run damaged files and models through everything",
    args: |c| {
        c.arg(number("count", "10000", "How many cases"))
            .arg(number("seed", "0", "The seed of the first case"))
            .arg(number("jobs", "0", "Processes; 0 is one for each core"))
            .arg(
                Arg::new("case")
                    .long("case")
                    .value_name("SEED")
                    .help("Print one case and its answer")
                    .value_parser(clap::value_parser!(u64)),
            )
            .arg(flag("worker", "Answer the seeds on standard input").hide(true))
    },
    run,
};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// No case takes longer.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Of each kind of fault so many are shown.
const SHOWN: usize = 3;

/// What the cases came to.
#[derive(Default)]
struct Findings {
    /// Cases by the stage that they reached.
    stages: BTreeMap<String, u64>,
    faults: BTreeMap<String, Vec<u64>>,
    highest: u64,
}

impl Findings {
    fn add(&mut self, seed: u64, answer: &Result<String, String>) {
        let answer = match answer {
            Ok(line) => serde_json::from_str(line).map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        let answer: case::Answer = answer.unwrap_or_else(|why| case::Answer {
            fault: Some(why),
            ..case::Answer::default()
        });
        self.highest = self.highest.max(answer.peak);
        *self.stages.entry(answer.stage).or_default() += 1;
        if let Some(fault) = answer.fault {
            self.faults.entry(fault).or_default().push(seed);
        }
    }

    fn print(&self, took: Duration) {
        let count: u64 = self.stages.values().sum();
        let rate = count as f64 / took.as_secs_f64().max(1e-3);
        let megabytes = self.highest >> 20;
        println!("{count} cases, {rate:.0} a second, {megabytes} MiB at the most");
        for (stage, n) in &self.stages {
            println!("{n:>9}  {stage}");
        }
        for (fault, seeds) in &self.faults {
            let shown: Vec<String> = seeds.iter().take(SHOWN).map(u64::to_string).collect();
            let (n, shown) = (seeds.len(), shown.join(", "));
            println!("{n} × {fault}\n    --case {shown}");
        }
    }
}

/// Tries the cases, each a seed, and prints the faults with the seeds that repeat them.
///
/// # Errors
/// When there is a fault.
fn run(matches: &ArgMatches) -> Result<()> {
    let seeds = case::seeds()?;
    if let Some(&seed) = matches.get_one("case") {
        println!("{}", case::text(&seeds, seed)?);
        println!("{:?}", case::answer(&seeds, seed));
        return Ok(());
    }
    if matches.get_flag("worker") {
        case::limit_memory();
        return workers::serve(&|line| {
            Ok(serde_json::to_string(&case::answer(&seeds, line.parse()?))?)
        });
    }
    let start = Instant::now();
    let findings = Mutex::new(Findings::default());
    let [count, first, jobs] = ["count", "seed", "jobs"].map(|name| number_of(matches, name));
    let range = first..first.saturating_add(count);
    let jobs = match usize::try_from(jobs)? {
        0 => workers::cores(),
        jobs => jobs,
    };
    workers::each(jobs, range, &|worker, seed| {
        let mut alive = match worker.take() {
            Some(worker) => worker,
            None => Worker::start(&[], &["mutate", "--worker"])?,
        };
        let answer = alive.ask(&seed.to_string(), MAX_TIME);
        if answer.is_ok() {
            *worker = Some(alive);
        }
        if let Ok(mut all) = findings.lock() {
            all.add(seed, &answer);
        }
        Ok(())
    })?;
    let findings = findings.into_inner().unwrap_or_default();
    findings.print(start.elapsed());
    let kinds = findings.faults.len();
    ensure!(kinds == 0, "{kinds} kinds of faults");
    Ok(())
}
