//! Models of one layer each, quantised: by tables of their nodes.

use edgesmith_ir::Model;

use super::made::{model, quantised, quantised_to, single};

/// A model with its name.
type Named = (String, Model);

/// Name, lengths of the input, and nodes.
type Row = (&'static str, &'static str, &'static str);

/// Convolutions: name, lengths of the input, weights and biases, attributes.
static CONVS: &[(&str, &str, &str, &str)] = &[
    (
        "1x1",
        "[n,5,4,3]",
        "w: f32[7,5,1,1] = {W35} b: f32[7] = {W7}",
        "",
    ),
    (
        "3x3",
        "[n,3,6,5]",
        "w: f32[4,3,3,3] = {W108} b: f32[4] = {W4}",
        "pads=[1,1,1,1]",
    ),
    (
        "3x3 steps",
        "[n,3,7,8]",
        "w: f32[5,3,3,3] = {W135} b: f32[5] = {W5}",
        "pads=[0,0,1,1], strides=[2,2]",
    ),
    (
        "5x3 gaps",
        "[n,2,12,9]",
        "w: f32[3,2,5,3] = {W90} b: f32[3] = {W3}",
        "dilations=[2,1], pads=[4,1,4,1]",
    ),
    (
        "one channel",
        "[n,1,9,5]",
        "w: f32[6,1,4,2] = {W48} b: f32[6] = {W6}",
        "strides=[2,1]",
    ),
    (
        "depthwise",
        "[n,6,7,5]",
        "w: f32[6,1,3,3] = {W54} b: f32[6] = {W6}",
        "group=6, pads=[1,1,1,1]",
    ),
    (
        "depthwise steps",
        "[n,5,8,7]",
        "w: f32[5,1,3,3] = {W45} b: f32[5] = {W5}",
        "group=5, pads=[0,0,1,1], strides=[2,2]",
    ),
    (
        "depthwise 5x5",
        "[n,3,9,6]",
        "w: f32[3,1,5,5] = {W75} b: f32[3] = {W3}",
        "group=3, pads=[2,2,2,2]",
    ),
    (
        "groups",
        "[n,6,5,5]",
        "w: f32[4,3,3,3] = {W108} b: f32[4] = {W4}",
        "group=2, pads=[1,1,1,1]",
    ),
    (
        "one axis",
        "[n,4,19]",
        "w: f32[5,4,3] = {W60} b: f32[5] = {W5}",
        "pads=[1,1], strides=[2]",
    ),
];

/// Products by a matrix.
static PRODUCTS: &[Row] = &[
    (
        "gemm",
        "[n,10]",
        "w: f32[10,7] = {W70} b: f32[7] = {W7} y = Gemm(x, w, b)",
    ),
    (
        "gemm turned",
        "[n,33]",
        "w: f32[5,33] = {W165} b: f32[5] = {W5} y = Gemm(x, w, b) {transB=1}",
    ),
    ("rows", "[n,3,8]", "w: f32[8,9] = {W72} y = MatMul(x, w)"),
];

/// What stands behind a convolution of two channels, by name.
static BEHIND: &[(&str, &str)] = &[
    (
        "max pool",
        "y = MaxPool(c) {kernel_shape=[2,2], strides=[2,2]}",
    ),
    (
        "max pool, pads",
        "y = MaxPool(c) {kernel_shape=[3,3], pads=[1,1,1,1]}",
    ),
    (
        "average pool",
        "y = AveragePool(c) {kernel_shape=[3,2], strides=[1,2]}",
    ),
    (
        "average pool, pads",
        "y = AveragePool(c) {kernel_shape=[3,3], pads=[1,1,1,1]}",
    ),
    (
        "average pool of all",
        "y = AveragePool(c) {kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1}",
    ),
    ("global mean", "y = GlobalAveragePool(c)"),
    ("sigmoid", "y = Sigmoid(c)"),
    ("hard swish", "y = HardSwish(c)"),
    ("leaky", "y = LeakyRelu(c)"),
    ("sum", "v: f32[4,2,1,1] = {W8} d = Conv(x, v) y = Add(c, d)"),
    (
        "sum, clip",
        "v: f32[4,2,1,1] = {W8} d = Conv(x, v) s = Add(c, d) y = Relu(s)",
    ),
    (
        "product",
        "v: f32[4,2,1,1] = {W8} d = Conv(x, v) y = Mul(c, d)",
    ),
    (
        "gate",
        "g = GlobalAveragePool(c) s = Sigmoid(g) y = Mul(c, s)",
    ),
    (
        "join",
        "v: f32[3,2,1,1] = {W6} d = Conv(x, v) y = Concat(c, d) {axis=1}",
    ),
];

/// Layers whose weights get 4 bits.
static NARROW: &[Row] = &[
    (
        "4 bits",
        "[n,5,6,7]",
        "w: f32[7,5,3,3] = {W315} b: f32[7] = {W7} y = Conv(x, w, b) {pads=[1,1,1,1]}",
    ),
    (
        "4 bits, 1x1",
        "[n,5,6,7]",
        "w: f32[6,5,1,1] = {W30} b: f32[6] = {W6} y = Conv(x, w, b)",
    ),
    (
        "4 bits, gemm",
        "[n,19]",
        "w: f32[5,19] = {W95} b: f32[5] = {W5} y = Gemm(x, w, b) {transB=1}",
    ),
];

/// Layers whose activations get 16 bits.
static WIDE: &[Row] = &[
    (
        "16 bits",
        "[n,5,6,7]",
        "w: f32[7,5,3,3] = {W315} b: f32[7] = {W7} y = Conv(x, w, b) {pads=[1,1,1,1]}",
    ),
    (
        "16 bits, depthwise",
        "[n,5,6,7]",
        "w: f32[5,1,3,3] = {W45} b: f32[5] = {W5} c = Conv(x, w, b) {group=5} y = Relu(c)",
    ),
    (
        "16 bits, gemm",
        "[n,19]",
        "w: f32[5,19] = {W95} b: f32[5] = {W5} y = Gemm(x, w, b) {transB=1}",
    ),
];

/// Models of one layer each, by name.
pub fn layers() -> Vec<Named> {
    let mut all = Vec::new();
    for [name, shape, nodes] in in_bytes() {
        let seed = all.len() as u64;
        let model = quantised(&model(&shape, &nodes, seed), "also = [\"Softmax\"]\n");
        all.push((name, model));
    }
    all.extend(NARROW.iter().map(|(name, shape, nodes)| {
        let narrow = quantised(&model(shape, nodes, 5), "weights = \"s4\"\n");
        (String::from(*name), narrow)
    }));
    all.extend(WIDE.iter().map(|(name, shape, nodes)| {
        let wide = quantised_to(&model(shape, nodes, 6), "s16", "symmetric = true\n");
        (String::from(*name), wide)
    }));
    all.extend(transposed());
    let joined = single(model("[n,3,5,4]", JOINED, 9));
    all.push(("join of two grids".to_owned(), joined));
    all
}

/// Bytes of two grids that are joined where no grid is said.
const JOINED: &str = "s: f32[] = {0.003} zs: i8[] = {-128} t: f32[] = {0.0084} zt: i8[] = {4}
    sy: f32[] = {0.0039} zy: i8[] = {-128}
    aq = QuantizeLinear(x, s, zs) a = DequantizeLinear(aq, s, zs)
    bq = QuantizeLinear(x, t, zt) b = DequantizeLinear(bq, t, zt)
    c = Concat(a, b) {axis=1} d = Sigmoid(c)
    yq = QuantizeLinear(d, sy, zy) y = DequantizeLinear(yq, sy, zy)";

/// Name, lengths of the input and nodes of the layers whose numbers all get 8 bits.
fn in_bytes() -> Vec<[String; 3]> {
    let mut all = Vec::new();
    for (name, shape, w, attributes) in CONVS {
        let conv = format!("Conv(x, w, b) {{{attributes}}}");
        let conv = conv.trim_end_matches(" {}");
        for (name, nodes) in [
            (name.to_string(), format!("{w} y = {conv}")),
            (
                format!("{name}, relu"),
                format!("{w} c = {conv} y = Relu(c)"),
            ),
        ] {
            all.push([name, shape.to_string(), nodes]);
        }
    }
    let products = PRODUCTS.iter();
    all.extend(products.map(|(name, shape, nodes)| [*name, *shape, *nodes].map(String::from)));
    let conv = "w: f32[4,2,1,1] = {W8} b: f32[4] = {W4} c = Conv(x, w, b)";
    all.extend(BEHIND.iter().map(|(name, nodes)| {
        let nodes = format!("{conv} {nodes}");
        [name.to_string(), "[n,2,6,5]".to_owned(), nodes]
    }));
    all
}

/// Transposed convolutions, which have their scales already.
fn transposed() -> Vec<Named> {
    let mut all = Vec::new();
    for (name, attributes) in [
        ("transposed", "strides=[2,2]"),
        (
            "transposed, pads",
            "strides=[2,1], pads=[1,1,1,1], output_padding=[1,0]",
        ),
    ] {
        let nodes = format!(
            "s: f32[] = {{0.010173}} zx: i8[] = {{-5}} sw: f32[4] = {{0.00313,0.002071,0.004519,0.0010133}}
             sy: f32[] = {{0.0041237}} zy: i8[] = {{3}} wi: i8[3,4,3,3] = {{I108}} bi: i32[4] = {{I4}}
             sb: f32[4] = {{3.184149318258278e-05,2.1068282876512967e-05,4.597179213305935e-05,1.0308302080375142e-05}} b = DequantizeLinear(bi, sb) {{axis=0}}
             xq = QuantizeLinear(x, s, zx) xd = DequantizeLinear(xq, s, zx)
             w = DequantizeLinear(wi, sw) {{axis=1}}
             c = ConvTranspose(xd, w, b) {{{attributes}}}
             yq = QuantizeLinear(c, sy, zy) y = DequantizeLinear(yq, sy, zy)"
        );
        all.push((name.to_owned(), single(model("[n,3,5,4]", &nodes, 9))));
    }
    all
}
