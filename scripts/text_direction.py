#!/usr/bin/env python3
"""Builds the folder of a MobileNetV3 with labelled samples, for scripts/compare_quantization.py.

    python3 scripts/text_direction.py DIR
    python3 scripts/compare_quantization.py --edgesmith target/release/edgesmith --models DIR --only text_direction

The network is PaddleOCR's text direction classifier (MobileNetV3-small, hard-swish and squeeze-and-excitation,
Apache-2.0), as the PyPI package rapidocr-onnxruntime ships it: is a line of text upright or turned by 180 degrees?
Samples are words in Pillow's own font with noise, blur and uneven light, half of them turned, so labels are
known: 200 without labels to calibrate, 2,000 to judge. Seeds are fixed; calibration and test share no image.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from PIL import Image, ImageDraw, ImageFilter, ImageFont

PACKAGE = "rapidocr-onnxruntime==1.4.4"
MODEL = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
HIGH, WIDE = 48, 192
CALIBRATION, TEST = 200, 2000
WORDS = (
    "table garden river window market yellow simple doctor summer bridge letter corner winter engine silver "
    "planet number second family travel people orange public police history science nothing morning picture "
    "station village kitchen library weather holiday journey quarter problem company machine"
).split()


def line(rng):
    """One line of text as an image, upright."""
    size = int(rng.integers(24, 38))
    words = [str(w) for w in rng.choice(WORDS, rng.integers(1, 4))]
    words = [w if rng.random() < 0.6 else w.upper() if rng.random() < 0.3 else w.title() for w in words]
    text = " ".join(words) + (f" {rng.integers(0, 1000)}" if rng.random() < 0.3 else "")
    paper, ink = rng.integers(130, 256, 3), rng.integers(0, 110, 3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    image = Image.new("RGB", (WIDE, HIGH), tuple(int(c) for c in paper))
    ImageDraw.Draw(image).text(
        (float(rng.uniform(1, 8)), HIGH / 2 + float(rng.uniform(-6, 6))),
        text, fill=tuple(int(c) for c in ink), font=ImageFont.load_default(size), anchor="lm",
    )  # fmt: skip
    image = image.rotate(float(rng.uniform(-4, 4)), Image.Resampling.BILINEAR, fillcolor=tuple(int(c) for c in paper))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.2))))
    pixels = np.asarray(image, np.float32)
    light = np.linspace(rng.uniform(0.6, 1.1), rng.uniform(0.6, 1.1), WIDE, dtype=np.float32)
    pixels = pixels * light[None, :, None] + rng.normal(0, rng.uniform(1, 12), pixels.shape)
    return np.clip(pixels, 0, 255)


def samples(count, seed):
    """Inputs `[count, 3, 48, 192]` in -1 to 1, and labels: 1 is turned."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.5).astype(np.int64)
    images = [line(rng) for _ in range(count)]
    images = [image[::-1, ::-1] if label else image for image, label in zip(images, labels)]
    planes = np.stack(images).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(planes / 127.5 - 1, dtype=np.float32), labels


def model():
    """The network, in the first opset in which weights have a scale for each channel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).iterdir()
        read = zipfile.ZipFile(io.BytesIO(wheel.read_bytes())).read(MODEL)
    return onnx.version_converter.convert_version(onnx.load_from_string(read), 13)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR", help="where the folder text_direction is made")
    folder = parser.parse_args().out / "text_direction"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model(), folder / "model.onnx")
    inputs, _ = samples(CALIBRATION, 1)
    np.savez_compressed(folder / "calib.npz", x=inputs)
    inputs, labels = samples(TEST, 2)
    np.savez_compressed(folder / "test.npz", x=inputs, labels=labels)
    print(f"{folder}: {CALIBRATION} samples to calibrate, {TEST} to judge")


if __name__ == "__main__":
    main()
