//! Networks of one convolution, by which kernels are compared with those of others.

use std::path::Path;

use anyhow::Result;
use edgesmith_formats::{WriteOptions, npz};
use edgesmith_ir::random::Random;
use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor};

/// A convolution of a square image, padded to the same size.
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// Height and width of the image.
    image: [usize; 2],
    /// Channels that go in and come out.
    channels: [usize; 2],
    /// Height and width of the window.
    window: usize,
    /// Each channel by itself.
    depthwise: bool,
}

/// Every layer.
pub static LAYERS: &[Layer] = &[
    layer("conv1x1_64", [25, 5], [64, 64], 1, false),
    layer("depthwise3x3_64", [25, 5], [64, 64], 3, true),
    layer("conv3x3_32", [32, 32], [16, 16], 3, false),
    layer("conv3x3_16", [16, 16], [16, 16], 3, false),
];

const fn layer(
    name: &'static str,
    image: [usize; 2],
    channels: [usize; 2],
    window: usize,
    depthwise: bool,
) -> Layer {
    Layer {
        name,
        image,
        channels,
        window,
        depthwise,
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
        let images = |channels| {
            let dims = [
                Dim::symbol("batch"),
                Dim::Known(channels),
                Dim::Known(h),
                Dim::Known(w),
            ]
            .into_iter()
            .collect();
            TensorType::new(DType::F32, Shape(dims))
        };
        let mut graph = Graph::new(self.name);
        let x = graph.add_input("input", images(from));
        let each = if self.depthwise { 1 } else { from };
        let dims = [to, each, self.window, self.window];
        let weights = Tensor::from_vec(&dims, numbers(dims.iter().product()))?;
        let weights = graph.add_constant("weights", weights);
        let bias = graph.add_constant("bias", Tensor::vector(numbers(to)));
        let pad = (self.window / 2) as i64;
        let node = Node::new("Conv", "conv")
            .with("pads", Attribute::Ints(vec![pad; 4]))
            .with("group", Attribute::Int((from / each) as i64));
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
            let samples = Tensor::from_vec(&[8, from, h, w], numbers(8 * from * h * w))?;
            npz::write(&folder.join(name), &[("input".into(), samples)], true)?;
        }
        Ok(())
    }
}
