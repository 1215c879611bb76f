#!/usr/bin/env python3
"""Compares the weights after a step of `edgesmith train` with those after PyTorch's on the CPU.

    python3 scripts/compare_steps.py --edgesmith target/release/edgesmith

LeNet-5 and ResNet-8 (with batch normalisation that trains) go one step with each optimizer that PyTorch has too, from
the same weights on the same images. `apart` is the largest difference of a weight or a running statistic, in parts of
the largest number of that tensor; `moved` is how far PyTorch's went from where they began, in the same parts.

A Relu whose input is 0 but for rounding, and Adam's quotient of two gradients that are 0 but for rounding, have no
answer that f32 could agree on. So PyTorch goes the step in f64 too: a batch on which its own two gradients are apart by
more than 1e-5 is passed over (`batch` is the number of the first that is not), and a number where its own two steps
are apart by more than a tenth of 1e-5 is left out (`share` is the part of numbers that are compared). PyTorch takes
running variances over n - 1 numbers, ONNX over n: they are compared by ONNX's count. The exit code is 1 where something
is apart by more than 1e-5, or less than 99 % of the numbers are compared.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from compare_training import CLASSES, Graph

APART = 1e-5
IMAGES = 8
EPSILON = 1e-3


def lenet_5(g):
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, CLASSES),
    )
    v = "x"
    for i, layer in enumerate(net):
        names = [g.parameter(f"{i}.{kind}", p) for kind, p in layer.named_parameters()]
        match layer:
            case nn.Conv2d():
                v = g.op("Conv", [v, *names], kernel_shape=[5, 5], pads=[layer.padding[0]] * 4)
            case nn.AvgPool2d():
                v = g.op("AveragePool", [v], kernel_shape=[2, 2], strides=[2, 2])
            case nn.Linear():
                v = g.op("Gemm", [v, *names], transB=1)
            case nn.Tanh():
                v = g.op("Tanh", [v])
            case nn.Flatten():
                v = g.op("Flatten", [v])
    return net, [1, 28, 28], v


class Block(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.a = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.an = nn.BatchNorm2d(width, EPSILON)
        self.b = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width, EPSILON)
        self.side = nn.Conv2d(before, width, 1, stride) if stride > 1 else None

    def forward(self, x):
        y = self.bn(self.b(torch.relu(self.an(self.a(x)))))
        return torch.relu(y + (self.side(x) if self.side else x))


class ResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16, EPSILON)
        self.blocks = nn.ModuleList([Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)])
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def resnet_8(g):
    net = ResNet8()

    def conv(v, name, layer):
        names = [g.parameter(f"{name}.{kind}", p) for kind, p in layer.named_parameters()]
        k, s, p = layer.kernel_size[0], layer.stride[0], layer.padding[0]
        return g.op("Conv", [v, *names], kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)

    def norm(v, name, layer):
        kinds = ("weight", "bias", "running_mean", "running_var")
        names = [g.parameter(f"{name}.{kind}", getattr(layer, kind)) for kind in kinds]
        return g.op("BatchNormalization", [v, *names], epsilon=EPSILON, momentum=0.9)

    v = g.op("Relu", [norm(conv("x", "first", net.first), "norm", net.norm)])
    for i, block in enumerate(net.blocks):
        y = g.op("Relu", [norm(conv(v, f"{i}.a", block.a), f"{i}.an", block.an)])
        y = norm(conv(y, f"{i}.b", block.b), f"{i}.bn", block.bn)
        side = conv(v, f"{i}.side", block.side) if block.side else v
        v = g.op("Relu", [g.op("Add", [y, side])])
    v = g.op("Flatten", [g.op("GlobalAveragePool", [v])])
    v = g.op("Gemm", [v, g.parameter("head.weight", net.head.weight), g.parameter("head.bias", net.head.bias)], transB=1)
    return net, [3, 32, 32], v


NETWORKS = {"lenet-5": lenet_5, "resnet-8": resnet_8}
# Our words, and PyTorch's optimizer. Decay is off: ours is of weights alone, and of Adam's own kind in AdamW.
OPTIMIZERS = {
    "sgd": (["--rate", "0.1", "--momentum", "0.9"], lambda p: torch.optim.SGD(p, 0.1, 0.9)),
    "nesterov": (["--rate", "0.1", "--momentum", "0.9"], lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True)),
    "adam": (["--rate", "0.001"], lambda p: torch.optim.Adam(p, 0.001)),
    "adamw": (["--rate", "0.001"], lambda p: torch.optim.AdamW(p, 0.001, weight_decay=0)),
}


def stepped(net, x, labels, make):
    """Gradients, and all weights and statistics after a step, by name, in f64."""
    net, counts = copy.deepcopy(net).to(x.dtype), {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            count = lambda _, given, __, name=f"{name}.running_var": counts.update({name: given[0][:, 0].numel()})
            layer.register_forward_hook(count)
    stepper = make(net.parameters())
    nn.functional.cross_entropy(net(x), labels).backward()
    gradients = {k: p.grad.double().numpy() for k, p in net.named_parameters()}
    stepper.step()
    after = {k: t.detach().double().numpy() for k, t in net.state_dict().items() if "num_batches" not in k}
    for k, n in counts.items():
        after[k] = 0.9 + (after[k] - 0.9) * (n - 1) / n
    return gradients, after


def apart(a, b):
    """Differences of each number, in parts of the largest of its tensor."""
    return {k: np.abs(a[k] - b[k]) / max(np.abs(b[k]).max(), 1e-12) for k in b}


def most(differences):
    return max(float(d.max()) for d in differences.values())


def batch_of(net, dims, make):
    """The first batch that has gradients of which f32 is sure, and PyTorch's steps on it in f32 and f64."""
    for seed in range(100):
        torch.manual_seed(seed)
        x, labels = torch.randn(IMAGES, *dims), torch.randint(0, CLASSES, (IMAGES,))
        single, double = stepped(net, x, labels, make), stepped(net, x.double(), labels, make)
        if most(apart(single[0], double[0])) <= APART:
            return seed, x, labels, single[1], double[1]
    sys.exit("no batch has gradients of which f32 is sure")


def compare(edgesmith, name, optimizer, folder):
    torch.manual_seed(0)
    words, make = OPTIMIZERS[optimizer]
    g = Graph()
    net, dims, output = NETWORKS[name](g)
    names = {id(t): k for k, t in net.state_dict(keep_vars=True).items()}
    names = {ours: names[id(tensor)] for ours, (tensor, _) in g.parameters.items()}
    g.save(str(folder / "net.onnx"), TensorProto.FLOAT, dims, output)
    seed, x, labels, single, double = batch_of(net, dims, make)
    np.savez(folder / "batch.npz", x=x.numpy(), labels=labels.numpy())
    done = subprocess.run(
        [edgesmith, "train", folder / "net.onnx", "-o", folder / "out.onnx", "--data", folder / "batch.npz", "--epochs", "1",
         "--batch", str(IMAGES), "--optimizer", optimizer, "--schedule", "constant", "--warmup", "0", "--decay", "0",
         "--force", *words],
        capture_output=True, text=True,
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    found = onnx.load(folder / "out.onnx").graph.initializer
    found = {names[i.name]: numpy_helper.to_array(i).astype(np.float64) for i in found if i.name in names}
    started = {k: t.double().numpy() for k, t in net.state_dict().items() if k in single}
    sure = {k: d <= APART / 10 for k, d in apart(single, double).items()}
    differences = {k: d[sure[k]] for k, d in apart(found, single).items() if sure[k].any()}
    share = sum(int(s.sum()) for s in sure.values()) / sum(s.size for s in sure.values())
    worst, moved = most(differences), most(apart(started, single))
    print(f"{name:10} {optimizer:10} {worst:9.1e} {moved:9.1e} {100 * share:8.2f} % {seed:6}", flush=True)
    return worst <= APART and share >= 0.99


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgesmith", required=True)
    options = parser.parse_args()
    print("network    optimizer      apart     moved      share  batch")
    with tempfile.TemporaryDirectory() as folder:
        same = [compare(options.edgesmith, n, o, Path(folder)) for n in NETWORKS for o in OPTIMIZERS]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
