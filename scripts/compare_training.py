#!/usr/bin/env python3
"""Compares steps of training (forward, cross entropy, gradients of all parameters) with PyTorch's on the CPU.

    cargo build --release -p edgesmith-compress --example time_training
    python3 scripts/compare_training.py --program target/release/examples/time_training
    python3 scripts/compare_training.py --program ... --only small-cnn --threads 1 --steps 200

Both train the same network with the same parameters on the same batch. Rounds of the two follow each other,
and each number is the median over the rounds of the median over the steps of a round. Columns:

`ours`, `torch`  milliseconds of a step
`ratio`          of the two
`apart`          the largest difference of a gradient, in parts of the largest number of that gradient
`MiB`            the most memory that our process took, the model file and Rust's runtime included

The exit code is 1 where a gradient or the loss is apart by more than 1e-4. `small-cnn` has a batch of 64 images of
28x28; `encoder` is four layers of width 128 with 4 heads, 512 hidden units and GELU, of 32 texts of 64 tokens.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

APART = 1e-4
WIDTH, HEADS, HIDDEN, LAYERS, TOKENS, TEXTS, WORDS, CLASSES = 128, 4, 512, 4, 64, 32, 1000, 10


class Graph:
    """An ONNX graph under construction. Each parameter remembers PyTorch's, and whether it is turned."""

    def __init__(self):
        self.nodes, self.initializers, self.parameters = [], [], {}

    def parameter(self, name, tensor, turned=False):
        data = tensor.detach().numpy()
        data = np.ascontiguousarray(data.T if turned else data)
        self.initializers.append(numpy_helper.from_array(data, name))
        self.parameters[name] = (tensor, turned)
        return name

    def ints(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def op(self, op, inputs, outputs=1, **attributes):
        names = [f"{op.lower()}{len(self.nodes)}.{i}" for i in range(outputs)]
        node = helper.make_node(op, inputs, names, name=f"{op.lower()}{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def save(self, path, input_type, dims, output):
        x = helper.make_tensor_value_info("x", input_type, ["batch", *dims])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, "network", [x], [y], self.initializers)
        opsets = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def small_cnn(path):
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, CLASSES),
    )
    g, v = Graph(), "x"
    for i in (0, 3):
        w, b = (g.parameter(f"{i}.{kind}", getattr(net[i], kind)) for kind in ("weight", "bias"))
        v = g.op("Conv", [v, w, b], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        v = g.op("MaxPool", [g.op("Relu", [v])], kernel_shape=[2, 2], strides=[2, 2])
    w, b = g.parameter("7.weight", net[7].weight), g.parameter("7.bias", net[7].bias)
    v = g.op("Gemm", [g.op("Flatten", [v]), w, b], transB=1)
    g.save(path, TensorProto.FLOAT, [1, 28, 28], v)
    return net, torch.randn(64, 1, 28, 28), g.parameters


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
        layer = dict(dropout=0.0, activation="gelu", batch_first=True)
        layers = [nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **layer) for _ in range(LAYERS)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.words(x) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def encoder(path):
    net, g = Encoder(), Graph()
    v = g.op("Gather", [g.parameter("words", net.words.weight), "x"])
    v = g.op("Add", [v, g.parameter("places", net.places)])
    split, join = g.ints("split", [0, 0, HEADS, WIDTH // HEADS]), g.ints("join", [0, 0, WIDTH])
    scale = numpy_helper.from_array(np.array(1 / math.sqrt(WIDTH // HEADS), np.float32), "scale")
    g.initializers.append(scale)

    def linear(v, name, weight, bias):
        w, b = g.parameter(f"{name}.weight", weight, turned=True), g.parameter(f"{name}.bias", bias)
        return g.op("Add", [g.op("MatMul", [v, w]), b])

    def norm(v, name, of):
        w, b = g.parameter(f"{name}.weight", of.weight), g.parameter(f"{name}.bias", of.bias)
        return g.op("LayerNormalization", [v, w, b], axis=-1, epsilon=of.eps)

    for i, layer in enumerate(net.layers):
        a = layer.self_attn
        all_three = linear(v, f"{i}.in", a.in_proj_weight, a.in_proj_bias)
        heads = [g.op("Reshape", [part, split]) for part in g.op("Split", [all_three], 3, axis=2, num_outputs=3)]
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        query, key, value = (g.op("Transpose", [h], perm=p) for h, p in zip(heads, orders))
        scores = g.op("Mul", [g.op("MatMul", [query, key]), "scale"])
        mixed = g.op("MatMul", [g.op("Softmax", [scores], axis=-1), value])
        mixed = g.op("Reshape", [g.op("Transpose", [mixed], perm=[0, 2, 1, 3]), join])
        mixed = linear(mixed, f"{i}.out", a.out_proj.weight, a.out_proj.bias)
        v = norm(g.op("Add", [v, mixed]), f"{i}.norm1", layer.norm1)
        hidden = g.op("Gelu", [linear(v, f"{i}.up", layer.linear1.weight, layer.linear1.bias)])
        hidden = linear(hidden, f"{i}.down", layer.linear2.weight, layer.linear2.bias)
        v = norm(g.op("Add", [v, hidden]), f"{i}.norm2", layer.norm2)
    v = g.op("ReduceMean", [v, g.ints("axis", [1])], keepdims=0)
    w, b = g.parameter("head.weight", net.head.weight), g.parameter("head.bias", net.head.bias)
    v = g.op("Gemm", [v, w, b], transB=1)
    g.save(path, TensorProto.INT64, [TOKENS], v)
    return net, torch.randint(0, WORDS, (TEXTS, TOKENS)), g.parameters


NETWORKS = {"small-cnn": (small_cnn, 200), "encoder": (encoder, 20)}


def step(net, x, labels):
    for p in net.parameters():
        p.grad = None
    loss = nn.functional.cross_entropy(net(x), labels)
    loss.backward()
    return loss


def torch_ms(net, x, labels, steps):
    step(net, x, labels)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step(net, x, labels)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def ours(program, model, batch, more):
    done = subprocess.run([program, model, batch, *more], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[0])


def apart(net, loss, parameters, found):
    pairs = [(found["loss"], loss.detach().numpy())]
    for name, (tensor, turned) in parameters.items():
        wanted = tensor.grad.numpy()
        pairs.append((found[f"grad.{name}"], wanted.T if turned else wanted))
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in pairs)


def compare(name, options, folder):
    torch.manual_seed(0)
    make, steps = NETWORKS[name]
    steps = options.steps or steps
    model, batch, outputs = (str(folder / f"{name}{end}") for end in (".onnx", ".npz", ".out.npz"))
    net, x, parameters = make(model)
    labels = torch.randint(0, CLASSES, (x.shape[0],))
    np.savez(batch, x=x.numpy(), labels=labels.numpy())
    ours(options.program, model, batch, ["--steps", "1", "--outputs", outputs])
    difference = apart(net, step(net, x, labels), parameters, np.load(outputs))
    for threads in options.threads:
        torch.set_num_threads(threads)
        more = ["--steps", str(steps), "--threads", str(threads)]
        mine, theirs, memory = [], [], 0
        for _ in range(options.rounds):
            told = ours(options.program, model, batch, more)
            mine.append(told["p50_ms"])
            memory = max(memory, told["peak_kib"])
            theirs.append(torch_ms(net, x, labels, steps))
        a, b = statistics.median(mine), statistics.median(theirs)
        print(f"{name:10} {threads:7} {a:9.2f} {b:9.2f} {a / b:7.3f} {difference:9.1e} {memory / 1024:7.1f}", flush=True)
    return difference <= APART


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("network    threads      ours     torch   ratio     apart     MiB")
    with tempfile.TemporaryDirectory() as folder:
        names = [options.only] if options.only else NETWORKS
        same = [compare(name, options, Path(folder)) for name in names]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
