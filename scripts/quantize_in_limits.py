#!/usr/bin/env python3
"""Quantises a model four times as large as the memory that it may take, and one that is killed.

    pip install -r scripts/requirements.txt
    python3 scripts/quantize_in_limits.py memory --edgesmith target/release/edgesmith [--method gptq]
    python3 scripts/quantize_in_limits.py kill   --edgesmith ... --model MODEL --calibrate CALIB.npz
    python3 scripts/quantize_in_limits.py kill   --edgesmith ... --method gptq

`memory` makes a model of a GiB of random weights beside it, and rounds them to INT4 with a quarter of
that as the most private memory (RLIMIT_DATA); pages of the mapped file are not private. With a method that
needs data it is a decoder (RMS norms, attention of 16 heads, gated units) with 32 samples of 64 tokens, which
are run in segments of 32 MiB. `kill` ends `quantize --to int4 --cache` by SIGKILL five times, each when it has
kept so many files in its cache of those that a run keeps that is left alone, starts it again, and compares the
file with that of the run that was left alone, and that one with a run of the whole model at once where a decoder
of two layers was made for it. The exit code is 1 when a file is missing or differs, or a run was not killed
before its file was there.
"""

import argparse
import hashlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS, WIDTH, HEIGHT = 64, 2048, 2048

# A decoder: layers of a GiB, those that are killed, and the lengths of each.
DEEP, SHALLOW = 21, 2
MODEL, HEADS, UNITS, TOKENS = 1024, 16, 2816, 2048
SAMPLES, LENGTH = 32, 64
SEGMENT = "32MiB"

# So often a run is killed.
KILLS = 5


class Weights:
    """Random weights in a file beside the model."""

    def __init__(self, folder):
        self.rng = np.random.default_rng(0)
        self.out = open(folder / "weights", "wb")
        self.tensors, self.offset = [], 0

    def add(self, name, shape, scale=1.0):
        data = self.rng.standard_normal(shape, np.float32) * np.float32(scale)
        self.out.write(data.tobytes())
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=data.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in [("location", "weights"), ("offset", self.offset), ("length", data.nbytes)]:
            tensor.external_data.add(key=key, value=str(value))
        self.offset += data.nbytes
        self.tensors.append(tensor)
        return name

    def save(self, folder, nodes, inputs, outputs, more=()):
        self.out.close()
        graph = helper.make_graph(nodes, "large", inputs, outputs, [*self.tensors, *more])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(model, folder / "model.onnx")
        return self.offset


def large_model(folder):
    """A chain of products; the bytes of its weights."""
    weights, nodes = Weights(folder), []
    for i in range(LAYERS):
        w = weights.add(f"w{i}", (HEIGHT, WIDTH))
        nodes.append(helper.make_node("MatMul", [f"x{i}", w], [f"x{i + 1}"], name=f"m{i}"))
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", HEIGHT])
    return weights.save(folder, nodes, [value("x0")], [value(f"x{LAYERS}")])


def decoder(folder, layers):
    """A decoder and samples for it; the bytes of its weights."""
    weights, nodes, constants = Weights(folder), [], []

    def constant(name, data):
        constants.append(onnx.numpy_helper.from_array(np.asarray(data), name))
        return name

    def op(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def product(x, name, shape):
        w = weights.add(f"{name}_weight", shape, shape[0] ** -0.5)
        return op("MatMul", [x, w], name)

    split = constant("split", np.array([0, 0, HEADS, MODEL // HEADS]))
    joined = constant("joined", np.array([0, 0, MODEL]))
    last, two = constant("last", np.array([-1])), constant("two", np.float32(2))
    tiny = constant("tiny", np.float32(1e-6))
    scale = constant("scale", np.float32((MODEL // HEADS) ** -0.5))
    ones = constant("ones", np.ones(MODEL, np.float32))

    def norm(x, name):
        square = op("Pow", [x, two], f"{name}_square")
        mean = op("ReduceMean", [square, last], f"{name}_mean")
        root = op("Sqrt", [op("Add", [mean, tiny], f"{name}_sum")], f"{name}_root")
        return op("Mul", [op("Div", [x, root], f"{name}_divided"), ones], name)

    x = op("Gather", [weights.add("table", (TOKENS, MODEL)), "ids"], "embedded")
    for i in range(layers):
        at = lambda name: f"{name}{i}"
        h = norm(x, at("norm"))

        def heads(name, order):
            made = op("Reshape", [product(h, at(name), (MODEL, MODEL)), split], at(f"{name}_split"))
            return op("Transpose", [made], at(f"{name}_heads"), perm=order)

        scores = op("MatMul", [heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1])], at("products"))
        scores = op("Softmax", [op("Mul", [scores, scale], at("scaled"))], at("scores"), axis=-1)
        seen = op("MatMul", [scores, heads("v", [0, 2, 1, 3])], at("seen"))
        seen = op("Transpose", [seen], at("seen_tokens"), perm=[0, 2, 1, 3])
        seen = op("Reshape", [seen, joined], at("seen_joined"))
        x = op("Add", [x, product(seen, at("o"), (MODEL, MODEL))], at("attended"))
        h = norm(x, at("norm_units"))
        gate, up = (product(h, at(name), (MODEL, UNITS)) for name in ["gate", "up"])
        gate = op("Mul", [gate, op("Sigmoid", [gate], at("sigmoid"))], at("silu"))
        units = op("Mul", [gate, up], at("units"))
        x = op("Add", [x, product(units, at("down"), (UNITS, MODEL))], at("layer"))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", "length", MODEL])
    samples = np.random.default_rng(1).integers(0, TOKENS, (SAMPLES, LENGTH))
    np.savez(folder / "calib.npz", ids=samples)
    return weights.save(folder, nodes, [ids], [out], constants)


def by_data(args, folder, segment=SEGMENT):
    """The arguments of a method that needs data."""
    given = ["--method", args.method, "--calibrate", folder / "calib.npz", *args.more]
    return [*given, "--segment", segment]


def memory(args):
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = Path(work)
        plain = args.method == "rtn"
        size = large_model(work) if plain else decoder(work, DEEP)
        limit = size // 4
        command = [args.edgesmith, "quantize", work / "model.onnx", "-o", work / "int4.onnx", "--to", "int4"]
        if not plain:
            command += [*by_data(args, work), "--cache", work / "cache"]
        start = time.time()
        done = subprocess.run(
            command,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
            capture_output=True,
            text=True,
        )
        took = time.time() - start
        written = sum(p.stat().st_size for p in work.glob("int4.onnx*"))
        print(done.stderr.strip())
        print(f"{size >> 20} MiB of weights, {limit >> 20} MiB of memory, {took:.1f} s, {written >> 20} MiB written")
        sys.exit(done.returncode != 0 or written == 0)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_until(command, cache, count=None):
    """Runs a command until it has kept `count` files in its cache, or to its end; how many it kept.

    Files that are removed again on the way count. A run that ends before is not killed.
    """
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = set()
    while child.poll() is None and (count is None or len(kept) < count):
        kept |= {p.name for p in cache.glob("*") if p.suffix != ".tmp"}
        time.sleep(0.002)
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
    elif child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    child.wait()
    return len(kept)


def kill(args):
    random.seed(0)
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = Path(work)

        made = args.model is None
        if made:
            decoder(work, SHALLOW)
        model = work / "model.onnx" if made else args.model

        def plain(out):
            return [args.edgesmith, "quantize", model, "-o", work / out, "--to", "int4"]

        def command(out, cache):
            data = by_data(args, work) if made else ["--calibrate", args.calibrate]
            return [*plain(out), *data, "--cache", work / cache]

        steps = run_until(command("whole.onnx", "a"), work / "a")
        wanted, good = digest(work / "whole.onnx"), True
        if made:
            subprocess.run([*plain("once.onnx"), *by_data(args, work, "8GiB")], check=True, capture_output=True)
            good = digest(work / "once.onnx") == wanted
            print(f"in segments and at once: {'the same bytes' if good else 'DIFFERS'}", flush=True)
        for moment in range(KILLS):
            out, cache = f"{moment}.onnx", f"cache{moment}"
            count = 1 + int((moment + random.random()) / KILLS * (steps - 1))
            run_until(command(out, cache), work / cache, count)
            left = sorted(p.name for p in work.glob(f"{moment}.onnx*"))
            early, kept = out not in left, len(list((work / cache).glob("*")))
            again = time.time()
            subprocess.run([*command(out, cache), "--force"], check=True, capture_output=True)
            same = digest(work / out) == wanted
            good &= same and early
            print(f"killed {'' if early else 'TOO LATE '}when {count} of {steps} files were kept (then there: {left}, "
                  f"{kept} files in the cache), again {time.time() - again:.1f} s: "
                  f"{'the same bytes' if same else 'DIFFERS'}", flush=True)
        sys.exit(not good)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["memory", "kill"])
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--method", default="rtn", help="how weights are rounded, of a model that is made")
    parser.add_argument("--more", nargs="*", default=[], metavar="ARGUMENT", help="more arguments of methods with data, without --")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--work", type=Path, help="where files are made, instead of the system's folder")
    args = parser.parse_args()
    args.more = [f"--{name}" for name in args.more]
    globals()[args.command](args)


if __name__ == "__main__":
    main()
