#!/usr/bin/env python3
"""Compares the edgesmith binary with ONNX Runtime on the models of a model folder.

    pip install -r scripts/requirements.txt
    python3 scripts/compare_with_onnxruntime.py outputs --edgesmith target/release/edgesmith --models DIR
    python3 scripts/compare_with_onnxruntime.py levels  --edgesmith ... --models DIR
    python3 scripts/compare_with_onnxruntime.py int8    --edgesmith ... --models DIR --only resnet8_cifar10
    python3 scripts/compare_with_onnxruntime.py latency --edgesmith ... --models DIR --only resnet8_cifar10
    python3 scripts/compare_with_onnxruntime.py load    --edgesmith ... --models DIR --only minilm

DIR holds NAME/{model.onnx,calib.npz,test.npz}; an npz has an array per model input and `labels`.
`outputs` (the default) checks the numbers of each provider; `levels` checks each optimiser level,
run by edgesmith and as a file by ONNX Runtime, on several batch sizes and lengths; `int8` checks a
quantised file,
`latency` only measures, `load` compares reading and optimising a model with the creation of a
session, in time and peak memory. The exit code is 1 when a check fails or edgesmith does.

`int8` measures ONNX Runtime twice. On x86-64 processors without VNNI its default kernels add pairs
of u8 x s8 products in 16 bits, which saturate; `session.x64quantprecision` = 1 makes it exact, and
edgesmith is judged against that.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

ALL = [
    "mobilenet_v2", "efficientnet_lite0", "resnet8_cifar10", "ds_cnn_kws", "vww_96", "ad_autoencoder",
    "minilm", "magika",
]  # fmt: skip
RECURRENT = ["silero_vad", "silero_vad_if"]
LEVELS = ["none", "basic", "extended", "layout"]
BATCHES = [1, 3]
# Lengths of the axes beside the batch that a model leaves open, and the scalars that go with them.
LENGTHS = {
    "minilm": [(64, {}), (16, {}), (7, {}), (1, {})],
    "silero_vad": [(576, {"sr": 16000}), (288, {"sr": 8000})],
    "silero_vad_if": [(576, {"sr": 16000}), (288, {"sr": 8000})],
}
CLASSIFIERS = ["mobilenet_v2", "resnet8_cifar10", "ds_cnn_kws", "vww_96"]
TOLERANCE = 1e-4
POINTS = 0.3
ENOUGH = 500
EXACT = {"session.x64quantprecision": "1"}
BATCH = 100


class Failed(Exception):
    """A command that did not do what it promises."""


def edgesmith(args, *words):
    """Standard output of an edgesmith command."""
    command = [str(args.edgesmith), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        talk = done.stderr.strip().splitlines() or ["nothing on stderr"]
        raise Failed(f"`edgesmith {words[0]}` exits {done.returncode}: {talk[0]}")
    return done.stdout


def session(path, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, optimized=None, entries=None):
    """An ONNX Runtime session with one thread, and the configuration entries given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Samples:
    """The arrays of an npz file, cut along each input's batch axis."""

    def __init__(self, path, inputs):
        with np.load(path) as archive:
            arrays = dict(archive)
        self.labels = arrays.get("labels")
        missing = [value.name for value in inputs if value.name not in arrays]
        if missing:
            raise Failed(f"{path.name} has no array for the inputs {missing}")
        self.arrays = {value.name: arrays[value.name] for value in inputs}
        self.axes, self.fixed, self.open = {}, None, {}
        for value in inputs:
            dynamic = [i for i, size in enumerate(value.shape) if not isinstance(size, int)]
            if dynamic:
                self.axes[value.name] = dynamic[0]
                self.open[value.name] = dynamic[1:]
            elif value.shape:
                self.axes[value.name], self.fixed = 0, value.shape[0]
        if not self.axes:
            raise Failed("no input has a batch axis")
        first = next(iter(self.axes))
        self.count = self.arrays[first].shape[self.axes[first]]

    def part(self, start, stop):
        """The inputs of the samples start..stop; inputs without a batch axis are whole."""
        cut = lambda a, axis: np.ascontiguousarray(a.take(range(start, min(stop, self.count)), axis))
        return {n: cut(a, self.axes[n]) if n in self.axes else a for n, a in self.arrays.items()}

    def cut(self, count, length, scalars):
        """The first `count` samples, their other open axes cut to `length`, with these scalars."""
        inputs = self.part(0, count)
        for name, axes in self.open.items():
            for axis in axes:
                inputs[name] = np.ascontiguousarray(inputs[name].take(range(length), axis))
        return inputs | {n: np.array(x, inputs[n].dtype) for n, x in scalars.items()}

    def parts(self, size):
        """All samples in parts of `size`, or of the batch that the model fixes."""
        size = self.fixed or size
        last = self.count - self.count % size if self.fixed else self.count
        return (self.part(i, i + size) for i in range(0, last, size))


def run_edgesmith(args, model, inputs, folder, provider, level=None):
    """Outputs by name of `edgesmith run`."""
    given, found = folder / "in.npz", folder / "out.npz"
    np.savez(given, **inputs)
    found.unlink(missing_ok=True)
    words = ["--level", level] if level else []
    edgesmith(args, "run", model, "--input", given, "--output", found, "--providers", provider, *words)
    with np.load(found) as archive:
        return dict(archive)


def errors(found, expected):
    """Largest error relative to the largest value, and elementwise with a floor of a thousandth of it."""
    if found.shape != expected.shape:
        raise Failed(f"shape {found.shape} instead of {expected.shape}")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        raise Failed("values are not finite in different places")
    finite = np.isfinite(b)
    a, b = a[finite], b[finite]
    if b.size == 0:
        return 0.0, 0.0
    difference, largest = np.abs(a - b), np.abs(b).max()
    if largest == 0:
        worst = float(difference.max())
        return worst, worst
    return float(difference.max() / largest), float((difference / (np.abs(b) + 1e-3 * largest)).max())


def worst_errors(found, expected):
    """The largest errors over all outputs of a model."""
    missing = [name for name in expected if name not in found]
    if missing:
        raise Failed(f"the outputs {missing} are missing")
    pairs = [errors(found[name], array) for name, array in expected.items()]
    return max(p[0] for p in pairs), max(p[1] for p in pairs)


def table(header, rows):
    """Prints rows in columns."""
    rows = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def check_outputs(args, name, folder):
    """Rows of one model in the table of `outputs`, and whether all pass."""
    model = args.models / name / "model.onnx"
    reference = session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    samples = Samples(args.models / name / "test.npz", reference.get_inputs())
    names = [value.name for value in reference.get_outputs()]
    rows, fine = [], True
    for provider, count in (("cpu", args.samples), ("reference", args.reference_samples)):
        try:
            inputs = samples.part(0, samples.fixed or count)
            expected = dict(zip(names, reference.run(names, inputs)))
            worst, elementwise = worst_errors(run_edgesmith(args, model, inputs, folder, provider), expected)
            passed = worst <= TOLERANCE
            cells = [f"{worst:.2e}", f"{elementwise:.2e}", "yes" if passed else "NO"]
        except Failed as problem:
            passed, cells = False, ["-", "-", f"NO: {problem}"]
        rows.append([name, provider, samples.fixed or min(count, samples.count), *cells])
        fine &= passed
    return rows, fine


def check_level(args, model, level, cases, folder):
    """The largest errors of edgesmith and of ONNX Runtime with the file that edgesmith writes."""
    written = folder / "level.onnx"
    edgesmith(args, "optimize", model, "-o", written, "--level", level, "--force")
    peers = [session(written, ort.GraphOptimizationLevel.ORT_DISABLE_ALL), session(written)]
    names = [value.name for value in peers[0].get_outputs()]
    ours, theirs = 0.0, 0.0
    for inputs, expected in cases:
        ours = max(ours, worst_errors(run_edgesmith(args, model, inputs, folder, "cpu", level), expected)[0])
        for peer in peers:
            found = dict(zip(names, peer.run(names, inputs)))
            theirs = max(theirs, worst_errors(found, expected)[0])
    return ours, theirs


def check_levels(args, name, folder):
    """Rows of one model in the table of `levels`, and whether all pass."""
    model = args.models / name / "model.onnx"
    reference = session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    samples = Samples(args.models / name / "test.npz", reference.get_inputs())
    names = [value.name for value in reference.get_outputs()]
    cases = []
    for count in [samples.fixed] if samples.fixed else BATCHES:
        for length, scalars in LENGTHS.get(name, [(None, {})]):
            inputs = samples.cut(count, length, scalars)
            cases.append((inputs, dict(zip(names, reference.run(names, inputs)))))
    rows, fine = [], True
    for level in LEVELS:
        try:
            worst = check_level(args, model, level, cases, folder)
            passed = max(worst) <= TOLERANCE
            cells = [*(f"{x:.2e}" for x in worst), "yes" if passed else "NO"]
        except Failed as problem:
            passed, cells = False, ["-", "-", f"NO: {problem}"]
        rows.append([name, level, len(cases), *cells])
        fine &= passed
    return rows, fine


def quantize(args, name, folder):
    """Path of the model as `edgesmith quantize` writes it in INT8."""
    quantized = folder / f"{name}.int8.onnx"
    home = args.models / name
    words = ["--to", "int8", "--calibrate", home / "calib.npz", "-o", quantized]
    edgesmith(args, "quantize", home / "model.onnx", *words)
    if not quantized.exists():
        raise Failed("`edgesmith quantize` writes no file")
    return quantized


def classes(output):
    """The class of each sample: the largest logit, or a probability over one half."""
    flat = output.reshape(len(output), -1)
    return flat.argmax(1) if flat.shape[1] > 1 else (flat[:, 0] > 0.5).astype(np.int64)


def percent_right(predicted, labels):
    return 100 * float((predicted == labels[: len(predicted)]).mean())


def convolutions(path):
    """How many integer and how many float convolutions a model file has."""
    ops = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    integer = sum(op in ("QLinearConv", "ConvInteger") for op in ops)
    return integer, sum(op in ("Conv", "FusedConv") for op in ops)


def all_classes(args, sessions, quantized, samples, folder):
    """The class of each sample by each session, and by edgesmith under the name `edgesmith`."""
    output = sessions["float"].get_outputs()[0].name
    found = {who: [] for who in [*sessions, "edgesmith"]}
    for inputs in samples.parts(BATCH):
        for who, one in sessions.items():
            found[who].append(classes(one.run([output], inputs)[0]))
        ours = run_edgesmith(args, quantized, inputs, folder, "cpu")
        if output not in ours:
            raise Failed(f"the output {output!r} is missing")
        found["edgesmith"].append(classes(ours[output]))
    return {who: np.concatenate(parts) for who, parts in found.items()}


def complaints(rates, count, max_drop):
    """What is wrong with edgesmith's rate, in words; nothing if it passes."""
    apart = abs(rates["exact"] - rates["edgesmith"])
    drop = rates["float"] - rates["edgesmith"]
    wrong = [f"{apart:.2f} points from onnxruntime"] if apart > POINTS else []
    if count >= ENOUGH and drop > max_drop:
        wrong.append(f"{drop:.2f} points below float")
    return wrong


def check_int8(args, name, folder):
    """The row of one model in the table of `int8`, and whether it passes."""
    try:
        original = args.models / name / "model.onnx"
        quantized = quantize(args, name, folder)
        optimized = folder / f"{name}.optimized.onnx"
        sessions = {
            "float": session(original),
            "default": session(quantized),
            "exact": session(quantized, optimized=optimized, entries=EXACT),
        }
        samples = Samples(args.models / name / "test.npz", sessions["float"].get_inputs())
        if samples.labels is None or samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu":
            raise Failed("test.npz has no class labels")
        found = all_classes(args, sessions, quantized, samples, folder)
        rates = {who: percent_right(predicted, samples.labels) for who, predicted in found.items()}
        count = len(found["edgesmith"])
        if abs(rates["default"] - rates["exact"]) > POINTS:
            print(
                f"note: {name}: with default options onnxruntime gets {rates['default']:.2f} % and not "
                f"{rates['exact']:.2f} %: its 16-bit sums saturate on this processor"
            )
        wrong = complaints(rates, count, args.max_drop)
        cells = [count, *(f"{rates[who]:.2f}" for who in ("float", "default", "exact", "edgesmith"))]
        cells += [f"{rates['float'] - rates['edgesmith']:.2f}", int((found["exact"] != found["edgesmith"]).sum())]
        cells += [*convolutions(optimized), f"NO: {', '.join(wrong)}" if wrong else "yes"]
        return [[name, *cells]], not wrong
    except Failed as problem:
        return [[name, *["-"] * 9, f"NO: {problem}"]], False


def interleaved(sessions, inputs, rounds):
    """Median milliseconds of each session, run in turns so that all see the same machine."""
    times = [[] for _ in sessions]
    for turn in range(rounds + 3):
        for one, kept in zip(sessions, times):
            started = time.perf_counter()
            one.run(None, inputs)
            if turn >= 3:
                kept.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(kept) for kept in times]


def bench(args, model, given):
    """Median wall and processor time of `edgesmith bench`, in milliseconds."""
    words = ["--input", given, "--threads", 1, "--iterations", args.iterations, "--json"]
    text = edgesmith(args, "bench", model, *words)
    try:
        result = json.loads(text)
        return float(result["p50_ms"]), float(result["cpu_p50_ms"])
    except (ValueError, KeyError, TypeError) as problem:
        raise Failed(f"`edgesmith bench --json` is not as promised: {problem!r}") from problem


def measure_latency(args, name, folder):
    """The rows of one model in the table of `latency`, and whether edgesmith did its part."""
    try:
        models = [args.models / name / "model.onnx", quantize(args, name, folder)]
        sessions = [session(model) for model in models]
        samples = Samples(args.models / name / "test.npz", sessions[0].get_inputs())
        inputs, given = samples.part(0, samples.fixed or 1), folder / "one.npz"
        np.savez(given, **inputs)
        peer = interleaved(sessions, inputs, args.iterations)
        ours = [bench(args, model, given) for model in models]
        rows = []
        for i, kind in enumerate(("fp32", "int8")):
            wall, processor = ours[i]
            cells = [f"{peer[i]:.3f}", f"{wall:.3f}", f"{processor:.3f}", f"{wall / peer[i]:.2f}"]
            rows.append([name, kind, *cells, f"{peer[0] / peer[i]:.2f}", f"{ours[0][0] / wall:.2f}"])
        return rows, True
    except Failed as problem:
        return [[name, "-", *["-"] * 5, f"NO: {problem}"]], False


LOAD = """
import resource, sys, time
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, started = peak(), time.perf_counter()
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(1e3 * (time.perf_counter() - started), (peak() - before) / 1024)
"""


def load_edgesmith(args, model, out):
    """Milliseconds of reading and of optimising, and the MiB that the whole process then held."""
    words = ["optimize", model, "-o", out, "--level", "extended", "--json", "--force"]
    found = json.loads(edgesmith(args, *words))
    return found["load_ms"], found["optimize_ms"], (found["peak_bytes"] or 0) / 2**20


def measure_load(args, name, folder):
    """The row of one model in the table of `load`, and whether edgesmith needs no more."""
    try:
        model = args.models / name / "model.onnx"
        ours, peer = [], []
        for _ in range(args.rounds):
            text = subprocess.run([sys.executable, "-c", LOAD, str(model)], capture_output=True, text=True).stdout
            peer.append([float(word) for word in text.split()])
            ours.append(load_edgesmith(args, model, folder / "out.onnx"))
        median = lambda rows, i: statistics.median(row[i] for row in rows)
        total = statistics.median(row[0] + row[1] for row in ours)
        fine = total <= median(peer, 0) and median(ours, 2) <= median(peer, 1)
        cells = [f"{median(peer, 0):.1f}", f"{total:.1f}", f"{median(ours, 0):.1f}", f"{median(ours, 1):.1f}"]
        cells += [f"{median(peer, 1):.1f}", f"{median(ours, 2):.1f}", "yes" if fine else "NO"]
        return [[name, *cells]], fine
    except Failed as problem:
        return [[name, *["-"] * 6, f"NO: {problem}"]], False


ACTIONS = {
    "outputs": (
        check_outputs, ALL,
        ["model", "provider", "samples", "max error", "elementwise", f"pass at {TOLERANCE:g}"],
    ),
    "levels": (
        check_levels, ALL + RECURRENT,
        ["model", "level", "inputs", "edgesmith's error", "onnxruntime's, of the file",
         f"pass at {TOLERANCE:g}"],
    ),
    "int8": (
        check_int8, CLASSIFIERS,
        ["model", "samples", "float %", "int8 % (onnxruntime)", "int8 % (onnxruntime, exact)",
         "int8 % (edgesmith)", "drop", "answers apart", "QLinearConv", "Conv left",
         f"pass (within {POINTS} of exact)"],
    ),
    "latency": (
        measure_latency, CLASSIFIERS,
        ["model", "type", "onnxruntime ms", "edgesmith ms", "edgesmith cpu ms", "edgesmith/onnxruntime",
         "fp32/this (onnxruntime)", "fp32/this (edgesmith)"],
    ),
    "load": (
        measure_load, ["mobilenet_v2", "minilm"],
        ["model", "onnxruntime ms", "edgesmith ms", "reading ms", "optimising ms",
         "onnxruntime MiB", "edgesmith MiB", "no more"],
    ),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=list(ACTIONS), default="outputs")
    parser.add_argument("--edgesmith", type=Path, required=True, help="the binary")
    parser.add_argument("--models", type=Path, required=True, help="the folder of model folders")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models and no others")
    parser.add_argument("--samples", type=int, default=4, help="samples for the provider cpu")
    parser.add_argument("--reference-samples", type=int, default=1, help="and for reference")
    parser.add_argument("--iterations", type=int, default=50, help="timed runs of `latency`")
    parser.add_argument("--rounds", type=int, default=5, help="loads of `load`")
    parser.add_argument(
        "--max-drop", type=float, default=1.0, metavar="POINTS",
        help=f"how far INT8 may be below float on {ENOUGH} samples or more",
    )  # fmt: skip
    args = parser.parse_args()
    args.edgesmith = args.edgesmith.resolve()

    act, names, header = ACTIONS[args.action]
    names = args.only or names
    absent = [name for name in names if not (args.models / name / "model.onnx").exists()]
    if absent:
        parser.error(f"no model.onnx in {args.models} for {', '.join(absent)}")
    rows, fine = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            more, passed = act(args, name, Path(folder))
            rows += more
            fine &= passed
    table(header, rows)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
