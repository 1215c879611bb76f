#!/usr/bin/env python3
"""Sets blocks of weights of an ONNX model to zero, to measure what a runtime makes of them.

    python scripts/zero_blocks.py MODEL.onnx OUT.onnx --share 0.8 [--outputs 4] [--least 32] [--fc]

In every Conv of 1x1 and one group (and, with --fc, every Gemm and MatMul with constant weights) that has at
least so many inputs and outputs, the given share of blocks of neighbouring outputs with one input, those
of the smallest magnitude, becomes zero. Answers of the model are no longer of use: nothing is trained.
Needs onnx and numpy.
"""

import argparse

import numpy as np
import onnx
from onnx import numpy_helper


def zeroed(weights, share, outputs):
    """Weights [outputs, inputs] without the smallest blocks."""
    n, k = weights.shape
    padded = np.zeros((-(-n // outputs) * outputs, k), weights.dtype)
    padded[:n] = weights
    blocks = padded.reshape(-1, outputs, k)
    size = np.abs(blocks.astype(np.float64)).sum(axis=1)
    order = np.argsort(size, axis=None, kind="stable")[: int(round(share * size.size))]
    keep = np.ones(size.size, bool)
    keep[order] = False
    return (blocks * keep.reshape(size.shape)[:, None, :]).reshape(-1, k)[:n].astype(weights.dtype)


def constant(graph, name):
    """The initializer behind a name, or behind the DequantizeLinear that makes it."""
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] == name:
            name = node.input[0]
    return next((t for t in graph.initializer if t.name == name), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--outputs", type=int, default=4)
    parser.add_argument("--least", type=int, default=32)
    parser.add_argument("--fc", action="store_true")
    args = parser.parse_args()
    model = onnx.load(args.model)
    done = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        wanted = node.op_type == "Conv" and attributes.get("group", 1) == 1
        if not wanted and not (args.fc and node.op_type in ("Gemm", "MatMul")):
            continue
        tensor = constant(model.graph, node.input[1])
        if tensor is None:
            continue
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.uint8 or weights.size != weights.shape[0] * weights.shape[1]:
            continue
        first = node.op_type == "Conv" or attributes.get("transB", 0) == 1
        matrix = weights.reshape(weights.shape[:2]) if first else weights.T
        if min(matrix.shape) < args.least:
            continue
        matrix = zeroed(matrix, args.share, args.outputs)
        weights = (matrix if first else matrix.T).reshape(weights.shape)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights), tensor.name))
        done.append(weights)
    onnx.save(model, args.out)
    total = sum(w.size for w in done)
    zeros = sum(int((w == 0).sum()) for w in done)
    print(f"{len(done)} layers, {zeros} of {total} weights are zero")


main()
