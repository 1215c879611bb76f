//! The list of kernels on int8 that do not multiply by weights.

use super::Kernel;
use super::int8::by;

pub(super) static ADD8: Kernel = Kernel {
    name: "add8",
    about: "the sum or difference of two int8 of own scales",
    needs: &["base"],
    source: |f| {
        by(
            f,
            [
                include_str!("add8/c.c"),
                include_str!("add8/dsp.c"),
                include_str!("add8/mve.c"),
            ],
        )
    },
};

pub(super) static MUL8: Kernel = Kernel {
    name: "mul8",
    about: "the product of two int8 of own scales",
    needs: &["requant"],
    source: |_| include_str!("mul8/c.c"),
};

pub(super) static POOL: Kernel = Kernel {
    name: "pool",
    about: "the sizes of a pool",
    needs: &["base"],
    source: |_| include_str!("pool/c.c"),
};

pub(super) static MAXPOOL8: Kernel = Kernel {
    name: "maxpool8",
    about: "the greatest int8 of each window",
    needs: &["pool"],
    source: |f| {
        by(
            f,
            [
                include_str!("maxpool8/c.c"),
                include_str!("maxpool8/dsp.c"),
                include_str!("maxpool8/mve.c"),
            ],
        )
    },
};

pub(super) static AVGPOOL8: Kernel = Kernel {
    name: "avgpool8",
    about: "the mean of the int8 of each window",
    needs: &["pool", "requant"],
    source: |f| {
        by(
            f,
            [
                include_str!("avgpool8/c.c"),
                include_str!("avgpool8/dsp.c"),
                include_str!("avgpool8/mve.c"),
            ],
        )
    },
};

pub(super) static MEAN8: Kernel = Kernel {
    name: "mean8",
    about: "the mean of int8 over all pixels",
    needs: &["requant"],
    source: |_| include_str!("mean8/c.c"),
};

pub(super) static LOOKUP8: Kernel = Kernel {
    name: "lookup8",
    about: "a function of int8 by a table",
    needs: &["base"],
    source: |f| {
        by(
            f,
            [
                include_str!("lookup8/c.c"),
                include_str!("lookup8/c.c"),
                include_str!("lookup8/mve.c"),
            ],
        )
    },
};

pub(super) static SOFTMAX8: Kernel = Kernel {
    name: "softmax8",
    about: "softmax of rows of int8 by a table",
    needs: &["requant"],
    source: |_| include_str!("softmax8/c.c"),
};

pub(super) static MOVE: Kernel = Kernel {
    name: "move_bytes",
    about: "runs of bytes by steps over five axes",
    needs: &["base"],
    source: |_| include_str!("move/c.c"),
};

pub(super) static RESIZE_NEAREST: Kernel = Kernel {
    name: "resize_nearest",
    about: "pixels by tables of rows and columns",
    needs: &["base"],
    source: |_| include_str!("resize_nearest/c.c"),
};
