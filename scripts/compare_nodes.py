#!/usr/bin/env python3
"""Compares the nodes of INT8 files here and in ONNX Runtime, each fed alone with the same numbers.

    python3 scripts/compare_nodes.py --edgesmith target/release/edgesmith --models DIR [--only NAME]... [-- OPTION]...

Each model of DIR is quantised with what follows `--` and cut behind every QuantizeLinear: what it makes
becomes an input of the graph, fed with what ONNX Runtime made of eight samples. So a difference is that
of the nodes between two roundings, and none is carried on. The exit code is 1 where a number is more than one
step apart.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from compare_quantization import MODELS, samples, session, table

SAMPLES = 8


def with_outputs(model, made):
    """The model with the values `made` as outputs, by name and type."""
    types = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    known = {v.name for v in model.graph.output}
    out = onnx.ModelProto()
    out.CopyFrom(model)
    out.graph.output.extend(types[name] for name in made if name not in known)
    return out


def cut(model, made):
    """The model in which readers of the values `made` read inputs, and the outputs that make them."""
    full, out = with_outputs(model, made), onnx.ModelProto()
    types = {v.name: v for v in full.graph.output}
    out.CopyFrom(model)
    del out.graph.output[:]
    for node in out.graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] in made:
            name = node.output[0]
            node.output[0] = f"{name}_made"
            out.graph.input.append(types[name])
            value = onnx.ValueInfoProto()
            value.CopyFrom(types[name])
            value.name = node.output[0]
            out.graph.output.append(value)
    return out


def compare(args, name, folder):
    home, path, data = args.models / name, folder / "int8.onnx", folder / "in.npz"
    words = [args.edgesmith, "quantize", home / "model.onnx", "-o", path, "--force", "--to", "int8",
             "--calibrate", home / "calib.npz", *args.words]
    subprocess.run(words, check=True, capture_output=True)
    model = onnx.load(path)
    made = [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    few = {n: a[:SAMPLES] for n, a in samples(name, home)[0].items()}
    onnx.save(with_outputs(model, made), path)
    values = dict(zip(made, session(path).run(made, few)))
    onnx.save(cut(model, set(made)), path)
    theirs = session(path)
    names = [o.name for o in theirs.get_outputs()]
    asked = {i.name for i in theirs.get_inputs()}
    fed = {n: a for n, a in {**few, **values}.items() if n in asked}
    found = dict(zip(names, theirs.run(names, fed)))
    np.savez(data, **fed)
    out = folder / "out.npz"
    subprocess.run([args.edgesmith, "run", path, "--input", data, "--output", out, "--force"],
                   check=True, capture_output=True)
    with np.load(out) as ours:
        apart = {n: np.abs(ours[n].astype(int) - found[n].astype(int)) for n in names}
    total = sum(a.size for a in apart.values())
    far = max(apart.values(), key=lambda a: a.max())
    differing = sum(int((a > 0).sum()) for a in apart.values())
    nodes = sum(bool((a > 0).any()) for a in apart.values())
    return [name, " ".join(args.words), len(names), nodes, f"{differing / total:.1e}", int(far.max())], far.max() <= 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MODELS))
    parser.add_argument("words", nargs="*", metavar="-- OPTION", help="for `edgesmith quantize`")
    args = parser.parse_args()
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or MODELS:
            row, passed = compare(args, name, Path(folder))
            rows.append(row)
            fine &= passed
    table(rows, ["model", "options", "roundings", "that differ", "share of numbers", "steps at most"])
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
