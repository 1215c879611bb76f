#!/usr/bin/env python3
"""Trains the Fashion-MNIST example and writes model.onnx, calib.npz and test.npz.

    apt-get install dataset-fashion-mnist
    python3 -m venv venv
    venv/bin/pip install -r models/fashion_mnist/requirements.txt
    taskset -c 0 venv/bin/python models/fashion_mnist/train.py --out models/fashion_mnist

Without root, `apt-get download dataset-fashion-mnist` and `dpkg -x *.deb DIR` do as well; then give
`--data DIR/usr/share/datasets/fashion-mnist`. One core trains an epoch in about five minutes;
the committed model had the default two. The seed is fixed.
"""

import argparse
import gzip
import io
import os
import time
import zipfile
from functools import partial
from pathlib import Path

# One thread: the order of additions, and so the weights, does not depend on the number of cores.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
STEM = 32
# Output channels and stride of the depthwise-separable blocks. A block that keeps the shape adds its input.
BLOCKS = [(64, 2), (64, 1), (96, 1), (128, 2), (128, 1), (128, 1)]
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9
CALIBRATION_IMAGES = 500
TEST_IMAGES = 2000


# --- data ---------------------------------------------------------------------------------------


def read_idx(path):
    """The array of a gzipped idx file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def as_input(images):
    """Images of bytes as the model's input: float32 [n, 1, 28, 28], pixel / 255."""
    return images[:, None].astype(np.float32) / np.float32(255)


def augment(rng, images):
    """A batch of images, each moved by up to two pixels both ways and mirrored half of the time."""
    n = len(images)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(1, 2))
    moved = windows[np.arange(n), rng.integers(0, 5, n), rng.integers(0, 5, n)]
    mirror = rng.random(n) < 0.5
    moved[mirror] = moved[mirror, :, ::-1]
    return moved


def write_npz(path, arrays):
    """A compressed npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


# --- network ------------------------------------------------------------------------------------


def layers():
    """Name, kind, input channels, output channels, stride of each convolution in order."""
    yield "stem", "full", 1, STEM, 1
    channels = STEM
    for i, (out, stride) in enumerate(BLOCKS):
        yield f"blocks.{i}.depthwise", "depthwise", channels, channels, stride
        yield f"blocks.{i}.pointwise", "pointwise", channels, out, 1
        channels = out


def initialise(rng):
    """Weights by He's rule, and the running statistics of each BatchNormalization."""
    weights, statistics = {}, {}
    for name, kind, cin, cout, _ in layers():
        shape = {"full": (9 * cin, cout), "depthwise": (9, cin), "pointwise": (cin, cout)}[kind]
        scale = np.sqrt(2 / shape[0])
        weights[f"{name}.conv.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        weights[f"{name}.bn.weight"] = np.ones(cout, np.float32)
        weights[f"{name}.bn.bias"] = np.zeros(cout, np.float32)
        statistics[f"{name}.bn.running_mean"] = np.zeros(cout, np.float32)
        statistics[f"{name}.bn.running_var"] = np.ones(cout, np.float32)
    features = BLOCKS[-1][0]
    weights["head.weight"] = rng.normal(0, features**-0.5, (features, 10)).astype(np.float32)
    weights["head.bias"] = np.zeros(10, np.float32)
    return weights, statistics


def taps(x, stride):
    """The nine shifted views of x [n, h, w, c] that a 3x3 kernel with padding 1 reads."""
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x, weight, stride):
    """A depthwise 3x3 convolution of x [n, h, w, c] by weight [9, c]."""
    return sum(tap * weight[k] for k, tap in enumerate(taps(x, stride)))


def depthwise_forward(x, weight, stride):
    return depthwise(x, weight, stride), (x, weight)


def depthwise_backward(stride, saved, slope):
    x, weight = saved
    (x_slope,) = jax.vjp(lambda x: sum(t * weight[k] for k, t in enumerate(taps(x, stride))), x)[1](slope)

    # Image by image: XLA's own reduction of the whole batch takes four times as long.
    def add_image(total, image):
        one, its_slope = image
        return total + jnp.stack([tap[0] * its_slope for tap in taps(one[None], stride)]), None

    total, _ = jax.lax.scan(add_image, jnp.zeros((9, *slope.shape[1:])), (x, slope))
    return x_slope, total.sum((1, 2))


depthwise.defvjp(depthwise_forward, depthwise_backward)


def convolve(x, weight, kind, stride):
    """Convolution of x [n, h, w, c] as products of matrices and of shifted views."""
    if kind == "pointwise":
        return x @ weight
    if kind == "depthwise":
        return depthwise(x, weight, stride)
    return jnp.concatenate(taps(x, stride), axis=-1) @ weight


def forward(weights, statistics, images, training):
    """Logits [n, 10] of images [n, 28, 28] in 0..1, and the running statistics after them."""
    updated = {}

    def layer(x, name, kind, stride):
        # The barriers keep XLA from computing a layer again for each of the nine taps that read it.
        x = jax.lax.optimization_barrier(convolve(x, weights[f"{name}.conv.weight"], kind, stride))
        mean = statistics[f"{name}.bn.running_mean"]
        var = statistics[f"{name}.bn.running_var"]
        if training:
            batch_mean = x.mean((0, 1, 2))
            batch_var = jnp.square(x).mean((0, 1, 2)) - jnp.square(batch_mean)
            updated[f"{name}.bn.running_mean"] = mean + (1 - BN_MOMENTUM) * (batch_mean - mean)
            updated[f"{name}.bn.running_var"] = var + (1 - BN_MOMENTUM) * (batch_var - var)
            mean, var = batch_mean, batch_var
        scale = weights[f"{name}.bn.weight"] * jax.lax.rsqrt(var + BN_EPSILON)
        x = jax.nn.relu((x - mean) * scale + weights[f"{name}.bn.bias"])
        return jax.lax.optimization_barrier(x)

    x = images[..., None]
    block_input = None
    for name, kind, _, _, stride in layers():
        if kind == "depthwise":
            block_input = x
        x = layer(x, name, kind, stride)
        if kind == "pointwise" and x.shape == block_input.shape:
            x = x + block_input
    return x.mean((1, 2)) @ weights["head.weight"] + weights["head.bias"], updated


# --- training -----------------------------------------------------------------------------------


def loss_of(weights, statistics, images, labels, smoothing):
    """Cross entropy with smoothed labels, and the running statistics."""
    logits, updated = forward(weights, statistics, images, training=True)
    target = jax.nn.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
    return -(target * jax.nn.log_softmax(logits)).sum(-1).mean(), updated


def train_step(weights, velocity, statistics, images, labels, rate, decay, smoothing):
    """One step of SGD with Nesterov's momentum; only the kernels' weights decay."""
    images = images.astype(jnp.float32) / 255
    (loss, statistics), slopes = jax.value_and_grad(loss_of, has_aux=True)(
        weights, statistics, images, labels, smoothing
    )
    for name, weight in weights.items():
        slope = slopes[name] + (decay * weight if weight.ndim == 2 else 0)
        velocity[name] = 0.9 * velocity[name] + slope
        weights[name] = weight - rate * (slope + 0.9 * velocity[name])
    return weights, velocity, statistics, loss


def learning_rate(progress, peak):
    """Linear warm-up over the first tenth, then half a cosine down to zero."""
    if progress < 0.1:
        return peak * progress / 0.1
    return peak * 0.5 * (1 + np.cos(np.pi * (progress - 0.1) / 0.9))


def train(images, labels, args):
    """Trained weights and running statistics, as numpy arrays by name."""
    rng = np.random.default_rng(args.seed)
    weights, statistics = initialise(rng)
    velocity = {name: np.zeros_like(weight) for name, weight in weights.items()}
    step = jax.jit(train_step, donate_argnums=(0, 1, 2), static_argnums=(6, 7))
    per_epoch = len(images) // args.batch
    for epoch in range(args.epochs):
        started, total = time.time(), 0.0
        order = rng.permutation(len(images))
        for i in range(per_epoch):
            chosen = order[i * args.batch : (i + 1) * args.batch]
            progress = (epoch + i / per_epoch) / args.epochs
            weights, velocity, statistics, loss = step(
                weights, velocity, statistics, augment(rng, images[chosen]), labels[chosen],
                np.float32(learning_rate(progress, args.rate)), args.decay, args.smoothing,
            )  # fmt: skip
            total += float(loss)
        seconds = time.time() - started
        print(f"epoch {epoch + 1}/{args.epochs}  loss {total / per_epoch:.4f}  {seconds:.0f} s", flush=True)
    return {name: np.asarray(value) for name, value in {**weights, **statistics}.items()}


# --- export -------------------------------------------------------------------------------------


def onnx_weight(array, kind):
    """A kernel [taps * cin, cout] as ONNX stores it: [cout, cin / group, height, width]."""
    if kind == "pointwise":
        return array.T[:, :, None, None]
    return array.T.reshape(array.shape[1], -1, 3, 3)


class Exporter:
    """Collects nodes, each named like its module and writing a value of the same name."""

    def __init__(self, trained):
        self.trained = trained
        self.nodes = []
        self.initializers = []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op, name, inputs, **attributes):
        output = f"{name}.output"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def layer(self, x, name, kind, channels, stride):
        weight = onnx_weight(self.trained[f"{name}.conv.weight"], kind)
        size = weight.shape[2]
        x = self.node(
            "Conv", f"{name}.conv", [x, self.constant(f"{name}.conv.weight", weight)],
            dilations=[1, 1], group=channels if kind == "depthwise" else 1,
            kernel_shape=[size, size], pads=[size // 2] * 4, strides=[stride, stride],
        )  # fmt: skip
        parts = ["weight", "bias", "running_mean", "running_var"]
        names = [f"{name}.bn.{part}" for part in parts]
        parameters = [self.constant(n, self.trained[n]) for n in names]
        x = self.node(
            "BatchNormalization", f"{name}.bn", [x, *parameters],
            epsilon=BN_EPSILON, momentum=BN_MOMENTUM,
        )  # fmt: skip
        return self.node("Relu", f"{name}.relu", [x])


def export(trained, about):
    """The ONNX model of the trained network."""
    exporter = Exporter(trained)
    x = block_input = "image"
    for name, kind, cin, cout, stride in layers():
        if kind == "depthwise":
            block_input, block_channels, keeps_size = x, cin, stride == 1
        x = exporter.layer(x, name, kind, cout, stride)
        if kind == "pointwise" and keeps_size and cout == block_channels:
            x = exporter.node("Add", name.replace("pointwise", "add"), [x, block_input])
    x = exporter.node("GlobalAveragePool", "pool", [x])
    x = exporter.node("Flatten", "flatten", [x], axis=1)
    weight = exporter.constant("head.weight", trained["head.weight"].T)
    bias = exporter.constant("head.bias", trained["head.bias"])
    exporter.nodes.append(
        helper.make_node("Gemm", [x, weight, bias], ["logits"], name="head", alpha=1.0, beta=1.0, transB=1)
    )
    graph = helper.make_graph(
        exporter.nodes,
        "fashion_mnist",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        exporter.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name, model.producer_version = "edgesmith models/fashion_mnist/train.py", "1"
    model.doc_string = about
    helper.set_model_props(
        model,
        {
            "class_names": ",".join(CLASSES),
            "data": "Fashion-MNIST, Copyright 2017 Zalando SE, MIT licence",
            "input": "image: float32 [batch, 1, 28, 28], grey, pixel / 255",
            "license": "MIT OR Apache-2.0",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(path, images, labels):
    """Share of images that ONNX Runtime classifies rightly, in percent."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = np.array_split(as_input(images), max(1, len(images) // 500))
    found = np.concatenate([session.run(None, {"image": part})[0].argmax(1) for part in parts])
    return 100 * float((found == labels).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    sets = [(f"{s}-images-idx3-ubyte.gz", f"{s}-labels-idx1-ubyte.gz") for s in ("train", "t10k")]
    (images, labels), (test_images, test_labels) = [
        (read_idx(args.data / i), read_idx(args.data / l).astype(np.int64)) for i, l in sets
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    write_npz(args.out / "calib.npz", {"image": as_input(images[:CALIBRATION_IMAGES])})
    few = {"image": as_input(test_images[:TEST_IMAGES]), "labels": test_labels[:TEST_IMAGES]}
    write_npz(args.out / "test.npz", few)

    about = (
        "Classifies Fashion-MNIST images: a 3x3 convolution, six depthwise-separable blocks, "
        "a mean over the image, a linear layer. Trained by models/fashion_mnist/train.py."
    )
    path = args.out / "model.onnx"
    onnx.save(export(train(images, labels, args), about), path)
    for name, n in (("test images", len(test_labels)), ("committed test images", TEST_IMAGES)):
        print(f"accuracy on {n} {name}: {accuracy(path, test_images[:n], test_labels[:n]):.2f} %")


if __name__ == "__main__":
    main()
