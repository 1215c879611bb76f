"""Products with weights of 4 bits: edgesmith, its FP32, and ONNX Runtime's MatMulNBits.

    python scripts/low_bit_products.py --edgesmith target/release/edgesmith

makes models of one node each, checks that both engines give the same numbers (weights only: 1e-4
of the largest; activations of bytes: within what rounding them costs), and times them in turns on
one thread by `edgesmith bench --vs onnxruntime`: medians of rounds. Prints a Markdown table, and the geometric means of how many times
faster edgesmith's products of 4 bits are than its products of f32 and than ONNX Runtime's.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SHAPES = [(384, 384), (384, 1536), (1536, 384), (2048, 2048), (4096, 4096)]
BLOCKS = [32, 128]
BATCHES = [1, 8]
LEVELS = [0, 4]


def model(path, nodes, constants, m, k, n):
    """Writes a model of `nodes` from x [m, k] to y [m, n]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [m, n])
    tensors = [numpy_helper.from_array(data, name) for name, data in constants.items()]
    graph = helper.make_graph(nodes, "product", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def write_models(folder, m, k, n, block, zeros, random):
    """The FP32 model and one MatMulNBits for each level; the weights are the same."""
    blocks = -(-k // block)
    codes = random.integers(0, 16, (n, blocks, block), dtype=np.uint8)
    scales = random.uniform(0.5, 1.5, (n, blocks)).astype(np.float32) / 128
    points = random.integers(0, 16, (n, blocks), dtype=np.uint8) if zeros else None
    middle = 8 if points is None else points[:, :, None].astype(np.float32)
    weights = ((codes.astype(np.float32) - middle) * scales[:, :, None]).reshape(n, -1)[:, :k]
    constants = {"b": (codes[:, :, 0::2] | codes[:, :, 1::2] << 4), "s": scales.reshape(-1)}
    if points is not None:
        padded = np.pad(points, ((0, 0), (0, blocks % 2)))
        constants["z"] = (padded[:, 0::2] | padded[:, 1::2] << 4).reshape(-1)
    paths = {"f32": folder / "f32.onnx"}
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    model(paths["f32"], [product], {"w": np.ascontiguousarray(weights.T)}, m, k, n)
    for level in LEVELS:
        paths[level] = folder / f"level{level}.onnx"
        node = helper.make_node(
            "MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft",
            K=k, N=n, bits=4, block_size=block, accuracy_level=level,
        )
        model(paths[level], [node], constants, m, k, n)
    return paths


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(path, options, providers=providers)


def ours(edgesmith, path, x, folder):
    """The output of edgesmith."""
    given, made = folder / "x.npz", folder / "y.npz"
    np.savez(given, x=x)
    subprocess.run(
        [edgesmith, "run", path, "--input", given, "--output", made, "--force", "--threads", "1"],
        check=True, capture_output=True,
    )
    return np.load(made)["y"]


def times_of(edgesmith, path, iterations):
    """Milliseconds of a run of edgesmith and of ONNX Runtime, measured in turns: medians."""
    found = subprocess.run(
        [edgesmith, "bench", path, "--threads", "1", "--iterations", str(iterations),
         "--cold-starts", "0", "--vs", "onnxruntime", "--json"],
        check=True, capture_output=True, text=True,
    )
    found = json.loads(found.stdout)
    return found["p50_ms"], found["vs"][0]["latency"]["p50_ms"]


def compare(args, m, k, n, block, folder):
    """A row: times by (engine, kind)."""
    random = np.random.default_rng(k + n + block + m)
    paths = write_models(folder, m, k, n, block, args.zeros, random)
    x = random.standard_normal((m, k)).astype(np.float32)
    peers = {kind: session(path) for kind, path in paths.items()}
    exact = peers["f32"].run(None, {"x": x})[0]
    largest = np.abs(exact).max()
    for kind, path in paths.items():
        far = np.abs(ours(args.edgesmith, path, x, folder) - exact).max() / largest
        their = np.abs(peers[kind].run(None, {"x": x})[0] - exact).max() / largest
        allowed = 2e-2 if kind == 4 else 1e-4
        if max(far, their) > allowed:
            sys.exit(f"{m}x{k}x{n}/{block} {kind}: {far:.1e} here, {their:.1e} there")
    times = {}
    iterations = max(30, min(1000, int(1e9 / (m * k * n))))
    for _ in range(args.rounds):
        for kind, path in paths.items():
            here, there = times_of(args.edgesmith, path, iterations)
            times.setdefault(("edgesmith", kind), []).append(here)
            times.setdefault(("onnxruntime", kind), []).append(there)
    return {key: statistics.median(ms) for key, ms in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edgesmith", required=True, help="the program")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--zeros", action="store_true", help="weights with zero points")
    args = parser.parse_args()
    rows = {}
    print("| K x N, block, batch | FP32 | level 0 | level 4 | ONNX Runtime FP32 | its level 0 | its level 4 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for k, n in SHAPES:
            for block in BLOCKS:
                for m in BATCHES:
                    times = compare(args, m, k, n, block, pathlib.Path(folder))
                    rows[k, n, block, m] = times
                    keys = [(e, kind) for e in ("edgesmith", "onnxruntime") for kind in ("f32", 0, 4)]
                    cells = " | ".join(f"{times[key] * 1e3:.1f}" for key in keys)
                    print(f"| {k} x {n}, {block}, {m} | {cells} |", flush=True)
    print("\nMicroseconds. Times faster, geometric mean over the rows:\n")
    for level, name in ((0, "weights only"), (4, "activations of bytes")):
        for peer, kind in (("edgesmith", "f32"), ("onnxruntime", level)):
            for batches in (BATCHES, *([m] for m in BATCHES)):
                logs = [
                    math.log(times[peer, kind] / times["edgesmith", level])
                    for (_, _, _, m), times in rows.items() if m in batches
                ]
                mean = math.exp(statistics.fmean(logs))
                what = "FP32 here" if kind == "f32" else f"ONNX Runtime, level {level}"
                batch = " and ".join(map(str, batches))
                print(f"- {name}, batch {batch}, against {what}: {mean:.2f}")


if __name__ == "__main__":
    main()
