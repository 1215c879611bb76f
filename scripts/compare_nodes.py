#!/usr/bin/env python3
"""Compares the nodes of INT8 files here and in ONNX Runtime, each fed alone with the same numbers.

    python3 scripts/compare_nodes.py --edgesmith target/release/edgesmith --models DIR [--only NAME]... [-- OPTION]...
    python3 scripts/compare_nodes.py --edgesmith ... --models DIR -- --format qoperator
    python3 scripts/compare_nodes.py --edgesmith ... --models DIR --files FOLDER

Each model of DIR is quantised with what follows `--`, or FOLDER holds NAME.KIND.onnx, such as those of
quantize_with_onnxruntime.py. The file is cut behind every QuantizeLinear and every operator that makes
integers (QLinearConv, QGemm, ...): what it makes becomes an input of the graph, fed with what ONNX Runtime
made of eight samples. So a difference is that of one node, or of the nodes between two roundings, and none is
carried on. A row is an operator of a model. Floats that an integer operator makes (QGemm without a grid for
its result) are compared in steps of a 255th of their range. The exit code is 1 where a number is more than
one step apart.
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


def makes_integers(node):
    return node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear") or node.op_type == "QGemm"


def dtype_of(model, node):
    """The element type of what a node makes: that of its last zero point; floats without one."""
    place = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QLinearAdd": 7, "QLinearMul": 7,
             "QGemm": 8, "QLinearConcat": 1, "QLinearWhere": 8}.get(node.op_type, 4)  # fmt: skip
    if len(node.input) <= place:
        return onnx.TensorProto.FLOAT if node.op_type == "QGemm" else onnx.TensorProto.UINT8
    return next(t.data_type for t in model.graph.initializer if t.name == node.input[place])


def with_outputs(model, made):
    """The model with the values `made` as outputs, by name and element type."""
    known = {v.name for v in model.graph.output}
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for name, dtype in made.items():
        if name not in known:
            out.graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, None))
    return out


def cut(model, made, values):
    """The model in which readers of the values `made` read inputs, and the outputs that make them."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.output[:]
    describe = onnx.helper.make_tensor_value_info
    read = {name for node in out.graph.node for name in node.input}
    for node in out.graph.node:
        name = node.output[0]
        if name not in made:
            continue
        if name in read:
            out.graph.input.append(describe(name, made[name], values[name].shape))
        node.output[0] = f"{name}_made"
        out.graph.output.append(describe(node.output[0], made[name], values[name].shape))
    # Types of values that were made before are those of inputs now.
    kept = [v for v in out.graph.value_info if v.name not in made]
    del out.graph.value_info[:]
    out.graph.value_info.extend(kept)
    return out


def steps(ours, theirs):
    """How far numbers are apart, in steps of integers or of a 255th of the range of floats."""
    if theirs.dtype.kind == "f":
        step = (float(theirs.max()) - min(0.0, float(theirs.min()))) / 255 or 1.0
        return np.rint(np.abs(ours - theirs) / step).astype(int)
    return np.abs(ours.astype(int) - theirs.astype(int))


def compare(args, name, path, folder):
    """Rows of the operators of a file, and whether all numbers are at most a step apart."""
    data, alone, out = folder / "in.npz", folder / "alone.onnx", folder / "out.npz"
    model = onnx.load(path)
    nodes = [n for n in model.graph.node if makes_integers(n)]
    made = {n.output[0]: dtype_of(model, n) for n in nodes}
    few = {n: a[:SAMPLES] for n, a in samples(name, args.models / name)[0].items()}
    onnx.save(with_outputs(model, made), alone)
    full = session(alone)
    asked = {i.name for i in full.get_inputs()}
    values = dict(zip(made, full.run(list(made), {n: a for n, a in few.items() if n in asked})))
    onnx.save(cut(model, made, values), alone)
    theirs = session(alone)
    names = [o.name for o in theirs.get_outputs()]
    asked = {i.name for i in theirs.get_inputs()}
    fed = {n: a for n, a in {**few, **values}.items() if n in asked}
    found = dict(zip(names, theirs.run(names, fed)))
    np.savez(data, **fed)
    subprocess.run([args.edgesmith, "run", alone, "--input", data, "--output", out, "--force"],
                   check=True, capture_output=True)
    with np.load(out) as ours:
        apart = {n: steps(ours[f"{n}_made"], found[f"{n}_made"]) for n in made}
    rows, fine = [], True
    for op in dict.fromkeys(n.op_type for n in nodes):
        of = [apart[n.output[0]].ravel() for n in nodes if n.op_type == op]
        every = np.concatenate(of)
        one, more = (every == 1).mean(), (every > 1).mean()
        differing = sum(bool(a.any()) for a in of)
        rows.append([op, len(of), differing, f"{one:.1e}", f"{more:.1e}", int(every.max())])
        fine &= more == 0
    return rows, fine


def files(args, name, folder):
    """What is compared of a model: labels and files."""
    if args.files:
        return {path.name: path for path in sorted(args.files.glob(f"{name}.*.onnx"))}
    home, path = args.models / name, folder / "int8.onnx"
    words = [args.edgesmith, "quantize", home / "model.onnx", "-o", path, "--force", "--to", "int8",
             "--calibrate", home / "calib.npz", *args.words]
    subprocess.run(words, check=True, capture_output=True)
    return {name: path}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MODELS))
    parser.add_argument("--files", type=Path, metavar="FOLDER", help="of files that are quantised already")
    parser.add_argument("words", nargs="*", metavar="-- OPTION", help="for `edgesmith quantize`")
    args = parser.parse_args()
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or MODELS:
            for label, path in files(args, name, Path(folder)).items():
                found, passed = compare(args, name, path, Path(folder))
                rows += [[label, *row] for row in found]
                fine &= passed
    if args.words:
        print(" ".join(args.words))
    table(rows, ["model", "operator", "nodes", "that differ", "by 1 step", "by more", "steps at most"])
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
