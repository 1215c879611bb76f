//! The layers that are counted, and the program that calls them.

use edgesmith_codegen::kernels::{
    Flavour, Geometry, pack_conv, pack_dense, pack_depthwise, pack_depthwise_3x3, scratch_conv,
    scratch_conv_1x1, scratch_depthwise, scratch_depthwise_3x3,
};
use std::fmt::Write as _;

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
    layer("depthwise8_3x3", "3x3x256", [3, 3, 256, 256], [3, 1, 1]),
    layer("depthwise8", "5x5,12x12x32", [12, 12, 32, 32], [5, 1, 2]),
    layer("dense8", "256->64", [1, 1, 256, 64], [1, 1, 0]),
    layer("dense8", "640->128", [1, 1, 640, 128], [1, 1, 0]),
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

    /// Multiplications.
    pub fn work(&self) -> usize {
        let g = self.geometry();
        g.out_h * g.out_w * g.out_c * g.depth()
    }
}

/// C that runs each layer once between two looks at the clock.
pub fn program(flavour: Flavour, layers: &[&Layer]) -> String {
    let mut c = include_str!("head.c").to_owned();
    let mut calls = String::new();
    for (i, layer) in layers.iter().enumerate() {
        let g = layer.geometry();
        let raw: Vec<i8> = (0..g.out_c * g.depth())
            .map(|i| (i * 37 % 251) as u8 as i8)
            .collect();
        let (w, scratch) = match layer.kernel {
            "conv8" => (pack_conv(flavour, &raw, &g), scratch_conv(flavour, &g)),
            "conv8_1x1" => (pack_conv(flavour, &raw, &g), scratch_conv_1x1(flavour, &g)),
            "depthwise8" => (
                pack_depthwise(flavour, &raw, &g),
                scratch_depthwise(flavour, &g),
            ),
            "depthwise8_3x3" => (
                pack_depthwise_3x3(flavour, &raw, &g),
                scratch_depthwise_3x3(flavour, &g),
            ),
            _ => (pack_dense(flavour, &raw, g.in_c), 0),
        };
        assert!(
            scratch <= 8192,
            "{} takes {scratch} bytes of scratch",
            layer.name
        );
        let list: Vec<String> = w.iter().map(|b| (*b as i8).to_string()).collect();
        let _ = writeln!(
            c,
            "static const int8_t w{i}[] __attribute__((aligned(16))) = {{{}}};",
            list.join(",")
        );
        let requant = "{bias, mult, -128, -128, 127, 0}";
        if layer.kernel == "dense8" {
            let _ = writeln!(
                c,
                "static const es_dense p{i} = {{1, {}, {}, {requant}}};",
                g.in_c, g.out_c
            );
            let _ = writeln!(
                calls,
                "    at = &p{i}; begin(); es_dense8((const es_dense *)at, x, w{i}, y); end();"
            );
        } else {
            let _ = writeln!(
                c,
                "static const es_conv p{i} = {{{}, {}, {}, {}, {}, {}, {k}, {k}, {s}, {s}, {p}, {p}, 1, 1, {}, -128, {requant}}};",
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
            );
            let _ = writeln!(
                calls,
                "    at = &p{i}; begin(); es_{}((const es_conv *)at, x, w{i}, y, scratch); end();",
                layer.kernel
            );
        }
    }
    c + "int main(void)\n{\n" + &calls + "    return 0;\n}\n"
}
