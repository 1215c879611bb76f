#!/usr/bin/env python3
"""Compares FP16, BF16 and FP8 files by edgesmith with FP32, in ONNX Runtime and here.

    python3 scripts/compare_floats.py --edgesmith target/release/edgesmith --models DIR
    python3 scripts/compare_floats.py --edgesmith ... --models DIR --only minilm --types fp8-weights

All but BF16 are given calib.npz.

DIR holds NAME/{model.onnx,calib.npz,test.npz}, as for compare_quantization.py, whose samples and metrics
are used. All files run in ONNX Runtime; those of `fp8` with graph optimization off, as its fusions take
FP8 activations for integers and then do not load the file. Columns:

`KiB`      the file
`metric`   top-1 in per cent, the area under the ROC curve, or Spearman's correlation
`drop`     how far that is below FP32
`SQNR`     signal to noise of the outputs against FP32, in dB
`same`     answers that are FP32's: classes in per cent, or the Spearman correlation with its numbers
`apart`    signal to noise of the outputs of `edgesmith run` against those of ONNX Runtime, in dB
`codes`    numbers of FP8 weights that are not those of `ml_dtypes` for `w / scale`, and scales that are
           not max|w| / largest number; `-` where the type has none

The exit code is 1 where a code or a scale differs, or where `apart` is under 40 dB; with FP8 activations,
where sums of another order fall on the other side of a tie, under 6 dB above `SQNR`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from compare_quantization import MODELS, Failed, child, numbers, outputs, samples, score, spearman, sqnr

TYPES = {
    "fp16": ["--to", "fp16"],
    "bf16": ["--to", "bf16"],
    "fp8-weights": ["--to", "fp8-weights"],
    "fp8-weights e5m2": ["--to", "fp8-weights", "--float8", "e5m2"],
    "fp8": ["--to", "fp8"],
    "fp8 e5m2": ["--to", "fp8", "--float8", "e5m2"],
}
FLOAT8 = {
    onnx.TensorProto.FLOAT8E4M3FN: (ml_dtypes.float8_e4m3fn, 448.0),
    onnx.TensorProto.FLOAT8E5M2: (ml_dtypes.float8_e5m2, 57344.0),
}


def session(path, plain=False):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def wrong_codes(file, plain):
    """Codes and scales of FP8 weights that are not those of `ml_dtypes`; None where there are none."""
    weights = {t.name: t for t in onnx.load(str(plain)).graph.initializer}
    graph = onnx.load(str(file)).graph
    constants = {t.name: t for t in graph.initializer}
    wrong, found = 0, False
    for node in graph.node:
        codes = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or codes.data_type not in FLOAT8:
            continue
        found = True
        dtype, largest = FLOAT8[codes.data_type]
        w = numpy_helper.to_array(weights[codes.name.removesuffix("_fp8")])
        scale = numpy_helper.to_array(constants[node.input[1]])
        axis = next(a.i for a in node.attribute if a.name == "axis")
        others = tuple(i for i in range(w.ndim) if i != axis)
        expected = (np.abs(w).max(others).astype(np.float64) / largest).astype(np.float32)
        expected[expected < np.finfo(np.float32).tiny] = 1
        wrong += int((scale != expected).sum())
        shape = [1] * w.ndim
        shape[axis] = -1
        codes = np.frombuffer(codes.raw_data, np.uint8).reshape(w.shape)
        wrong += int((codes != (w / scale.reshape(shape)).astype(dtype).view(np.uint8)).sum())
    return wrong if found else None


def here(args, model, inputs, output, folder):
    """An output over all samples by `edgesmith run`."""
    given, found = folder / "in.npz", folder / "out.npz"
    found.unlink(missing_ok=True)
    np.savez(given, **inputs)
    child([args.edgesmith, "run", model, "--input", given, "--output", found])
    with np.load(found) as archive:
        return archive[output]


def compare(args, name, folder):
    """Rows of one model, and whether all is well."""
    metric, home = MODELS[name][0], args.models / name
    inputs, labels = samples(name, home)
    float_session = session(home / "model.onnx")
    output = float_session.get_outputs()[-1 if name == "minilm" else 0].name
    names = {value.name for value in float_session.get_inputs()}
    reference = outputs(float_session, inputs, output)
    truth = numbers(metric, reference, inputs)
    best = score(metric, truth, labels)
    kib = lambda file: f"{file.stat().st_size / 1024:,.0f}"
    rows, fine = [[name, "fp32", kib(home / "model.onnx"), f"{best:.4g}"]], True
    plain = folder / f"{name}.basic.onnx"
    child([args.edgesmith, "optimize", home / "model.onnx", "-o", plain, "--level", "basic"])
    few = {n: a[:24] for n, a in inputs.items() if n in names}
    for kind in args.types:
        file = folder / f"{name}.{kind.replace(' ', '.')}.onnx"
        words = [*TYPES[kind], "-o", file]
        if kind != "bf16":
            words += ["--calibrate", home / "calib.npz"]
        child([args.edgesmith, "quantize", home / "model.onnx", *words])
        full = kind.split()[0] == "fp8"
        one = session(file, plain=full)
        found = outputs(one, inputs, output)
        judged = numbers(metric, found, inputs)
        value = score(metric, judged, labels)
        same = 100 * float((judged == truth).mean()) if metric == "top1" else spearman(judged, truth)
        apart = sqnr(outputs(one, few, output), here(args, file, few, output, folder))
        wrong = wrong_codes(file, plain)
        noise = sqnr(reference, found)
        fine &= not wrong and apart > (noise + 6 if full else 40)
        rows.append([
            name, kind, kib(file), f"{value:.4g}", f"{best - value:+.4f}", f"{noise:.2f}",
            f"{same:.4g}", f"{apart:.1f}", "-" if wrong is None else str(wrong),
        ])  # fmt: skip
    return rows, fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgesmith", type=Path, required=True, help="the binary")
    parser.add_argument("--models", type=Path, required=True, help="the folder of model folders")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MODELS), help="these models")
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES), help="these types")
    args = parser.parse_args()
    args.edgesmith = args.edgesmith.resolve()
    rows, fine = [["model", "type", "KiB", "metric", "drop", "SQNR", "same", "apart", "codes"]], True
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or MODELS:
            try:
                more, passed = compare(args, name, Path(folder))
            except Failed as problem:
                more, passed = [[name, f"NO: {problem}"]], False
            rows += more
            fine &= passed
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(9)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
