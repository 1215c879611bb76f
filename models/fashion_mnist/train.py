#!/usr/bin/env python3
"""Trains the Fashion-MNIST example and writes model.onnx, calib.npz and test.npz.

On Debian 12, whose PyTorch is of the system's Python; the venv adds ONNX and ONNX Runtime:

    apt-get install dataset-fashion-mnist python3-torch python3-venv
    /usr/bin/python3 -m venv --system-site-packages venv
    venv/bin/pip install -r models/fashion_mnist/requirements.txt
    taskset -c 0 venv/bin/python models/fashion_mnist/train.py --out models/fashion_mnist

Without root, `apt-get download dataset-fashion-mnist` and `dpkg -x *.deb DIR` do for the images;
then give `--data DIR/usr/share/datasets/fashion-mnist`. The seed is fixed and one thread is used,
so the same PyTorch on the same kind of processor gives the same weights. The committed model had the
default 14 epochs and gets 93.53 % of the test images right. `--checkpoints DIR` keeps the weights
of each epoch, and `--export FILE` writes the model of such a file without training.
"""

import argparse
import ctypes
import gzip
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
STEM = 32
# Output channels and stride of the depthwise-separable blocks. A block that keeps the shape adds its input.
BLOCKS = [(64, 2), (64, 1), (128, 2), (128, 1), (256, 1), (256, 1)]
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9  # the share that the running statistics keep, as ONNX counts
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


def augment(images, chosen):
    """The chosen images in 0..1, each moved by up to a pixel both ways and mirrored half of the time.

    `images` are bytes with a border of one zero pixel, [n, 30, 30]; the result is [batch, 1, 28, 28].
    """
    n = len(chosen)
    rows, columns = torch.arange(28).expand(n, 28), torch.arange(28).expand(n, 28)
    columns = torch.where(torch.rand(n, 1) < 0.5, 27 - columns, columns)
    rows, columns = rows + torch.randint(0, 3, (n, 1)), columns + torch.randint(0, 3, (n, 1))
    moved = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved[:, None].float() / 255


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


class Layer(nn.Module):
    """Convolution that keeps the size (or halves it, at stride 2), BatchNormalization, ReLU."""

    def __init__(self, cin, cout, size, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout, BN_EPSILON, 1 - BN_MOMENTUM)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x):
        return F.relu_(self.bn(self.conv(x)))


class Block(nn.Module):
    """A depthwise-separable block."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.depthwise = Layer(cin, cin, 3, stride, groups=cin)
        self.pointwise = Layer(cin, cout, 1)
        self.adds = stride == 1 and cin == cout

    def forward(self, x):
        y = self.pointwise(self.depthwise(x))
        return y + x if self.adds else y


class Network(nn.Module):
    """Logits [n, 10] of images [n, 1, 28, 28] in 0..1."""

    def __init__(self):
        super().__init__()
        self.stem = Layer(1, STEM, 3)
        inputs = [STEM, *(channels for channels, _ in BLOCKS)]
        self.blocks = nn.Sequential(*(Block(cin, *block) for cin, block in zip(inputs, BLOCKS)))
        self.head = nn.Linear(inputs[-1], 10)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


# --- training -----------------------------------------------------------------------------------


def keep_memory():
    """Has the C library keep freed memory: fresh pages for each tensor cost a third of the time."""
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def optimiser(network, steps, args):
    """SGD with Nesterov's momentum, and its rate: a linear rise, then half a cosine down to zero.

    The kernels decay, those of depthwise convolutions too, so that INT8 has narrow ranges to cover;
    the parameters of BatchNormalization and the bias do not.
    """
    decaying = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": decaying, "weight_decay": args.decay}, {"params": others, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, args.rate, momentum=0.9, nesterov=True)
    rise = 0.15 * steps

    def share(step):
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + np.cos(np.pi * (step - rise) / (steps - rise)))

    return sgd, torch.optim.lr_scheduler.LambdaLR(sgd, share)


def train(images, labels, args):
    """The trained network's arrays by name."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    keep_memory()
    network = Network().to(memory_format=torch.channels_last)
    images, labels = F.pad(torch.tensor(images), (1, 1, 1, 1)), torch.tensor(labels)
    per_epoch = len(images) // args.batch
    sgd, schedule = optimiser(network, args.epochs * per_epoch, args)
    for epoch in range(1, args.epochs + 1):
        started, total, right = time.time(), 0.0, 0
        order = torch.randperm(len(images))
        for chosen in order[: per_epoch * args.batch].split(args.batch):
            x = augment(images, chosen).contiguous(memory_format=torch.channels_last)
            logits = network(x)
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=args.smoothing)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
            total += loss.item()
            right += (logits.argmax(1) == labels[chosen]).sum().item()
        seconds, share = time.time() - started, 100 * right / (per_epoch * args.batch)
        print(
            f"epoch {epoch}/{args.epochs}  loss {total / per_epoch:.4f}  "
            f"training accuracy {share:.2f} %  {seconds:.0f} s",
            flush=True,
        )
        if args.checkpoints:
            args.checkpoints.mkdir(parents=True, exist_ok=True)
            torch.save(network.state_dict(), args.checkpoints / f"epoch-{epoch:02}.pt")
    return arrays_of(network.state_dict())


def arrays_of(state):
    """A state of the network as numpy arrays by name."""
    return {name: tensor.numpy() for name, tensor in state.items()}


# --- export -------------------------------------------------------------------------------------


class Exporter:
    """Collects nodes; a node and the value that it writes have one name."""

    def __init__(self, trained):
        self.trained = trained
        self.nodes = []
        self.initializers = []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def layer(self, x, module, name, stride=1, group=1):
        """The nodes of a Layer of the network, named after `name`."""
        weight = self.trained[f"{module}.conv.weight"]
        size = weight.shape[2]
        x = self.node(
            "Conv", f"{name}.conv", [x, self.constant(f"{name}.conv.weight", weight)],
            dilations=[1, 1], group=group,
            kernel_shape=[size, size], pads=[size // 2] * 4, strides=[stride, stride],
        )  # fmt: skip
        parts = ["weight", "bias", "running_mean", "running_var"]
        parameters = [self.constant(f"{name}.bn.{p}", self.trained[f"{module}.bn.{p}"]) for p in parts]
        x = self.node(
            "BatchNormalization", f"{name}.bn", [x, *parameters],
            epsilon=BN_EPSILON, momentum=BN_MOMENTUM,
        )  # fmt: skip
        return self.node("Relu", f"{name}.relu", [x])


def export(trained, about):
    """The ONNX model of the trained network."""
    exporter = Exporter(trained)
    x, channels = exporter.layer("image", "stem", "stem"), STEM
    for i, (out, stride) in enumerate(BLOCKS):
        block_input = x
        x = exporter.layer(x, f"blocks.{i}.depthwise", f"dw{i}", stride, channels)
        x = exporter.layer(x, f"blocks.{i}.pointwise", f"pw{i}")
        if stride == 1 and out == channels:
            x = exporter.node("Add", f"add{i}", [x, block_input])
        channels = out
    x = exporter.node("GlobalAveragePool", "pool", [x])
    x = exporter.node("Flatten", "flatten", [x], axis=1)
    weight = exporter.constant("head.weight", trained["head.weight"])
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
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--smoothing", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="keep each epoch's weights here")
    parser.add_argument("--export", type=Path, metavar="FILE", help="a checkpoint to write, without training")
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
    trained = arrays_of(torch.load(args.export)) if args.export else train(images, labels, args)
    onnx.save(export(trained, about), path)
    for name, n in (("test images", len(test_labels)), ("committed test images", TEST_IMAGES)):
        print(f"accuracy on {n} {name}: {accuracy(path, test_images[:n], test_labels[:n]):.2f} %")


if __name__ == "__main__":
    main()
