//! Images whose channels are cut, moved, padded, resized and quantised.

use edgesmith_ir::{Attribute, DType, Node, Tensor, ValueId};

use super::{Drawn, tensor};

/// A value, its channels and its pixels a side.
type Image = (ValueId, usize, usize);

impl Drawn {
    /// An image of another by an operator that moves channels.
    pub(super) fn moved(&mut self, image: Image) -> Image {
        let (x, channels, side) = image;
        match self.random.below(if self.is_shuffled { 11 } else { 9 }) {
            0 if channels > 1 => self.split(image),
            1 if channels > 1 => self.sliced(image),
            2 => self.padded(image),
            3 if channels % 4 == 0 && side < 8 => {
                let mode = ["DCR", "CRD"][self.random.below(2)];
                let node = Node::new("DepthToSpace", "")
                    .with("blocksize", Attribute::Int(2))
                    .with("mode", Attribute::String(mode.as_bytes().to_vec().into()));
                (self.op(node, &[x]), channels / 4, side * 2)
            }
            4 => self.quantised(image),
            5 => self.picked(image),
            6 if channels % 2 == 0 => {
                let [scale, bias] = [0; 2].map(|_| self.weight(&[channels]));
                let node =
                    Node::new("GroupNormalization", "").with("num_groups", Attribute::Int(2));
                (self.op(node, &[x, scale, bias]), channels, side)
            }
            7 => self.turned(image),
            9 => self.shuffled(image),
            10 if channels % 2 == 0 => self.spelled_out(image),
            _ => self.resized(image),
        }
    }

    /// Two parts of the channels, of which the first is gated by a sum of the other.
    fn split(&mut self, (x, channels, side): Image) -> Image {
        let first = 1 + self.random.below(channels - 1);
        let lengths = self.list(vec![first as i64, (channels - first) as i64]);
        let parts = [0; 2].map(|_| {
            let name = self.graph.fresh_name("part");
            self.graph.add_value(&name, None)
        });
        let node = Node::new("Split", "").with("axis", Attribute::Int(1));
        self.graph.add_node(
            node,
            &[Some(x), Some(lengths)],
            &[Some(parts[0]), Some(parts[1])],
        );
        let gate = self.conv(parts[1], [channels - first, 1], [1, 1]);
        (
            self.op(Node::new("Mul", ""), &[parts[0], gate]),
            first,
            side,
        )
    }

    fn sliced(&mut self, (x, channels, side): Image) -> Image {
        let start = self.random.below(channels);
        let end = start + 1 + self.random.below(channels - start);
        let [start_at, end_at] = [start, end].map(|n| self.list(vec![n as i64]));
        let axes = self.list(vec![1]);
        let y = self.op(Node::new("Slice", ""), &[x, start_at, end_at, axes]);
        (y, end - start, side)
    }

    /// Channels of zeros before and behind, as the shortcuts of a residual network have them.
    fn padded(&mut self, (x, channels, side): Image) -> Image {
        let [front, behind] = [0; 2].map(|_| self.random.below(3));
        let pads = self.list(vec![0, front as i64, 0, 0, 0, behind as i64, 0, 0]);
        let y = self.op(Node::new("Pad", ""), &[x, pads]);
        (y, channels + front + behind, side)
    }

    /// Channels by number, some twice, some not.
    fn picked(&mut self, (x, channels, side): Image) -> Image {
        let count = 1 + self.random.below(channels);
        let places = (0..count).map(|_| self.random.below(channels) as i64);
        let places = places.collect();
        let places = self.list(places);
        let node = Node::new("Gather", "").with("axis", Attribute::Int(1));
        (self.op(node, &[x, places]), count, side)
    }

    /// Channels go last, through a product, and back.
    fn turned(&mut self, (x, channels, side): Image) -> Image {
        let turn = |perm: [i64; 4]| {
            Node::new("Transpose", "").with("perm", Attribute::Ints(perm.to_vec()))
        };
        let last = self.op(turn([0, 2, 3, 1]), &[x]);
        let to = 2 * (1 + self.random.below(4));
        let w = self.weight(&[channels, to]);
        let y = self.op(Node::new("MatMul", ""), &[last, w]);
        (self.op(turn([0, 3, 1, 2]), &[y]), to, side)
    }

    /// Channels in the order of a shuffle of groups, or of three parts.
    fn shuffled(&mut self, (x, channels, side): Image) -> Image {
        let parts: Vec<usize> = match self.random.below(3) {
            0 if channels % 3 == 0 => vec![3, channels / 3],
            1 if channels % 4 == 0 => vec![2, 2, channels / 4],
            _ if channels % 2 == 0 => vec![2, channels / 2],
            _ => vec![channels, 1],
        };
        let side_length = side as i64;
        let count = parts.len() as i64;
        let parted = parts.iter().map(|&n| n as i64);
        let parted = [0].into_iter().chain(parted).chain([side_length; 2]);
        let perm = [0].into_iter().chain((1..=count).rev());
        let perm = perm.chain([count + 1, count + 2]).collect();
        let parted = parted.collect();
        let parted = self.list(parted);
        let y = self.op(Node::new("Reshape", ""), &[x, parted]);
        let turn = Node::new("Transpose", "").with("perm", Attribute::Ints(perm));
        let y = self.op(turn, &[y]);
        let whole = self.list(vec![-1, channels as i64, side_length, side_length]);
        (
            self.op(Node::new("Reshape", ""), &[y, whole]),
            channels,
            side,
        )
    }

    /// A norm of two groups, as exporters spell it.
    fn spelled_out(&mut self, (x, channels, side): Image) -> Image {
        let parted = self.list(vec![0, 2, -1]);
        let y = self.op(Node::new("Reshape", ""), &[x, parted]);
        let [scale, bias] = [1.0f32, 0.0].map(|n| {
            let name = self.graph.fresh_name("norm");
            self.graph.add_constant(&name, tensor(&[2], vec![n; 2]))
        });
        let y = self.op(Node::new("InstanceNormalization", ""), &[y, scale, bias]);
        let whole = self.list(vec![0, channels as i64, side as i64, side as i64]);
        let y = self.op(Node::new("Reshape", ""), &[y, whole]);
        let [scale, bias] = [0; 2].map(|_| self.weight(&[channels, 1, 1]));
        let y = self.op(Node::new("Mul", ""), &[y, scale]);
        (self.op(Node::new("Add", ""), &[y, bias]), channels, side)
    }

    /// The same image with twice the pixels, then half of them.
    fn resized(&mut self, (x, channels, side): Image) -> Image {
        let name = self.graph.fresh_name("scales");
        let scales = Tensor::vector(vec![1.0f32, 1.0, 2.0, 2.0]);
        let scales = self.graph.add_constant(&name, scales);
        let name = self.graph.fresh_name("resized");
        let y = self.graph.add_value(&name, None);
        let node =
            Node::new("Resize", "").with("mode", Attribute::String(b"nearest".to_vec().into()));
        self.graph
            .add_node(node, &[Some(x), None, Some(scales)], &[Some(y)]);
        let node = Node::new("MaxPool", "")
            .with("kernel_shape", Attribute::Ints(vec![2, 2]))
            .with("strides", Attribute::Ints(vec![2, 2]));
        (self.op(node, &[y]), channels, side)
    }

    /// A pair of quantise and dequantise, with a scale for each channel or one.
    fn quantised(&mut self, (x, channels, side): Image) -> Image {
        let is_per_channel = self.random.below(2) == 0;
        let dims: &[usize] = if is_per_channel { &[channels] } else { &[] };
        let count = if is_per_channel { channels } else { 1 };
        let scales = (0..count).map(|i| 0.25 + 0.0625 * (i % 3) as f32);
        let scales = tensor(dims, scales.collect());
        let zeros = Tensor::from_bytes(DType::I8, dims, vec![0u8; count].into())
            .expect("there are as many bytes as the lengths say");
        let [scale, zero] = ["scale", "zero"].map(|n| self.graph.fresh_name(n));
        let scale = self.graph.add_constant(&scale, scales);
        let zero = self.graph.add_constant(&zero, zeros);
        let quantise = Node::new("QuantizeLinear", "").with("axis", Attribute::Int(1));
        let small = self.op(quantise, &[x, scale, zero]);
        let dequantise = Node::new("DequantizeLinear", "").with("axis", Attribute::Int(1));
        (self.op(dequantise, &[small, scale, zero]), channels, side)
    }
}
