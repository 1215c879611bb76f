"""Writes networks with random weights, as exporters write them: latency does not depend on the numbers.

    python scripts/drawn_networks.py resnet OUT.onnx [--depth 18]
    python scripts/drawn_networks.py shufflenet OUT.onnx
"""

import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Nodes and weights of a classifier of images of 224 x 224."""

    def __init__(self, opset):
        self.random = np.random.default_rng(0)
        self.nodes, self.weights, self.opset = [], [], opset

    def constant(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name, dims, scale):
        return self.constant(name, (self.random.normal(size=dims) * scale).astype(np.float32))

    def node(self, op, inputs, name, outputs=None, **attributes):
        outputs = outputs or [name]
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return outputs[0]

    def conv(self, x, dims, stride, name, relu=True, groups=1):
        w = self.weight(f"{name}.w", dims, (2 / np.prod(dims[1:])) ** 0.5)
        b = self.weight(f"{name}.b", dims[:1], 0.01)
        pads = [dims[2] // 2] * 4
        y = self.node("Conv", [x, w, b], name, [f"{name}.y"], pads=pads, strides=[stride] * 2, group=groups)
        return self.node("Relu", [y], f"{name}.relu", [f"{name}.r"]) if relu else y

    def max_pool(self, x):
        return self.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def save(self, path, flat, width):
        """Ends with 1,000 scores of `flat`, and writes the file."""
        w, b = self.weight("fc.w", [1000, width], 0.03), self.weight("fc.b", [1000], 0.0)
        y = self.node("Gemm", [flat, w, b], "fc", ["y"], transB=1)
        value = helper.make_tensor_value_info
        inputs = [value("x", TensorProto.FLOAT, ["batch", 3, 224, 224])]
        outputs = [value(y, TensorProto.FLOAT, ["batch", 1000])]
        graph = helper.make_graph(self.nodes, "drawn", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def resnet(args):
    """The network of K. He et al., 2016, table 1, without its norms."""
    n = Network(17)
    x, width = n.max_pool(n.conv("x", [64, 3, 7, 7], 2, "stem")), 64
    for stage, count in enumerate({18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[args.depth]):
        inner = 64 << stage
        outer = inner * (4 if args.depth == 50 else 1)
        for block in range(count):
            name, stride = f"{stage}.{block}", 2 if stage and block == 0 else 1
            if args.depth == 50:
                y = n.conv(x, [inner, width, 1, 1], 1, f"{name}.a")
                y = n.conv(y, [inner, inner, 3, 3], stride, f"{name}.b")
                y = n.conv(y, [outer, inner, 1, 1], 1, f"{name}.c", False)
            else:
                y = n.conv(x, [inner, width, 3, 3], stride, f"{name}.a")
                y = n.conv(y, [inner, inner, 3, 3], 1, f"{name}.b", False)
            if stride != 1 or width != outer:
                x = n.conv(x, [outer, width, 1, 1], stride, f"{name}.short", False)
            total = n.node("Add", [y, x], f"{name}.add", [f"{name}.sum"])
            x, width = n.node("Relu", [total], f"{name}.relu", [f"{name}.out"]), outer
    n.node("GlobalAveragePool", [x], "mean")
    n.save(args.out, n.node("Flatten", ["mean"], "flat"), width)


def shuffled(n, x, channels, name):
    """The channels of two halves in turn; lengths are computed, as PyTorch's exporter writes them."""
    whole = n.node("Shape", [x], f"{name}.shape")
    lengths = []
    for axis in range(4):
        at = n.node("Gather", [whole, n.constant(f"{name}.{axis}", axis)], f"{name}.length{axis}", axis=0)
        if axis == 1:
            at = n.node("Div", [at, n.constant(f"{name}.two", 2)], f"{name}.half")
        first = n.constant(f"{name}.first{axis}", [0])
        lengths.append(n.node("Unsqueeze", [at, first], f"{name}.vector{axis}"))
    two, rest = n.constant(f"{name}.halves", [2]), n.constant(f"{name}.rest", [-1])
    parted = n.node("Concat", [lengths[0], two, *lengths[1:]], f"{name}.parted", axis=0)
    joined = n.node("Concat", [lengths[0], rest, *lengths[2:]], f"{name}.joined", axis=0)
    x = n.node("Reshape", [x, parted], f"{name}.apart")
    x = n.node("Transpose", [x], f"{name}.turned", perm=[0, 2, 1, 3, 4])
    return n.node("Reshape", [x, joined], f"{name}.together")


def shufflenet(args):
    """ShuffleNet V2 1x of N. Ma et al., 2018, table 5, without its norms."""
    n = Network(13)
    x, width = n.max_pool(n.conv("x", [24, 3, 3, 3], 2, "stem")), 24
    for stage, (count, channels) in enumerate([(4, 116), (8, 232), (4, 464)]):
        half = channels // 2
        for block in range(count):
            name, stride, own = f"{stage}.{block}", 1 if block else 2, half if block else width
            if block:
                halves = n.constant(f"{name}.lengths", [half, half])
                parts = [f"{name}.kept", f"{name}.moved"]
                left = n.node("Split", [x, halves], f"{name}.split", parts, axis=1)
                right = parts[1]
            else:
                left = n.conv(x, [width, 1, 3, 3], 2, f"{name}.d", False, width)
                left, right = n.conv(left, [half, width, 1, 1], 1, f"{name}.e"), x
            right = n.conv(right, [half, own, 1, 1], 1, f"{name}.a")
            right = n.conv(right, [half, 1, 3, 3], stride, f"{name}.b", False, half)
            right = n.conv(right, [half, half, 1, 1], 1, f"{name}.c")
            x = n.node("Concat", [left, right], f"{name}.concat", axis=1)
            x, width = shuffled(n, x, channels, name), channels
    x = n.conv(x, [1024, width, 1, 1], 1, "last")
    n.save(args.out, n.node("ReduceMean", [x], "flat", axes=[2, 3], keepdims=0), 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (resnet, shufflenet):
        c = commands.add_parser(function.__name__)
        c.set_defaults(function=function)
        c.add_argument("out")
        if function is resnet:
            c.add_argument("--depth", type=int, default=18, choices=(18, 50))
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
