//! A ResNet-18 with random weights, after He et al., "Deep Residual Learning" (2015), table 1.

use std::path::Path;

use anyhow::Result;
use edgesmith_formats::{WriteOptions, write as write_model};
use edgesmith_ir::types::{DType, Dim, Shape, TensorType};
use edgesmith_ir::{Attribute, Graph, Model, Node, Tensor, ValueId};
use edgesmith_testkit::Rng;

/// The name of its rows.
pub const NAME: &str = "resnet18";

/// Writes the model: `f32[batch,3,224,224]` to 1,000 logits, batch norms already in the weights.
pub fn write(path: &Path) -> Result<()> {
    let mut graph = Graph::new(NAME);
    let dims = [
        Dim::symbol("batch"),
        Dim::Known(3),
        Dim::Known(224),
        Dim::Known(224),
    ];
    let x = graph.add_input(
        "input",
        TensorType::new(DType::F32, Shape(dims.into_iter().collect())),
    );
    let mut net = Net {
        graph,
        rng: Rng::new(18),
        convolutions: 0,
    };
    let x = net.convolution(x, [3, 64], 7, 2);
    let x = net.relu(x);
    let pool = Node::new("MaxPool", "pool")
        .with("kernel_shape", Attribute::Ints(vec![3, 3]))
        .with("strides", Attribute::Ints(vec![2, 2]))
        .with("pads", Attribute::Ints(vec![1; 4]));
    let mut x = net.graph.add_op(pool, &[x], "pool");
    let mut channels = 64;
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let a = net.convolution(x, [channels, width], 3, stride);
            let a = net.relu(a);
            let a = net.convolution(a, [width, width], 3, 1);
            let short = match stride == 1 && channels == width {
                true => x,
                false => net.convolution(x, [channels, width], 1, stride),
            };
            let name = format!("add{stage}_{block}");
            let node = Node::new("Add", &name);
            let sum = net.graph.add_op(node, &[a, short], &name);
            x = net.relu(sum);
            channels = width;
        }
    }
    let x = net
        .graph
        .add_op(Node::new("GlobalAveragePool", "mean"), &[x], "mean");
    let x = net.graph.add_op(Node::new("Flatten", "flat"), &[x], "flat");
    let w = net.weights(&[512, 1000], 512);
    let b = net
        .graph
        .add_constant("b", Tensor::vector(vec![0f32; 1000]));
    let y = net
        .graph
        .add_op(Node::new("Gemm", "logits"), &[x, w, b], "logits");
    net.graph.outputs.push(y);
    let mut model = Model::new(net.graph, 17);
    model.ir_version = 8;
    edgesmith_ir::infer::annotate(&mut model)?;
    let options = WriteOptions {
        force: true,
        ..WriteOptions::default()
    };
    Ok(write_model(&model, path, &options)?)
}

struct Net {
    graph: Graph,
    rng: Rng,
    convolutions: usize,
}

impl Net {
    fn weights(&mut self, dims: &[usize], inputs: usize) -> ValueId {
        let range = (6.0 / inputs as f32).sqrt();
        let data = self.rng.floats(dims, -range, range);
        let name = self.graph.fresh_name("w");
        self.graph.add_constant(&name, data)
    }

    fn convolution(
        &mut self,
        x: ValueId,
        [from, to]: [usize; 2],
        size: usize,
        stride: i64,
    ) -> ValueId {
        self.convolutions += 1;
        let name = format!("conv{}", self.convolutions);
        let w = self.weights(&[to, from, size, size], from * size * size);
        let bias = Tensor::vector(vec![0f32; to]);
        let b = self.graph.add_constant(&format!("{name}.b"), bias);
        let node = Node::new("Conv", &name)
            .with("kernel_shape", Attribute::Ints(vec![size as i64; 2]))
            .with("strides", Attribute::Ints(vec![stride; 2]))
            .with("pads", Attribute::Ints(vec![(size / 2) as i64; 4]));
        self.graph.add_op(node, &[x, w, b], &name)
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        let name = self.graph.fresh_name("relu");
        self.graph.add_op(Node::new("Relu", &name), &[x], &name)
    }
}
