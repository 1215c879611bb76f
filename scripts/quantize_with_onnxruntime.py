#!/usr/bin/env python3
"""Quantises a folder of models with ONNX Runtime's own quantiser, for `cargo xtask bench
--quantized OUT`: NAME.u8.onnx and NAME.s8.onnx (static, by activations) and NAME.dynamic.onnx.

    python3 scripts/quantize_with_onnxruntime.py --models FOLDER --out OUT
    python3 scripts/quantize_with_onnxruntime.py --models FOLDER --out OUT --format QOperator

With `--format QOperator` only the static ones are made, of more models, from integer operators.
"""

import argparse
import pathlib

import numpy
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

STATIC = ["mobilenet_v2", "resnet8_cifar10", "ds_cnn_kws", "vww_96"]
DYNAMIC = STATIC + ["minilm", "magika"]
OPERATORS = STATIC + ["ad_autoencoder", "efficientnet_lite0", "minilm"]
SAMPLES = 64


class Samples(quantization.CalibrationDataReader):
    """The first samples of an npz, one at a time."""

    def __init__(self, file):
        arrays = numpy.load(file)
        self.arrays = {n: arrays[n] for n in arrays.files if n != "labels"}
        self.at = 0

    def get_next(self):
        i, self.at = self.at, self.at + 1
        if i >= min(SAMPLES, *(len(a) for a in self.arrays.values())):
            return None
        return {n: a[i : i + 1] for n, a in self.arrays.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--format", default="QDQ", choices=["QDQ", "QOperator"], help="of static files")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=OPERATORS, help="these models")
    given = parser.parse_args()
    form = quantization.QuantFormat[given.format]
    dynamic, static = (DYNAMIC, STATIC) if given.format == "QDQ" else ([], OPERATORS)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.only or dynamic or static:
        folder = given.models / name
        if not (folder / "model.onnx").is_file():
            print(f"{name}: not in the folder")
            continue
        prepared = given.out / f"{name}.onnx"
        quant_pre_process(folder / "model.onnx", prepared, skip_symbolic_shape=True)
        # Its ConvInteger takes unsigned weights alone.
        kind = quantization.QuantType
        weights = kind.QInt8 if name == "minilm" else kind.QUInt8
        to = given.out / f"{name}.dynamic.onnx"
        if name in dynamic:
            quantization.quantize_dynamic(prepared, to, weight_type=weights)
        if name in static:
            for activations, kind_of in [("u8", kind.QUInt8), ("s8", kind.QInt8)]:
                quantization.quantize_static(
                    prepared,
                    given.out / f"{name}.{activations}.onnx",
                    Samples(folder / "calib.npz"),
                    quant_format=form,
                    activation_type=kind_of,
                    weight_type=kind.QInt8,
                    per_channel=True,
                )
        prepared.unlink()
        print(name)


if __name__ == "__main__":
    main()
