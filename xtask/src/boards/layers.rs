//! Networks of one layer, by which kernels are compared with those of others.

use std::path::Path;

use anyhow::Result;
use edgesmith_formats::{WriteOptions, npz};
use edgesmith_ir::random::Random;
use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor};

/// A layer, its activation with it.
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    kind: Kind,
    /// Height and width of the image, to whose size convolutions are padded.
    image: [usize; 2],
    /// Channels that go in and come out.
    channels: [usize; 2],
    /// Height and width of the window.
    window: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Conv,
    Depthwise,
    Dense,
}

/// Every layer.
pub static LAYERS: &[Layer] = &[
    layer("conv1x1_64", Kind::Conv, [25, 5], [64, 64], 1),
    layer("depthwise3x3_64", Kind::Depthwise, [25, 5], [64, 64], 3),
    layer("conv3x3_32", Kind::Conv, [32, 32], [16, 16], 3),
    layer("conv3x3_16", Kind::Conv, [16, 16], [16, 16], 3),
    layer("dense_256", Kind::Dense, [1, 1], [256, 64], 1),
];

const fn layer(
    name: &'static str,
    kind: Kind,
    image: [usize; 2],
    channels: [usize; 2],
    window: usize,
) -> Layer {
    Layer {
        name,
        kind,
        image,
        channels,
        window,
    }
}

impl Layer {
    /// Writes the float model with random weights, and random samples, as the folders of models have them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut random = Random::new(7);
        let mut numbers =
            |n: usize| -> Vec<f32> { (0..n).map(|_| (random.unit() * 2.0 - 1.0) as f32).collect() };
        let ([h, w], [from, to]) = (self.image, self.channels);
        let lengths = |channels| match self.kind {
            Kind::Dense => vec![channels],
            _ => vec![channels, h, w],
        };
        let images = |channels| {
            let known = lengths(channels).into_iter().map(Dim::Known);
            let dims = [Dim::symbol("batch")].into_iter().chain(known).collect();
            TensorType::new(DType::F32, Shape(dims))
        };
        let mut graph = Graph::new(self.name);
        let x = graph.add_input("input", images(from));
        let each = if self.kind == Kind::Depthwise {
            1
        } else {
            from
        };
        let dims = match self.kind {
            Kind::Dense => vec![from, to],
            _ => vec![to, each, self.window, self.window],
        };
        let weights = Tensor::from_vec(&dims, numbers(dims.iter().product()))?;
        let weights = graph.add_constant("weights", weights);
        let bias = graph.add_constant("bias", Tensor::vector(numbers(to)));
        let pad = (self.window / 2) as i64;
        let node = match self.kind {
            Kind::Dense => Node::new("Gemm", "dense"),
            _ => Node::new("Conv", "conv")
                .with("pads", Attribute::Ints(vec![pad; 4]))
                .with("group", Attribute::Int((from / each) as i64)),
        };
        let y = graph.add_op(node, &[x, weights, bias], "y");
        let y = graph.add_op(Node::new("Relu", "relu"), &[y], "output");
        graph.value_mut(y).ty = Some(images(to).into());
        graph.outputs.push(y);
        let options = WriteOptions {
            force: true,
            ..WriteOptions::default()
        };
        edgesmith_formats::write(&Model::new(graph, 17), &folder.join("model.onnx"), &options)?;
        for name in ["calib.npz", "test.npz"] {
            let dims = [vec![8], lengths(from)].concat();
            let samples = Tensor::from_vec(&dims, numbers(dims.iter().product()))?;
            npz::write(&folder.join(name), &[("input".into(), samples)], true)?;
        }
        Ok(())
    }
}
