//! The layers that are counted, and the program that calls them.

use edgesmith_codegen::kernels::{
    Flavour, Geometry, pack_conv, pack_conv_f32, pack_conv_w4, pack_dense, pack_dense_f32,
    pack_dense_w4, pack_depthwise, pack_depthwise_3x3, pack_depthwise_f32, scratch_conv,
    scratch_conv_1x1, scratch_conv_1x1_w4, scratch_conv_w4, scratch_depthwise,
    scratch_depthwise_3x3,
};

/// A layer.
pub struct Layer {
    /// Its kernel.
    pub kernel: &'static str,
    /// Its sizes in words.
    pub name: &'static str,
    /// Rows, columns and channels read; channels written.
    sizes: [usize; 4],
    /// Kernel, stride and padding, the same on both sides.
    steps: [usize; 3],
}

const fn layer(
    kernel: &'static str,
    name: &'static str,
    sizes: [usize; 4],
    steps: [usize; 3],
) -> Layer {
    Layer {
        kernel,
        name,
        sizes,
        steps,
    }
}

/// All of them.
pub static LAYERS: &[Layer] = &[
    layer("conv8_1x1", "25x5x64->64", [25, 5, 64, 64], [1, 1, 0]),
    layer("conv8_1x1", "24x24x16->32", [24, 24, 16, 32], [1, 1, 0]),
    layer("conv8", "3x3,32x32x16->16", [32, 32, 16, 16], [3, 1, 1]),
    layer("conv8", "3x3,16x16x16->16", [16, 16, 16, 16], [3, 1, 1]),
    layer("conv8", "3x3,32x32x3->16", [32, 32, 3, 16], [3, 1, 1]),
    layer("conv8", "3x3,48x48x1->8", [48, 48, 1, 8], [3, 1, 1]),
    layer("depthwise8_3x3", "25x5x64", [25, 5, 64, 64], [3, 1, 1]),
    layer("depthwise8_3x3", "24x24x32", [24, 24, 32, 32], [3, 1, 1]),
    layer(
        "depthwise8_3x3",
        "24x24x32,stride2",
        [24, 24, 32, 32],
        [3, 2, 1],
    ),
    layer("depthwise8_3x3", "6x6x128", [6, 6, 128, 128], [3, 1, 1]),
    layer("depthwise8_3x3", "3x3x256", [3, 3, 256, 256], [3, 1, 1]),
    layer("depthwise8", "3x3,6x6x128", [6, 6, 128, 128], [3, 1, 1]),
    layer("depthwise8", "5x5,12x12x32", [12, 12, 32, 32], [5, 1, 2]),
    layer("dense8", "256->64", [1, 1, 256, 64], [1, 1, 0]),
    layer("dense8", "640->128", [1, 1, 640, 128], [1, 1, 0]),
    layer("conv8_w4", "3x3,16x16x16->16", [16, 16, 16, 16], [3, 1, 1]),
    layer("conv8_1x1_w4", "25x5x64->64", [25, 5, 64, 64], [1, 1, 0]),
    layer("dense8_w4", "256->64", [1, 1, 256, 64], [1, 1, 0]),
    layer("conv_f32", "3x3,16x16x16->16", [16, 16, 16, 16], [3, 1, 1]),
    layer("conv_f32_1x1", "12x12x32->32", [12, 12, 32, 32], [1, 1, 0]),
    layer("depthwise_f32", "3x3,12x12x32", [12, 12, 32, 32], [3, 1, 1]),
    layer("dense_f32", "128->64", [1, 1, 128, 64], [1, 1, 0]),
];

impl Layer {
    fn geometry(&self) -> Geometry {
        let [in_h, in_w, in_c, out_c] = self.sizes;
        let [k, s, pad] = self.steps;
        let out = |n: usize| (n + 2 * pad - k) / s + 1;
        Geometry {
            in_h,
            in_w,
            in_c,
            out_h: out(in_h),
            out_w: out(in_w),
            out_c,
            kernel: [k, k],
            stride: [s, s],
            pad: [pad, pad],
            dilation: [1, 1],
            groups: if self.kernel.starts_with("depthwise") {
                in_c
            } else {
                1
            },
        }
    }

    fn int8(&self, i: usize, g: &Geometry, flavour: Flavour) -> String {
        let raw: Vec<i8> = (0..g.out_c * g.depth())
            .map(|i| (i * 37 % 251) as u8 as i8)
            .collect();
        let (w, scratch) = match self.kernel {
            "conv8" => (pack_conv(flavour, &raw, g), scratch_conv(flavour, g)),
            "conv8_1x1" => (pack_conv(flavour, &raw, g), scratch_conv_1x1(flavour, g)),
            "depthwise8" => (
                pack_depthwise(flavour, &raw, g),
                scratch_depthwise(flavour, g),
            ),
            "depthwise8_3x3" => (
                pack_depthwise_3x3(flavour, &raw, g),
                scratch_depthwise_3x3(flavour, g),
            ),
            "conv8_w4" => (pack_conv_w4(flavour, &raw, g), scratch_conv_w4(flavour, g)),
            "conv8_1x1_w4" => (
                pack_conv_w4(flavour, &raw, g),
                scratch_conv_1x1_w4(flavour, g),
            ),
            "dense8_w4" => (pack_dense_w4(flavour, &raw, g.in_c), 0),
            _ => (pack_dense(flavour, &raw, g.in_c), 0),
        };
        assert!(
            scratch <= 8192,
            "{} takes {scratch} bytes of scratch",
            self.name
        );
        let list: Vec<String> = w.iter().map(|b| (*b as i8).to_string()).collect();
        let weights = format!(
            "static const int8_t w{i}[] __attribute__((aligned(16))) = {{{}}};\n",
            list.join(",")
        );
        let requant = "{bias, mult, -128, -128, 127, 0}";
        let sizes = if self.kernel.starts_with("dense8") {
            format!(
                "static const es_dense p{i} = {{1, {}, {}, {requant}}};\n",
                g.in_c, g.out_c
            )
        } else {
            format!(
                "static const es_conv p{i} = {{{}, -128, {requant}}};\n",
                sizes(g)
            )
        };
        weights + &sizes
    }

    fn int8_call(&self, i: usize) -> String {
        let arguments = match self.kernel {
            "dense8" | "dense8_w4" => format!("(const es_dense *)at, x, w{i}, y"),
            _ => format!("(const es_conv *)at, x, w{i}, y, scratch"),
        };
        format!(
            "    at = &p{i}; begin(); es_{}({arguments}); end();\n",
            self.kernel
        )
    }

    fn real(&self, i: usize, g: &Geometry) -> String {
        let raw: Vec<f32> = (0..g.out_c * g.depth()).map(|i| (i % 17) as f32).collect();
        let w = match self.kernel {
            "depthwise_f32" => pack_depthwise_f32(&raw, g),
            "dense_f32" => pack_dense_f32(&raw, g.in_c),
            _ => pack_conv_f32(&raw, g),
        };
        let list: Vec<String> = w.iter().map(|b| format!("{b:.1}f")).collect();
        let weights = format!("static const float w{i}[] = {{{}}};\n", list.join(","));
        let limits = "(const float *)bias, 0.0f, 6.0f";
        let sizes = if self.kernel == "dense_f32" {
            format!(
                "static const es_densef p{i} = {{1, {}, {}, {limits}}};\n",
                g.in_c, g.out_c
            )
        } else {
            format!("static const es_convf p{i} = {{{}, {limits}}};\n", sizes(g))
        };
        weights + &sizes
    }

    fn real_call(&self, i: usize) -> String {
        let (kind, last) = match self.kernel {
            "dense_f32" => ("es_densef", ""),
            "depthwise_f32" => ("es_convf", ""),
            _ => ("es_convf", ", scratch"),
        };
        format!(
            "    at = &p{i}; begin(); es_{}((const {kind} *)at, (const float *)x, w{i}, (float *)y{last}); end();\n",
            self.kernel
        )
    }

    /// Multiplications.
    pub fn work(&self) -> usize {
        let g = self.geometry();
        g.out_h * g.out_w * g.out_c * g.depth()
    }
}

fn sizes(g: &Geometry) -> String {
    format!(
        "{}, {}, {}, {}, {}, {}, {k}, {k}, {s}, {s}, {p}, {p}, 1, 1, {}",
        g.in_h,
        g.in_w,
        g.in_c,
        g.out_h,
        g.out_w,
        g.out_c,
        g.groups,
        k = g.kernel[0],
        s = g.stride[0],
        p = g.pad[0],
    )
}

/// C that runs each layer once between two looks at the clock.
pub fn program(flavour: Flavour, layers: &[&Layer]) -> String {
    let mut c = include_str!("head.c").to_owned();
    let mut calls = String::new();
    for (i, layer) in layers.iter().enumerate() {
        let g = layer.geometry();
        if layer.kernel.contains("f32") {
            c += &layer.real(i, &g);
            calls += &layer.real_call(i);
        } else {
            c += &layer.int8(i, &g, flavour);
            calls += &layer.int8_call(i);
        }
    }
    c + "int main(void)\n{\n" + &calls + "    return 0;\n}\n"
}
