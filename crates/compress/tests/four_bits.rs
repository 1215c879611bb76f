//! Activations and weights of 4 bits: what is written, and that kernels compute it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_compress::calibrate;
use edgesmith_compress::quantize::affine::Byte;
use edgesmith_compress::quantize::int8::{Settings, look, post_training};
use edgesmith_compress::{Batch, Samples};
use edgesmith_ir::{DType, Model, NoProgress, Result, Tensor, eval, packed, text, verify};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

/// A network with a branch, bounds, a pool and a head.
fn net() -> Model {
    let mut rng = Rng::new(3);
    let mut source = "opset 17 graph net(x: f32[n,2,6,6]) -> (y: f32[n,3]) {
        w1: f32[4,2,3,3] = {W72} b1: f32[4] = {0.1,-0.2,0.3,0.05} w2: f32[4,4,3,3] = {W144}
        wf: f32[4,3] = {W12} bf: f32[3] = {0.5,-0.5,0.25}
        c1 = Conv(x, w1, b1) {pads=[1,1,1,1], name=\"first\"} r1 = Relu(c1)
        c2 = Conv(r1, w2) {pads=[1,1,1,1], name=\"middle\"}
        a = Add(c2, r1) ra = Relu(a) p = MaxPool(ra) {kernel_shape=[2,2], strides=[2,2]}
        g = GlobalAveragePool(p) f = Flatten(g) y = Gemm(f, wf, bf) {name=\"last\"} }"
        .to_owned();
    for n in [72, 144, 12] {
        let list: Vec<String> = (0..n)
            .map(|_| format!("{:?}", rng.uniform(-0.5, 0.5)))
            .collect();
        source = source.replace(&format!("W{n}}}"), &format!("{}}}", list.join(",")));
    }
    text::parse(&source).unwrap()
}

fn input(seed: u64) -> Tensor {
    Rng::new(seed).floats(&[32, 2, 6, 6], -1.0, 1.0)
}

/// Samples of one tensor, for the input `x`.
struct Rows(Tensor);

impl Samples for Rows {
    fn count(&self) -> usize {
        self.0.dims()[0]
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        let (count, dims) = (self.count(), self.0.dims());
        let of_one: usize = dims[1..].iter().product();
        Box::new((0..count).step_by(size).map(move |first| {
            let range = first..(first + size).min(count);
            let data = self.0.to_f32()?[range.start * of_one..range.end * of_one].to_vec();
            let dims = [&[range.len()], &dims[1..]].concat();
            Ok((range, vec![("x".into(), Tensor::from_vec(&dims, data)?)]))
        }))
    }
}

fn quantized(settings: &Settings) -> Model {
    let samples = Rows(input(7));
    let calibration = calibrate::Settings::default();
    let mut look = look(&samples, &calibration, &NoProgress);
    let made = post_training(&net(), &mut look, &samples, settings, &NoProgress);
    let model = made.unwrap().0;
    verify::verify(&model).unwrap();
    model
}

const NARROW: Settings4 = Settings4 {
    activations: Byte::Unsigned4,
    narrow_weights: true,
};

struct Settings4 {
    activations: Byte,
    narrow_weights: bool,
}

impl Settings4 {
    fn settings(&self) -> Settings {
        Settings {
            activations: self.activations,
            narrow_weights: self.narrow_weights,
            ..Settings::default()
        }
    }
}

/// The type of the weight of a product, and whether what it reads is bounded to 4 bits.
fn widths(model: &Model, name: &str) -> (DType, bool) {
    let graph = &model.graph;
    let (_, node) = graph.nodes().find(|(_, n)| n.name == name).unwrap();
    let behind = |i: usize| {
        let (dq, _) = graph.value(node.input(i).unwrap()).producer().unwrap();
        graph.node(dq).input(0).unwrap()
    };
    let weight = graph.constant(behind(1)).unwrap().dtype();
    (weight, graph.producer_is(behind(0), "Clip").is_some())
}

#[test]
fn weights_are_packed_and_activations_bounded_bytes() {
    for activations in [Byte::Unsigned4, Byte::Signed4] {
        let model = quantized(
            &Settings4 {
                activations,
                ..NARROW
            }
            .settings(),
        );
        assert_eq!(model.opset(), 21);
        for name in ["first", "middle", "last"] {
            assert_eq!(widths(&model, name), (DType::I4, true), "{name}");
        }
        let mut seen = 0;
        let ends = activations.bounds().unwrap().map(i64::from);
        eval::evaluate_with(&model, &[("x", input(9))], &mut |v, t| {
            let maker = model.graph.value(v).producer();
            if maker.is_some_and(|(id, _)| model.graph.node(id).is("Clip")) {
                let q = t.to_i64().unwrap();
                assert!(q.iter().all(|q| (ends[0]..=ends[1]).contains(q)));
                seen += 1;
            }
        })
        .unwrap();
        assert!(seen > 4, "{seen}");
    }
}

#[test]
fn either_alone_leaves_the_other_at_8_bits() {
    let weights = Settings4 {
        activations: Byte::Unsigned,
        ..NARROW
    };
    assert_eq!(
        widths(&quantized(&weights.settings()), "middle"),
        (DType::I4, false)
    );
    let activations = Settings4 {
        narrow_weights: false,
        ..NARROW
    };
    let model = quantized(&activations.settings());
    assert_eq!(widths(&model, "middle"), (DType::I8, true));
    assert_eq!(model.opset(), 17);
}

#[test]
fn wide_ends_have_8_bits_where_the_middle_has_4() {
    let settings = Settings {
        wide_ends: true,
        ..NARROW.settings()
    };
    let model = quantized(&settings);
    for (name, widths_of) in [
        ("first", (DType::I8, false)),
        ("middle", (DType::I4, true)),
        ("last", (DType::I8, false)),
    ] {
        assert_eq!(widths(&model, name), widths_of, "{name}");
    }
}

#[test]
fn kernels_compute_the_file_within_a_step_and_in_integers() {
    for wide_ends in [false, true] {
        let settings = Settings {
            wide_ends,
            ..NARROW.settings()
        };
        let model = quantized(&settings);
        let inputs = [("x", input(11))];
        let expected = eval::evaluate(&model, &inputs).unwrap();
        let mut session = Session::prepare(&model, &Options::default()).unwrap();
        let found = session.run(&inputs).unwrap();
        let (a, b) = (expected[0].to_f32().unwrap(), found[0].to_f32().unwrap());
        let off = a
            .iter()
            .zip(&*b)
            .filter(|(a, b)| (**a - **b).abs() > 1e-4)
            .count();
        // A sum on a tie may fall to either side.
        assert!(off * 20 <= a.len(), "{off} of {}", a.len());
        let products = session.placements().iter();
        let mut products =
            products.filter(|p| ["first", "middle", "last"].contains(&p.node.as_str()));
        assert!(products.all(|p| p.integer));
    }
}

#[test]
fn the_least_squares_range_of_weights_errs_less_than_the_whole_one() {
    let errors = |weights| {
        let settings = Settings {
            weights,
            ..NARROW.settings()
        };
        let model = quantized(&settings);
        let of = |m: &Model, name: &str| {
            m.graph
                .constant(m.graph.find_value(name).unwrap())
                .unwrap()
                .clone()
        };
        let float = of(&net(), "w2");
        let (codes, scales) = (of(&model, "w2_q"), of(&model, "w2_scale"));
        let codes = packed::decode_integers(&codes).unwrap();
        let (float, scales) = (
            float.to_f32().unwrap().into_owned(),
            scales.to_f32().unwrap().into_owned(),
        );
        let error = |i: usize| (f32::from(codes[i]) * scales[i / 36] - float[i]).powi(2);
        (0..float.len()).map(error).sum::<f32>()
    };
    use edgesmith_compress::quantize::int8::WeightRange;
    assert!(errors(WeightRange::Mse) < errors(WeightRange::MinMax));
}
