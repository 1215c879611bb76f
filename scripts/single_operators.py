#!/usr/bin/env python3
"""Times networks of one operator beside ONNX Runtime, and prints a table.

    python scripts/single_operators.py --edgesmith E [NAME ...]

Weights are drawn. The time holds the copies to and from channels-last images that a network has once, at its ends.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.RandomState(0)


def weight(name, *dims):
    return numpy_helper.from_array((RANDOM.randn(*dims) * 0.1).astype(np.float32), name)


def numbers(kind, name, *values):
    return numpy_helper.from_array(np.array(values, kind), name)


def network(op, inputs, weights=(), opset=21, results=("y",), **attributes):
    """A model of one node, whose inputs are `inputs` (name: shape) and then `weights`, and whose first result is
    the output."""
    names = [*inputs, *(w.name for w in weights)]
    node = helper.make_node(op, names, list(results), **attributes)
    shaped = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    kind = TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT
    output = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], op, shaped, [output], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def recurrent(op, gates, lengths):
    parts = [weight("w", 1, gates * 128, 64), weight("r", 1, gates * 128, 128), weight("b", 1, gates * 256)]
    if lengths:
        parts.append(numbers(np.int32, "lengths", *range(5, 5 + 32)))
    return network(op, {"x": [50, 32, 64]}, parts, hidden_size=128)


IMAGE = {"x": [1, 64, 64, 64]}
NETWORKS = {
    "Conv 3x3, 128 channels, 32 groups, 28x28": lambda: network(
        "Conv", {"x": [1, 128, 28, 28]}, [weight("w", 128, 4, 3, 3)], group=32, pads=[1] * 4
    ),
    "Conv 3x3, 128 channels, 8 groups, 28x28": lambda: network(
        "Conv", {"x": [1, 128, 28, 28]}, [weight("w", 128, 16, 3, 3)], group=8, pads=[1] * 4
    ),
    "depthwise 3x3, 32 channels to 64, 56x56": lambda: network(
        "Conv", {"x": [1, 32, 56, 56]}, [weight("w", 64, 1, 3, 3)], group=32, pads=[1] * 4
    ),
    "depthwise 7x7, 96 channels, 56x56": lambda: network(
        "Conv", {"x": [1, 96, 56, 56]}, [weight("w", 96, 1, 7, 7)], group=96, pads=[3] * 4
    ),
    "ConvTranspose 3x3, stride 2, 64 to 32, 32x32": lambda: network(
        "ConvTranspose", {"x": [1, 64, 32, 32]}, [weight("w", 64, 32, 3, 3)], strides=[2, 2], pads=[1] * 4
    ),
    "ConvTranspose 4x4, stride 2, 64 groups, 32x32": lambda: network(
        "ConvTranspose", {"x": [1, 64, 32, 32]}, [weight("w", 64, 1, 4, 4)], strides=[2, 2], pads=[1] * 4, group=64
    ),
    "LSTM, hidden 128, 50 steps, batch 32": lambda: recurrent("LSTM", 4, False),
    "LSTM with lengths": lambda: recurrent("LSTM", 4, True),
    "GRU with lengths": lambda: recurrent("GRU", 3, True),
    "RNN": lambda: recurrent("RNN", 1, False),
    "Attention, 8 heads of 64, 512 queries and keys": lambda: network(
        "Attention", {name: [1, 8, 512, 64] for name in "qkv"}, opset=23
    ),
    "Einsum bij,bjk->bik, 8 times 128x64x128": lambda: network(
        "Einsum", {"x": [8, 128, 64], "z": [8, 64, 128]}, equation="bij,bjk->bik"
    ),
    "PRelu, 64 channels, 64x64": lambda: network("PRelu", IMAGE, [weight("s", 64, 1, 1)]),
    "InstanceNormalization": lambda: network("InstanceNormalization", IMAGE, [weight("s", 64), weight("b", 64)]),
    "GroupNormalization, 8 groups": lambda: network(
        "GroupNormalization", IMAGE, [weight("s", 64), weight("b", 64)], num_groups=8
    ),
    "Softmax along 64 channels": lambda: network("Softmax", IMAGE, axis=1),
    "TopK, 100 of 8,400 in 80 rows": lambda: network(
        "TopK", {"x": [80, 8400]}, [numbers(np.int64, "k", 100)], results=("y", "places")
    ),
    "Pow 0.5, 64 channels, 64x64": lambda: network("Pow", IMAGE, [numbers(np.float32, "e", 0.5)]),
    "Conv 3x3x3, 16 to 32 channels, 16x28x28": lambda: network(
        "Conv", {"x": [1, 16, 16, 28, 28]}, [weight("w", 32, 16, 3, 3, 3)], pads=[1] * 6
    ),
    "ArgMax along 21 channels, 256x256": lambda: network("ArgMax", {"x": [1, 21, 256, 256]}, axis=1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all without")
    parser.add_argument("--edgesmith", type=pathlib.Path, required=True)
    args = parser.parse_args()
    print("| network | ms | ONNX Runtime, ms | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETWORKS.items():
            if args.names and not any(part in name for part in args.names):
                continue
            path = pathlib.Path(folder) / "model.onnx"
            onnx.save(make(), path)
            words = [args.edgesmith, "bench", path, "--vs", "onnxruntime", "--threads", "1", "--iterations", "30", "--json"]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"| {name} | {done.stderr.strip().splitlines()[0]} | | |", flush=True)
                continue
            said = json.loads(done.stdout)
            peer = said["vs"][0]
            ours, theirs, ratio = said["cpu_p50_ms"], peer["latency"]["cpu_p50_ms"], peer["cpu_ratio"]
            print(f"| {name} | {ours:.3f} | {theirs:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
