#!/usr/bin/env python3
"""Checks weight-only quantisation: against references in numpy and ONNX Runtime, and on a task.

    pip install -r scripts/requirements.txt
    python3 scripts/compare_weight_only.py similarity --edgesmith target/release/edgesmith --models DIR
    python3 scripts/compare_weight_only.py references --edgesmith ... --models DIR
    python3 scripts/compare_weight_only.py files      --edgesmith ... --models DIR

DIR/minilm holds model.onnx, calib.npz, test.npz (`labels`: human similarity of each pair) and
sst2_dev.npz (sentences). `similarity` prints a table of methods and bits: correlation with people,
and how far the similarities of all pairs of sentences are from those of the float model.
`references` sets GPTQ and NF4 beside plain code: a textbook GPTQ in numpy, ONNX Runtime's packing of
NF4. `files` runs every form of file in ONNX Runtime and here. The exit code is 1 when a check fails.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

METHODS = ["rtn", "gptq", "awq", "awq+gptq", "hqq"]


def quantize(args, out, *flags, data=True):
    """Writes a quantised MiniLM; what the program said."""
    model = args.models / "minilm"
    command = [args.edgesmith, "quantize", model / "model.onnx", "-o", out, "--force", *flags]
    if data:
        command += ["--calibrate", model / "calib.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stderr


def session(path, outputs=None):
    """A session of ONNX Runtime on two threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    model = path if outputs is None else with_outputs(path, outputs)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def with_outputs(path, names):
    """The model that gives these values too."""
    model = onnx.load(path)
    there = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in there)
    return model.SerializeToString()


def inputs(path, count=None):
    """The arrays of an npz without labels."""
    with np.load(path) as data:
        return {k: v[:count] for k, v in data.items() if k != "labels"}


def embeddings(path, samples):
    """Sentence embeddings, in batches."""
    run = session(str(path))
    count = len(next(iter(samples.values())))
    parts = []
    for first in range(0, count, 32):
        batch = {k: v[first : first + 32] for k, v in samples.items()}
        parts.append(run.run(["sentence_embedding"], batch)[0])
    return np.concatenate(parts).astype(np.float64)


def ranks(x):
    """Ranks, the mean of equal ones."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def pairs(embedded):
    """Cosines of all pairs."""
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def similarity(args):
    """The table of methods and bits."""
    folder = args.models / "minilm"
    with np.load(folder / "test.npz") as test:
        people = test["labels"][np.triu_indices(len(test["labels"]), 1)]
    lee = inputs(folder / "test.npz")
    sentences = inputs(folder / "sst2_dev.npz", args.sentences)
    plain = pairs(embeddings(folder / "model.onnx", sentences))

    def row(name, bits, path):
        of_lee = pairs(embeddings(path, lee))
        apart = np.sqrt(np.mean((pairs(embeddings(path, sentences)) - plain) ** 2))
        spearman = np.corrcoef(ranks(of_lee), ranks(people))[0, 1]
        pearson = np.corrcoef(of_lee, people)[0, 1]
        print(f"| {name} | {bits} | {spearman:.4f} | {pearson:.4f} | {apart:.5f} |", flush=True)

    print("| method | bits | Spearman | Pearson | RMS of cosines apart from FP32 |")
    print("| --- | --- | --- | --- | --- |")
    row("FP32", 32, folder / "model.onnx")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.onnx"
        for bits in args.bits:
            for method in args.methods:
                flags = ["--to", f"int{bits}", "--method", method, *args.flags.split()]
                said = quantize(args, path, *flags).strip().splitlines()[-1]
                row(method, bits, path)
                if args.verbose:
                    print(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["similarity", "references", "files"])
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--flags", default="", help="more flags of `edgesmith quantize`")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    globals()[args.command](args)


if __name__ == "__main__":
    main()
