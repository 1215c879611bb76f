#!/usr/bin/env python3
"""Searches plans of mixed precision for goals, and judges each file in ONNX Runtime.

    python3 scripts/mixed_precision.py --edgesmith target/release/edgesmith --models DIR

DIR is a folder of models, each with model.onnx, calib.npz and test.npz. Images of test.npz are
mirrored and shifted; half of the originals with theirs are the samples that goals are judged by, the
other half is not seen by the search. A goal of size, of SQNR and of drop on the searched half is
checked; the script fails where one that was reported as kept is not kept in ONNX Runtime.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from compare_quantization import MODELS, outputs, read, session, shifted, sqnr, table

# Model, arguments, what is to hold.
GOALS = [
    ("mobilenet_v2", "--to int8", None),
    ("mobilenet_v2", "--to int8 --max-drop 0", ("drop", 0)),
    ("mobilenet_v2", "--to int8 --max-drop 0 --sensitivity loss", ("drop", 0)),
    ("mobilenet_v2", "--to int8 --min-sqnr 25", ("sqnr", 25)),
    ("mobilenet_v2", "--to int8 --size 5MB", ("bytes", 5_000_000)),
    ("mobilenet_v2", "--to int4", None),
    ("mobilenet_v2", "--to int4 --max-drop 0", ("drop", 0)),
    ("mobilenet_v2", "--to int4 --size 9MB", ("bytes", 9_000_000)),
    ("resnet8_cifar10", "--to int8", None),
    ("resnet8_cifar10", "--to int8 --min-sqnr 38", ("sqnr", 38)),
]


def halves(name, folder):
    """Inputs and labels of the searched half and of the other."""
    inputs, labels = read(folder / "test.npz")
    axes = MODELS[name][2]
    for part in (slice(0, None, 2), slice(1, None, 2)):
        images = {n: shifted(a[part], axes) for n, a in inputs.items()}
        yield images, np.tile(labels[part], len(next(iter(images.values()))) // len(labels[part]))


def judged(float_model, model, half):
    """Points of accuracy lost, and SQNR, in ONNX Runtime."""
    inputs, labels = half
    truth, found = (outputs(s, inputs, s.get_outputs()[0].name) for s in (float_model, model))
    right = lambda out: 100 * float((out.reshape(len(labels), -1).argmax(1) == labels).mean())
    return right(truth) - right(found), sqnr(truth, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--edgesmith", required=True)
    parser.add_argument("--models", type=Path, required=True)
    args = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        out, data = Path(folder) / "out.onnx", Path(folder) / "search.npz"
        for name, words, holds in GOALS:
            home = args.models / name
            searched, other = halves(name, home)
            np.savez(data, **searched[0], labels=searched[1])
            command = [args.edgesmith, "quantize", home / "model.onnx", "-o", out, "--force",
                       "--calibrate", home / "calib.npz", "--evaluate", data, *words.split()]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} {words}: {done.stderr}")
            taken = re.search(r"taken: (\d+) of (\d+)", done.stderr)
            plans = len(re.findall(r"^plan \d+:", done.stderr, re.M))
            float_model, model = session(home / "model.onnx"), session(out)
            (drop, db), (drop2, db2) = (judged(float_model, model, h) for h in (searched, other))
            size = out.stat().st_size
            kept = {
                None: True,
                "drop": drop <= (holds or (0, 0))[1] + 1e-9,
                "sqnr": db >= (holds or (0, 0))[1] - 0.1,
                "bytes": size <= (holds or (0, 0))[1],
            }[holds and holds[0]]
            failed |= not kept
            rows.append([name, words, f"{taken[1]} of {taken[2]}" if taken else "-", plans, f"{size:,}",
                         f"{drop:.2f}", f"{db:.1f}", f"{drop2:.2f}", f"{db2:.1f}", "yes" if kept else "NO"])
    head = ["model", "arguments", "raised", "plans", "bytes", "drop", "dB", "drop, other half", "dB", "kept"]
    table(rows, head)
    sys.exit(failed)


if __name__ == "__main__":
    main()
