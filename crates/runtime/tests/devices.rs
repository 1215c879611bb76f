//! Devices: which nodes they get, and what happens where they refuse or fail.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should stop"
)]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use edgesmith_ir::{DType, Error, Model, Result, Tensor, Value, eval, text};
use edgesmith_runtime::device::{Asked, Device, Part, Unit};
use edgesmith_runtime::{Options, Placement, Provider, Session};
use edgesmith_testkit::property::holds;
use edgesmith_testkit::{Tolerance, assert_close, difference, random};

/// A device that takes units by chance, and runs them by evaluation.
static CHANCE: Provider = Provider::of_parts("chance", "takes units by chance", |asked| {
    let number = |key: &str| {
        let found = asked.settings.iter().find(|(k, _)| k == key);
        found.map_or(0, |(_, v)| v.parse().unwrap())
    };
    let asks = asked.settings.iter().any(|(k, _)| k == "bf16");
    if asks && (number("bf16") != 0) != asked.bf16 {
        return Err(Error::usage("it is asked for another precision"));
    }
    Ok(Arc::new(Chance {
        seed: number("seed"),
        no_op: asked
            .settings
            .iter()
            .find(|(k, _)| k == "no")
            .map(|(_, v)| v.clone()),
        signed: number("signed") != 0,
        fails: number("fails") != 0,
    }))
});

static MORE: &[&Provider] = &[&CHANCE];

struct Chance {
    /// 0: takes everything.
    seed: u64,
    /// An operator that does not compile.
    no_op: Option<String>,
    /// It has no unsigned bytes.
    signed: bool,
    fails: bool,
}

impl Device for Chance {
    fn verdict(&self, unit: &Unit) -> std::result::Result<(), String> {
        let mut hasher = DefaultHasher::new();
        (self.seed, &unit.node().name).hash(&mut hasher);
        match self.seed == 0 || hasher.finish().is_multiple_of(2) {
            true => Ok(()),
            false => Err("it does not want it".into()),
        }
    }

    fn speed(&self) -> f64 {
        f64::INFINITY
    }

    fn launch_ns(&self) -> f64 {
        -1e9
    }

    fn compile(&self, part: &Model) -> Result<Box<dyn Part>> {
        if part.ir_version == 0 {
            return Err(Error::invalid("a part says which version of ONNX it is of"));
        }
        if part
            .graph
            .nodes()
            .any(|(_, n)| Some(&n.op) == self.no_op.as_ref().map(|s| s.as_str().into()).as_ref())
        {
            return Err(Error::unsupported("there is an operator that it lacks"));
        }
        let is_u8 = |(_, v): (_, &Value)| v.constant.as_ref().map(Tensor::dtype) == Some(DType::U8);
        if self.signed && part.graph.values().any(is_u8) {
            return Err(Error::unsupported("it has no unsigned bytes"));
        }
        let options = Options {
            providers: vec!["reference".into()],
            threads: 1,
            ..Options::default()
        };
        let names = part.graph.inputs.iter();
        Ok(Box::new(Evaluated {
            names: names.map(|&v| part.graph.value(v).name.clone()).collect(),
            session: Mutex::new(Session::prepare(part, &options)?),
            fails: self.fails,
        }))
    }
}

struct Evaluated {
    names: Vec<String>,
    session: Mutex<Session>,
    fails: bool,
}

impl Part for Evaluated {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if self.fails {
            return Err(Error::unsupported("it fell over"));
        }
        let named = self
            .names
            .iter()
            .map(String::as_str)
            .zip(inputs.iter().cloned());
        self.session.lock().unwrap().run(&named.collect::<Vec<_>>())
    }
}

fn session(model: &Model, provider: &str) -> Session {
    let options = Options {
        threads: 1,
        providers: vec![provider.into(), "cpu".into()],
        more: MORE,
        ..Options::default()
    };
    Session::prepare(model, &options).unwrap()
}

fn place<'a>(session: &'a Session, node: &str) -> &'a Placement {
    let mut all = session.placements().iter();
    all.find(|p| p.node == node).unwrap()
}

/// Two Q/DQ groups: a product over 16 channels, and one over 5.
fn two_groups() -> Model {
    let text = "opset 17 graph g (x: u8[1,16]) -> (z: u8[1,5]) {
        s: f32[] = {0.1} p: u8[] = {8} v: i8[] = {0}
        w: i8[16,16] = {W16} u: i8[16,5] = {W5}
        xd = DequantizeLinear(x, s, p) {name=\"xd\"}
        wd = DequantizeLinear(w, s, v) {name=\"wd\"}
        y = MatMul(xd, wd) {name=\"y\"}
        yq = QuantizeLinear(y, s, p) {name=\"yq\"}
        yd = DequantizeLinear(yq, s, p) {name=\"yd\"}
        ud = DequantizeLinear(u, s, v) {name=\"ud\"}
        m = MatMul(yd, ud) {name=\"m\"}
        z = QuantizeLinear(m, s, p) {name=\"z\"}
    }";
    let numbers = |n: usize| {
        let each = (0..n).map(|i| ((i * 7) % 11).to_string());
        each.collect::<Vec<_>>().join(", ")
    };
    let text = text
        .replace("W16", &numbers(256))
        .replace("W5", &numbers(80));
    text::parse(&text).unwrap()
}

fn bytes() -> Tensor {
    Tensor::from_vec(&[1, 16], (0..16u8).collect()).unwrap()
}

#[test]
fn a_device_takes_q_dq_groups_whole_and_says_why_not_others() {
    let model = two_groups();
    let mut session = session(&model, "npu-sim:launch=0");
    let (taken, left) = (place(&session, "y").clone(), place(&session, "m").clone());
    assert_eq!(
        (taken.provider.as_str(), left.provider.as_str()),
        ("npu-sim", "cpu")
    );
    assert_eq!(place(&session, "yq").provider, "npu-sim");
    assert!(taken.note.unwrap().contains("npu-sim takes it"));
    let parts = session.parts();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].nodes, ["xd", "wd", "y", "yq"]);
    assert!(parts[0].saves_ns > parts[0].border_ns);
    assert!(session.failures().is_empty());
    assert!(
        left.integer
            && left
                .note
                .unwrap()
                .contains("5 channels are no multiple of 16")
    );
    let expected = eval::evaluate(&model, &[("x", bytes())]).unwrap();
    let found = session.run(&[("x", bytes())]).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_device_gets_bytes_of_the_sign_that_the_file_has() {
    let text = "opset 17 graph g (x: f32[1,2,6,6]) -> (z: f32[1,3,6,6]) {
        s: f32[] = {0.02} p: i8[] = {-3} w: f32[3,2,1,1] = {1,-2,3,0.5,-1,2} ws: f32[] = {0.03} wp: i8[] = {0}
        xq = QuantizeLinear(x, s, p) xd = DequantizeLinear(xq, s, p)
        wq = QuantizeLinear(w, ws, wp) wd = DequantizeLinear(wq, ws, wp)
        c = Conv(xd, wd) cq = QuantizeLinear(c, s, p) z = DequantizeLinear(cq, s, p) {name=\"z\"}
    }";
    let model = text::parse(text).unwrap();
    let mut session = session(&model, "chance:signed=1");
    assert_eq!(place(&session, "z").provider, "chance");
    let x = Tensor::from_vec(
        &[1, 2, 6, 6],
        (0..72).map(|i| i as f32 * 0.05 - 1.7).collect(),
    );
    let x = x.unwrap();
    let expected = eval::evaluate(&model, &[("x", x.clone())]).unwrap();
    assert_eq!(session.run(&[("x", x)]).unwrap(), expected);
}

#[test]
fn a_device_does_not_take_what_costs_more_at_the_borders_than_it_saves() {
    let session = session(&two_groups(), "npu-sim:launch=1000000");
    let left = place(&session, "y");
    assert_eq!(left.provider, "cpu");
    assert!(
        left.note.as_ref().unwrap().contains("cost more"),
        "{left:?}"
    );
}

#[test]
fn a_part_that_fails_to_compile_goes_to_the_next_provider() {
    let model = two_groups();
    let mut session = session(&model, "npu-sim:launch=0;fail-compile=1");
    assert_eq!(place(&session, "y").provider, "cpu");
    let failures = session.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!((failures[0].provider, failures[0].nodes), ("npu-sim", 4));
    assert!(failures[0].why.contains("the script lets"), "{failures:?}");
    let note = place(&session, "yq").note.clone();
    assert!(
        note.unwrap().contains("the script lets"),
        "every node of a group has the reason"
    );
    let expected = eval::evaluate(&model, &[("x", bytes())]).unwrap();
    assert_eq!(session.run(&[("x", bytes())]).unwrap(), expected);
}

#[test]
fn operators_that_do_not_compile_are_found_and_the_rest_stays_with_the_device() {
    let text = "opset 17 graph g (x: f32[2,3]) -> (z: f32[2,3]) {
        a = Abs(x) b = Sqrt(a) c = Exp(b) z = Neg(c)
    }";
    let model = text::parse(text).unwrap();
    let session = session(&model, "chance:no=Sqrt");
    let providers: Vec<&str> = session
        .placements()
        .iter()
        .map(|p| p.provider.as_str())
        .collect();
    assert_eq!(providers, ["chance", "cpu", "chance", "chance"]);
}

#[test]
fn a_part_that_fails_in_a_run_is_run_by_the_next_provider_from_then_on() {
    let model = two_groups();
    let mut session = session(&model, "npu-sim:launch=0;fail-run=1");
    let expected = eval::evaluate(&model, &[("x", bytes())]).unwrap();
    for _ in 0..2 {
        assert_eq!(session.run(&[("x", bytes())]).unwrap(), expected);
        assert_eq!(session.faults().len(), 1);
    }
    let moved = place(&session, "y");
    assert_eq!(moved.provider, "cpu");
    assert!(
        moved
            .note
            .as_ref()
            .unwrap()
            .contains("npu-sim failed in a run")
    );
}

#[test]
fn nodes_inside_of_branches_are_placed_too() {
    let text = "opset 17 graph g (c: bool[], x: f32[2]) -> (y: f32[2]) {
        y = If(c) {then_branch = graph t () -> (a: f32[2]) { capture i = x a = Exp(i) },
                   else_branch = graph e () -> (b: f32[2]) { capture j = x b = Neg(j) }}
    }";
    let model = text::parse(text).unwrap();
    let mut session = session(&model, "chance:fails=1");
    let inputs = [
        ("c", Tensor::from_bools(&[], &[true]).unwrap()),
        ("x", Tensor::vector(vec![0f32, 1.0])),
    ];
    let expected = eval::evaluate(&model, &inputs).unwrap();
    let found = session.run(&inputs).unwrap();
    let tolerance = Tolerance {
        relative: 1e-6,
        absolute: 0.0,
    };
    assert_close(&found[0], &expected[0], tolerance);
    assert_eq!(
        session.faults().len(),
        1,
        "the branch ran on the device first"
    );
}

#[test]
fn graphs_inside_nodes_are_planned_before_a_run_where_lengths_are_known() {
    let text = "opset 17 graph g (c: bool[], n: i64[], x: f32[2,3]) -> (y: f32[2,2], z: f32[2,3], s: f32[2,3]) {
        w: f32[3,2] = {1,2,3,4,5,6} k: f32[3,3] = {1,2,3,4,5,6,7,8,9}
        y = If(c) {then_branch = graph t () -> (a: f32[2,2]) { capture i = x capture v = w a = MatMul(i, v) {name=\"a\"} },
                   else_branch = graph e () -> (b: f32[2,2]) { capture j = x capture u = w b = Gemm(j, u) {name=\"b\"} }, name=\"if\"}
        z = Loop(n, c, x) {body = graph l (i: i64[], d: bool[], p: f32[2,3]) -> (d: bool[], q: f32[2,3]) {
            capture m = k q = MatMul(p, m) {name=\"q\"} }, name=\"loop\"}
        zero: f32[2,3] = {0,0,0,0,0,0}
        o = Identity(x)
        s, rows = Scan(zero, o) {num_scan_inputs=1, scan_input_axes=[0], body = graph f (st: f32[2,3], row: f32[3]) -> (t: f32[2,3], r: f32[3]) {
            t = Add(st, row) {name=\"t\"} r = Neg(row) {name=\"r\"} }, name=\"scan\"}
    }";
    let model = text::parse(text).unwrap();
    let mut session = session(&model, "chance");
    assert!(session.packed().is_empty());
    let types = model.graph.inputs.iter().map(|&v| model.graph.value(v));
    let types: Vec<_> = types.map(|v| v.tensor_type().unwrap().clone()).collect();
    assert_eq!(session.plan_ahead(&types).unwrap(), Vec::<String>::new());
    let inside = session.placements_inside();
    let names: Vec<&str> = inside.iter().map(|p| p.node.as_str()).collect();
    let expected = [
        "if/then_branch/a",
        "if/else_branch/b",
        "loop/body/q",
        "scan/body/t",
        "scan/body/r",
    ];
    assert_eq!(names, expected);
    assert!(inside.iter().all(|p| p.provider == "chance"), "{inside:?}");
    // Bodies that run on the cpu have their weights packed before a run.
    let mut plain = Session::prepare(&model, &Options::default()).unwrap();
    assert_eq!(plain.plan_ahead(&types).unwrap(), Vec::<String>::new());
    assert_eq!(plain.packed().len(), 3);
}

#[test]
fn settings_that_a_provider_lacks_are_refused() {
    for spec in [
        "npu-sim:speed=2",
        "npu-sim:launch",
        "npu-sim:launch=soon",
        "cpu:x=1",
        "gpu",
    ] {
        let options = Options {
            providers: vec![spec.into()],
            ..Options::default()
        };
        assert!(Session::prepare(&two_groups(), &options).is_err(), "{spec}");
    }
}

/// Parts by chance, some of which fail, give the answers of the cpu provider and the reference.
fn parts_answer_alike(model: &Model) -> std::result::Result<(), String> {
    let inputs = random::inputs_with(model, 7, &[("batch", 2)]);
    let inputs: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let mut largest = 1f32;
    let expected = eval::evaluate_with(model, &inputs, &mut |_, t| {
        let finite = |m: f32, x: &f32| if x.is_finite() { m.max(x.abs()) } else { m };
        if let Ok(t) = t.to_f32() {
            largest = t.iter().fold(largest, finite);
        }
    });
    let Ok(expected) = expected else {
        return Ok(());
    };
    let tolerance = Tolerance {
        relative: 0.0,
        absolute: 1e-4 * largest,
    };
    for spec in [
        "chance:seed=1",
        "chance:seed=2",
        "chance:seed=3;fails=1",
        "chance",
    ] {
        let options = Options {
            threads: 1,
            batch_bytes: 0,
            providers: vec![spec.into()],
            more: MORE,
            ..Options::default()
        };
        let session = Session::prepare(model, &options);
        let mut session = session.map_err(|e| format!("{spec}: {e}"))?;
        let found = session.run(&inputs).map_err(|e| format!("{spec}: {e}"))?;
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            if let Some(d) = difference(a, b, tolerance) {
                return Err(format!("{spec}: output {i}: {d}"));
            }
        }
    }
    Ok(())
}

#[test]
fn random_parts_of_random_models_give_the_same_answers() {
    if let Err(e) = holds(0..400, &parts_answer_alike) {
        panic!("{e}");
    }
}

#[test]
fn a_device_is_told_of_the_precision() {
    for (bf16, spec) in [(false, "chance:bf16=0"), (true, "chance:bf16=1")] {
        let options = Options {
            bf16,
            providers: vec![spec.into()],
            more: MORE,
            ..Options::default()
        };
        match Session::prepare(&two_groups(), &options) {
            Ok(_) => {}
            // A CPU without BF16 refuses the precision itself.
            Err(e) => assert!(bf16 && e.message.contains("does not multiply"), "{e}"),
        }
    }
}

/// The type that opens a device is what the runtime asks with.
#[test]
fn a_provider_can_be_asked_whether_it_is_there() {
    assert!(CHANCE.check(&Asked::default()).is_ok());
}
