#!/usr/bin/env python3
"""Compares INT8 by edgesmith with INT8 by ONNX Runtime's `quantize_static` on a folder of models.

    python3 scripts/compare_quantization.py --edgesmith target/release/edgesmith --models DIR
    python3 scripts/compare_quantization.py --edgesmith ... --models DIR --only minilm -- --observer mse
    python3 scripts/compare_quantization.py --edgesmith ... --models DIR --speed 200 --only mobilenet_v2

DIR holds NAME/{model.onnx,calib.npz,test.npz} (text_direction by scripts/text_direction.py); what
follows `--` goes to `edgesmith quantize`. All models run in ONNX Runtime, with exact sums
(`session.x64quantprecision`), on the same samples: those of test.npz and, for images, their mirror
images and shifts. Columns:

`metric`   top-1 in per cent; area under the ROC curve (samples against the same with bands shifted);
           Spearman correlation of cosines with the similarity that people gave
`drop`     how far that is below FP32
`SQNR`     signal to noise of the outputs against FP32, in dB
`same`     answers that are FP32's: classes in per cent, or the Spearman correlation with its numbers
`LSB`      the largest difference of outputs in ONNX Runtime and in `edgesmith run`, in steps of 1/255
           of the range of the output
`s`, `MiB` wall time of the quantisation (imports left out) and peak resident memory of its process

The exit code is 1 where edgesmith's drop is above the bar, or where one of ONNX Runtime's is closer to
FP32: by its drop (none counts as better than FP32, which the float model is by luck) or by its SQNR.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

METHODS = ["MinMax", "Entropy", "Percentile"]
EXACT = "session.x64quantprecision"
# The metric, the largest drop, and the axes of images to mirror and shift with the step.
MODELS = {
    "mobilenet_v2": ("top1", 0.5, (2, 3, 12)),
    "efficientnet_lite0": ("top1", 0.5, (2, 3, 12)),
    "resnet8_cifar10": ("top1", 0.5, (1, 2, 2)),
    "vww_96": ("top1", 0.5, (1, 2, 5)),
    "ds_cnn_kws": ("top1", 0.5, None),
    "ad_autoencoder": ("auc", 0.01, None),
    "minilm": ("spearman", 0.005, None),
    "text_direction": ("top1", 1.5, None),
}
BANDS, SHIFT = 128, 8

QUANTIZE = """
import sys, time
import numpy
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

model, data, out, method = sys.argv[1:5]

class Reader(quantization.CalibrationDataReader):
    def __init__(self):
        with numpy.load(data) as z:
            self.arrays = {n: z[n] for n in z.files if n != "labels"}
        self.at, self.count = 0, min(map(len, self.arrays.values()))
    def get_next(self):
        i, self.at = self.at, self.at + 1
        return {n: a[i : i + 1] for n, a in self.arrays.items()} if i < self.count else None

started = time.perf_counter()
prepared = out + ".prepared.onnx"
quant_pre_process(model, prepared, skip_symbolic_shape=True)
quantization.quantize_static(
    prepared, out, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
    activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    calibrate_method=getattr(quantization.CalibrationMethod, method),
)
print(time.perf_counter() - started)
"""


class Failed(Exception):
    """A command that did not do what it promises."""


def session(path, optimize=True):
    """An ONNX Runtime session whose byte products are exact.

    For that it makes weights unsigned, also those that meet signed activations, for which 1.31.1 has no kernels: then
    it runs the file as it is, which is exact where the CPU has VNNI.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimize:
        options.add_session_config_entry(EXACT, "1")
    else:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except NotImplemented:
        if not optimize:
            raise
        return session(path, optimize=False)


# Starts a command from a small process: the peak memory of a child begins with that of its parent.
MEASURE = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    print(time.perf_counter() - started, usage.ru_maxrss, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def child(command):
    """Standard output, seconds and peak resident MiB of a command."""
    words = [str(word) for word in command]
    with tempfile.NamedTemporaryFile("r") as facts:
        measured = [sys.executable, "-c", MEASURE, facts.name, *words]
        done = subprocess.run(measured, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{words[1]}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        seconds, kilobytes = facts.read().split()
    return done.stdout, float(seconds), float(kilobytes) / 1024


def quantize_by_edgesmith(args, model, data, out):
    """Seconds and MiB of `edgesmith quantize`."""
    words = ["--to", "int8", "--calibrate", data, "-o", out, "--force", *args.words]
    _, seconds, peak = child([args.edgesmith, "quantize", model, *words])
    return seconds, peak


def quantize_by_onnxruntime(model, data, out, method):
    """Seconds and MiB of `quantize_static`."""
    text, _, peak = child([sys.executable, "-c", QUANTIZE, model, data, out, method])
    return float(text.splitlines()[-1]), peak


def read(path):
    """The inputs of an npz, and its labels."""
    with np.load(path) as archive:
        arrays = dict(archive)
    return arrays, arrays.pop("labels", None)


def shifted(images, axes):
    """Images with their mirror images and shifts in four directions; edges are repeated."""
    high, wide, step = axes
    made = [images, np.flip(images, wide)]
    for axis in (high, wide):
        size = images.shape[axis]
        for by in (-step, step):
            made.append(images.take(np.clip(np.arange(size) + by, 0, size - 1), axis))
    return np.concatenate([np.ascontiguousarray(part) for part in made])


def samples(name, folder):
    """Inputs and labels to evaluate a model with."""
    metric, _, axes = MODELS[name]
    inputs, labels = read(folder / "test.npz")
    if axes:
        inputs = {n: shifted(a, axes) for n, a in inputs.items()}
        labels = np.tile(labels, 6)
    if metric == "auc":
        (key, rows), = inputs.items()
        normal, other = rows[::2], rows[1::2]
        other = np.roll(other.reshape(len(other), -1, BANDS), SHIFT, 2).reshape(other.shape)
        inputs, labels = {key: np.concatenate([normal, other])}, np.arange(len(rows)) >= len(normal)
    return inputs, labels


def outputs(one, inputs, output, batch=25):
    """An output over all samples."""
    names = {value.name for value in one.get_inputs()}
    count = len(next(iter(inputs.values())))
    cut = lambda i: {n: a[i : i + batch] for n, a in inputs.items() if n in names}
    return np.concatenate([one.run([output], cut(i))[0] for i in range(0, count, batch)])


def ranks(x):
    """Ranks of numbers; equal ones share their mean."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def numbers(metric, found, inputs):
    """What is judged: classes, scores of samples, or cosines of pairs."""
    if metric == "top1":
        return found.reshape(len(found), -1).argmax(1)
    if metric == "auc":
        return ((found - next(iter(inputs.values()))) ** 2).mean(1)
    cosines = found @ found.T
    return cosines[np.triu_indices(len(found), 1)]


def score(metric, judged, labels):
    if metric == "top1":
        return 100 * float((judged == labels).mean())
    if metric == "auc":
        other = ranks(judged)[labels]
        n, m = len(other), len(labels) - len(other)
        return float((other.sum() - n * (n + 1) / 2) / (n * m))
    return spearman(judged, labels[np.triu_indices(len(labels), 1)])


def sqnr(reference, found):
    noise = ((reference.astype(np.float64) - found) ** 2).sum()
    return 10 * np.log10((reference.astype(np.float64) ** 2).sum() / noise) if noise else np.inf


def steps_apart(args, model, inputs, output, folder):
    """The largest difference of an output in ONNX Runtime and here, in steps of a byte of its range."""
    few = {n: a[:20] for n, a in inputs.items()}
    given, found = folder / "in.npz", folder / "out.npz"
    found.unlink(missing_ok=True)
    np.savez(given, **few)
    child([args.edgesmith, "run", model, "--input", given, "--output", found])
    with np.load(found) as archive:
        ours = archive[output]
    theirs = outputs(session(model), few, output)
    return float(np.abs(ours - theirs).max() / ((theirs.max() - min(0, theirs.min())) / 255))


def compare(args, name, folder):
    """Rows of one model, and whether edgesmith's passes."""
    metric, bar, _ = MODELS[name]
    home = args.models / name
    inputs, labels = samples(name, home)
    float_session = session(home / "model.onnx")
    output = float_session.get_outputs()[-1 if name == "minilm" else 0].name
    reference = outputs(float_session, inputs, output)
    truth = numbers(metric, reference, inputs)
    best = score(metric, truth, labels)
    rows, results = [[name, "FP32", len(labels), f"{best:.4g}"]], {}
    makers = {"edgesmith": lambda out: quantize_by_edgesmith(args, home / "model.onnx", home / "calib.npz", out)}
    for method in args.methods:
        makers[f"ORT {method}"] = lambda out, method=method: quantize_by_onnxruntime(
            home / "model.onnx", home / "calib.npz", out, method
        )
    for who, make in makers.items():
        file = folder / f"{name}.{who.replace(' ', '.')}.onnx"
        try:
            seconds, peak = make(file)
        except Failed as problem:
            if who == "edgesmith":
                raise
            rows.append([name, who, "-", f"fails: {problem}"])
            continue
        found = outputs(session(file), inputs, output)
        judged = numbers(metric, found, inputs)
        value = score(metric, judged, labels)
        same = 100 * float((judged == truth).mean()) if metric == "top1" else spearman(judged, truth)
        apart = f"{steps_apart(args, file, inputs, output, folder):.2f}" if who == "edgesmith" else ""
        results[who] = (value, sqnr(reference, found))
        rows.append([
            name, who, len(labels), f"{value:.4g}", f"{best - value:+.4f}", f"{results[who][1]:.2f}",
            f"{same:.4g}", apart, f"{seconds:.2f}", f"{peak:.0f}",
        ])  # fmt: skip
    ours = results.pop("edgesmith")
    wrong = [f"drop above {bar}"] if best - ours[0] > bar else []
    if any(min(value, best) > ours[0] for value, _ in results.values()):
        wrong.append("drops more than ONNX Runtime's")
    if any(noise > ours[1] for _, noise in results.values()):
        wrong.append("SQNR below ONNX Runtime's")
    rows[1].append("NO: " + ", ".join(wrong) if wrong else "yes")
    return rows, not wrong


def speed(args, name, folder):
    """Rows of time and memory on `args.speed` calibration samples, made by shifts where they are few."""
    home, axes = args.models / name, MODELS[name][2]
    inputs, _ = read(home / "calib.npz")
    while len(next(iter(inputs.values()))) < args.speed:
        if not axes:
            raise Failed(f"{name} has fewer samples")
        inputs = {n: shifted(a, axes) for n, a in inputs.items()}
    data = folder / "many.npz"
    np.savez(data, **{n: a[: args.speed] for n, a in inputs.items()})
    measured = {"edgesmith": quantize_by_edgesmith(args, home / "model.onnx", data, folder / "a.onnx")}
    for method in args.methods:
        measured[f"ORT {method}"] = quantize_by_onnxruntime(home / "model.onnx", data, str(folder / "b.onnx"), method)
    ours = measured["edgesmith"]
    row = lambda who, s, mib: [name, who, args.speed, *["-"] * 5, f"{s:.2f}", f"{mib:.0f}",
                               f"{s / ours[0]:.2f}x time, {mib / ours[1]:.2f}x memory"]  # fmt: skip
    rows = [row(who, *both) for who, both in measured.items()]
    peers = [both for who, both in measured.items() if who != "edgesmith"]
    return rows, all(s >= 3 * ours[0] and mib >= 4 * ours[1] for s, mib in peers)


HEAD = ["model", "by", "samples", "metric", "drop", "SQNR", "same", "LSB", "s", "MiB", "pass"]


def table(rows, head=HEAD):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    full = [row for row in rows if len(row) > 4]
    widths = [max(len(row[i]) for row in full if i < len(row)) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgesmith", type=Path, required=True, help="the binary")
    parser.add_argument("--models", type=Path, required=True, help="the folder of model folders")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MODELS), help="these models")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS, help="of ONNX Runtime")
    parser.add_argument("--speed", type=int, metavar="N", help="only time and memory, on N samples")
    parser.add_argument("words", nargs="*", metavar="-- OPTION", help="for `edgesmith quantize`")
    args = parser.parse_args()
    args.edgesmith = args.edgesmith.resolve()
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or [name for name in MODELS if (args.models / name).is_dir()]:
            try:
                more, passed = (speed if args.speed else compare)(args, name, Path(folder))
            except Failed as problem:
                more, passed = [[name, f"NO: {problem}"]], False
            rows += more
            fine &= passed
    table(rows)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
