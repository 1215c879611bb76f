#!/usr/bin/env python3
"""Quantises a model four times as large as the memory that it may take, and one that is killed.

    pip install -r scripts/requirements.txt
    python3 scripts/quantize_in_limits.py memory --edgesmith target/release/edgesmith
    python3 scripts/quantize_in_limits.py kill   --edgesmith ... --model MODEL --calibrate CALIB.npz

`memory` makes a model of a GiB of random weights beside it, and rounds them to INT4 with a quarter of
that as the most private memory (RLIMIT_DATA); pages of the mapped file are not private. `kill` ends
`quantize --to int4 --cache` by SIGKILL at five moments, starts it again, and compares the file with that
of a run that was left alone. The exit code is 1 when a file is missing or differs.
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


def large_model(folder):
    """A chain of products, its weights in a file of their own."""
    rng = np.random.default_rng(0)
    nodes, tensors, offset = [], [], 0
    with open(folder / "weights", "wb") as out:
        for i in range(LAYERS):
            data = rng.standard_normal((HEIGHT, WIDTH), np.float32)
            out.write(data.tobytes())
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=data.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in [("location", "weights"), ("offset", offset), ("length", data.nbytes)]:
                tensor.external_data.add(key=key, value=str(value))
            offset += data.nbytes
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"m{i}"))
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", HEIGHT])
    graph = helper.make_graph(nodes, "large", [value("x0")], [value(f"x{LAYERS}")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return offset


def memory(args):
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = Path(work)
        size = large_model(work)
        limit = size // 4
        command = [args.edgesmith, "quantize", work / "model.onnx", "-o", work / "int4.onnx", "--to", "int4"]
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


def kill(args):
    random.seed(0)
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = Path(work)

        def command(out, cache):
            return [args.edgesmith, "quantize", args.model, "-o", work / out, "--to", "int4",
                    "--calibrate", args.calibrate, "--cache", work / cache]  # fmt: skip

        start = time.time()
        subprocess.run(command("whole.onnx", "a"), check=True, capture_output=True)
        took = time.time() - start
        wanted, good = digest(work / "whole.onnx"), True
        for moment in range(5):
            out = f"{moment}.onnx"
            child = subprocess.Popen(command(out, "b"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = took * random.uniform(0.1, 0.9)
            time.sleep(after)
            child.send_signal(signal.SIGKILL)
            child.wait()
            left = sorted(p.name for p in work.glob(f"{moment}.onnx*"))
            again = time.time()
            subprocess.run([*command(out, "b"), "--force"], check=True, capture_output=True)
            same = digest(work / out) == wanted
            good &= same
            print(f"killed after {after:.1f} of {took:.1f} s (then there: {left}), again {time.time() - again:.1f} s: "
                  f"{'the same bytes' if same else 'DIFFERS'}", flush=True)
            if moment == 2:
                for kept in (work / "b").iterdir():
                    kept.unlink()
        sys.exit(not good)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["memory", "kill"])
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--work", type=Path, help="where files are made, instead of the system's folder")
    args = parser.parse_args()
    globals()[args.command](args)


if __name__ == "__main__":
    main()
