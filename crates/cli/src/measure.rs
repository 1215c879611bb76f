//! Latency: interleaved rounds over several sessions, wall and CPU time of each run.

use std::time::{Duration, Instant};

use edgesmith_ir::analysis::lengths;
use edgesmith_ir::types::{DType, Type};
use edgesmith_ir::{Error, Model, Progress, Result, Tensor};
use edgesmith_report::evidence::Latency;
use edgesmith_runtime::Session;

/// Named inputs of one run.
pub type Inputs = Vec<(String, Tensor)>;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Runs of each session that count.
    pub iterations: usize,
    /// The runs of one session stop counting after so long, three at the least.
    pub budget: Duration,
}

/// Measures sessions in turn (A B C A B C …), so that a slow moment of the machine hits all alike.
///
/// # Errors
/// When a run fails or is cancelled.
pub fn interleaved(
    sessions: &mut [(Session, Inputs)],
    effort: Effort,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Latency>> {
    let mut times: Vec<Vec<(f64, f64)>> = vec![Vec::new(); sessions.len()];
    for (session, inputs) in sessions.iter_mut() {
        warm_up(session, inputs)?;
    }
    progress.start("measuring latency", effort.iterations as u64);
    let started = Instant::now();
    let budget = effort
        .budget
        .saturating_mul(u32::try_from(sessions.len()).unwrap_or(u32::MAX));
    for round in 0..effort.iterations {
        if round >= 3 && started.elapsed() > budget {
            break;
        }
        for ((session, inputs), times) in sessions.iter_mut().zip(&mut times) {
            progress.check()?;
            times.push(timed(session, inputs)?);
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(times.into_iter().map(|t| summary(t, threads)).collect())
}

/// Runs until at least three runs and 50 ms are over.
fn warm_up(session: &mut Session, inputs: &Inputs) -> Result<()> {
    let started = Instant::now();
    let mut runs = 0;
    while runs < 3 || (started.elapsed() < Duration::from_millis(50) && runs < 50) {
        session.run(&borrowed(inputs))?;
        runs += 1;
    }
    Ok(())
}

/// Wall and CPU milliseconds of one run.
fn timed(session: &mut Session, inputs: &Inputs) -> Result<(f64, f64)> {
    let inputs = borrowed(inputs);
    let (wall, cpu) = (Instant::now(), cpu_time());
    session.run(&inputs)?;
    let wall = wall.elapsed();
    Ok((
        wall.as_secs_f64() * 1e3,
        (cpu_time().saturating_sub(cpu)).as_secs_f64() * 1e3,
    ))
}

/// The inputs as [`Session::run`] takes them.
pub fn borrowed(inputs: &Inputs) -> Vec<(&str, Tensor)> {
    inputs
        .iter()
        .map(|(name, t)| (name.as_str(), t.clone()))
        .collect()
}

/// Threads that a request for `asked` gets: 0 is one for each core.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Random inputs of the shapes that `dims` gives, other symbols 1: floats in -1..1 and small
/// integers, the same every time.
///
/// # Errors
/// When a rank is unknown or a type has no random values.
pub fn random_inputs(model: &Model, dims: &[(String, usize)]) -> Result<Inputs> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut inputs = Inputs::new();
    let dims: Vec<(&str, usize)> = dims.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    for (v, ty) in lengths::workable_inputs(model, &dims)? {
        let value = model.graph.value(v);
        if value.constant.is_some() {
            continue;
        }
        let place = format!("input \"{}\"", value.name);
        let known = match &ty {
            Type::Tensor(t) => t
                .shape
                .as_ref()
                .and_then(|s| s.known())
                .map(|d| (t.dtype, d)),
            _ => None,
        };
        let (dtype, dims) = known.ok_or_else(|| {
            Error::unsupported(format!("no random data for {ty}"))
                .at(place.clone())
                .hint("give data with --input, or lengths with --dim NAME=N")
        })?;
        let count = dims.iter().product();
        let tensor = if dtype.is_float() {
            Tensor::from_vec(&dims, (0..count).map(|_| next() * 2.0 - 1.0).collect())?
        } else if dtype == DType::Bool {
            Tensor::from_bools(&dims, &vec![true; count])?
        } else {
            Tensor::from_vec(&dims, (0..count).map(|_| (next() * 2.0) as i64).collect())?
        };
        let tensor = edgesmith_data::cast(&tensor, dtype).map_err(|e| e.at(place))?;
        inputs.push((value.name.clone(), tensor));
    }
    Ok(inputs)
}

/// The first sample of each array that the model asks for.
///
/// # Errors
/// When an array is missing or cannot be cast.
pub fn first_samples(model: &Model, arrays: &[(String, Tensor)]) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    for &v in &model.graph.inputs {
        let value = model.graph.value(v);
        let Some((name, t)) = arrays.iter().find(|(n, _)| *n == value.name) else {
            continue;
        };
        let ty = value.tensor_type();
        let free = ty
            .and_then(|t| t.shape.as_ref()?.first())
            .is_some_and(|d| d.known().is_none());
        let t = edgesmith_data::cast(t, ty.map_or(t.dtype(), |t| t.dtype))?;
        let mut dims = t.dims().to_vec();
        let one = if free && dims.first().is_some_and(|&n| n > 0) {
            let rows = std::mem::replace(&mut dims[0], 1);
            let bytes = t.bytes().slice(..t.byte_len() / rows);
            Tensor::from_bytes(t.dtype(), &dims, bytes)?
        } else {
            t
        };
        inputs.push((name.clone(), one));
    }
    Ok(inputs)
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        t.tv_sec.unsigned_abs(),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

fn summary(mut times: Vec<(f64, f64)>, threads: usize) -> Latency {
    let n = times.len().max(1) as f64;
    let mean_ms = times.iter().map(|t| t.0).sum::<f64>() / n;
    let mut cpu: Vec<f64> = times.iter().map(|t| t.1).collect();
    cpu.sort_by(f64::total_cmp);
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wall: Vec<f64> = times.iter().map(|t| t.0).collect();
    Latency {
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        iterations: wall.len() as u64,
        min_ms: quantile(&wall, 0.0),
        p50_ms: quantile(&wall, 0.5),
        p95_ms: quantile(&wall, 0.95),
        mean_ms,
        cpu_p50_ms: Some(quantile(&cpu, 0.5)),
        speedup: None,
    }
}

/// The `q` quantile of sorted values, by linear interpolation; NaN of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q * last as f64;
    let (low, high) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_runs() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0], 0.95), 1.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
