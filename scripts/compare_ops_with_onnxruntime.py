#!/usr/bin/env python3
"""Compares operators outside ONNX's default domain with ONNX Runtime, one node at a time.

    python scripts/compare_ops_with_onnxruntime.py --edgesmith target/release/edgesmith

Each case is a model of one node with random and edge inputs, run by ONNX Runtime without its
optimiser and by `edgesmith run` with the providers `reference` and `cpu`. One line an operator says
how many cases there are and the largest difference, relative to the largest value for floats and in
steps for integers. Integers have to be equal, but for the operators in `STEPS`, where the
two round otherwise. The exit code is 1 when a case differs or fails.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TOLERANCE = 2e-6
# Larger for operators in which ONNX Runtime works in lower precision than it says.
# The quantile function of its transform PROBIT takes pi to be 3.14159.
TOLERANCES = {"LinearClassifier": 1e-4, "LinearRegressor": 1e-4}
# Steps by which integers may differ, and why.
STEPS = {}

CASES = []
F32 = np.float32
F16 = np.float16


def case(op, inputs, outputs=1, domain="com.microsoft", version=1, words=None, **attributes):
    """Adds a case. `words` are the strings that a string output may hold."""
    CASES.append((op, inputs, outputs, domain, version, words, attributes))


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(shape, seed=0, dtype=F32):
    return rng(seed).standard_normal(shape).astype(dtype)


def integers(shape, dtype=np.uint8, seed=0):
    info = np.iinfo(dtype)
    return rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def weights(shape, dtype, seed=0):
    """Integers of 7 bits where signed: pairs of their products with 8 bits do not saturate the
    16-bit sums that ONNX Runtime makes on processors without VNNI."""
    values = integers(shape, dtype, seed)
    return values // 2 if dtype == np.int8 else values


def packed(shape, kind, seed=0):
    """A tensor of 4-bit integers."""
    low, high = (0, 15) if kind == TensorProto.UINT4 else (-8, 7)
    values = rng(seed).integers(low, high + 1, shape)
    return helper.make_tensor("t", kind, shape, values.flatten().tolist())


def scale(seed, low=0.01, high=0.3):
    return F32(rng(seed).uniform(low, high))


def zero(dtype, seed=0):
    return dtype(rng(seed).integers(100, 150) if dtype == np.uint8 else rng(seed).integers(-20, 20))


def quantised(shape, dtype, seed):
    """An operand, its scale and its zero point."""
    return [integers(shape, dtype, seed), scale(seed + 1), zero(dtype, seed + 2)]


def grid(dtype, seed, low=0.01, high=0.3):
    return [scale(seed, low, high), zero(dtype, seed + 1)]


def quantised_elementwise():
    shapes = [([2, 3, 16], [2, 3, 16]), ([4, 33], [33]), ([4, 1, 5], [3, 1]), ([3, 4], []), ([0, 3], [1, 3])]
    for seed in range(4):
        for dtype in (np.uint8, np.int8):
            for op in ("QLinearAdd", "QLinearMul"):
                for a, b in shapes:
                    low, high = (0.01, 0.3) if op == "QLinearAdd" else (0.05, 2.0)
                    x = [*quantised(a, dtype, seed), *quantised(b, dtype, seed + 9), *grid(dtype, seed + 20, low, high)]
                    case(op, x)
            case("QLinearSigmoid", [*quantised([512], dtype, seed), F32(1 / 256), dtype(np.iinfo(dtype).min)])
            case("QLinearLeakyRelu", [*quantised([512], dtype, seed), *grid(dtype, seed)], alpha=0.1 * seed)
            part = lambda shape, s: quantised(shape, dtype, seed + s)
            case("QLinearConcat", [*grid(dtype, seed), *part([2, 3], 1), *part([2, 5], 2)], axis=1)
            same = grid(dtype, seed)
            case("QLinearConcat", [*same, integers([2, 3], dtype), *same, *part([1, 3], 2)], axis=0)
            chosen = rng(seed).integers(0, 2, [4, 1]).astype(bool)
            case("QLinearWhere", [chosen, *part([4, 5], 1), *part([5], 2), *grid(dtype, seed)])
        for shape, axis, opset in (([2, 3, 10], -1, 13), ([2, 30, 3], 1, 13), ([2, 3, 10], 1, 12)):
            x = quantised(shape, np.uint8, seed)
            case("QLinearSoftmax", [*x, F32(1 / 256), np.uint8(0)], axis=axis, opset=opset)
            x = quantised(shape, np.int8, seed)
            case("QLinearSoftmax", [*x, F32(1 / 128), np.int8(-128)], axis=axis, opset=opset)
    decimal = lambda dtype: [F32(0.1), dtype(3)]
    for dtype in (np.uint8, np.int8):
        a, b = integers([300], dtype, 1), integers([300], dtype, 2)
        for to in (0.05, 0.12, 0.25, 0.4):
            case("QLinearAdd", [a, *decimal(dtype), b, F32(0.2), dtype(7), F32(to), dtype(5)])
            case("QLinearMul", [a, *decimal(dtype), b, F32(0.2), dtype(7), F32(to), dtype(5)])


def quantised_pools():
    for seed in range(4):
        for dtype in (np.uint8, np.int8):
            for shape, last in (([2, 3, 7, 6], 0), ([2, 7, 6, 3], 1), ([1, 2, 9], 0), ([1, 2, 4, 5, 6], 0)):
                axes = len(shape) - 2
                x = [*quantised(shape, dtype, seed), *grid(dtype, seed)]
                case("QLinearGlobalAveragePool", x, channels_last=last)
                shared = {"channels_last": last, "kernel_shape": [3] * axes}
                case("QLinearAveragePool", x, strides=[2] * axes, **shared)
                case("QLinearAveragePool", x, pads=[1] * 2 * axes, count_include_pad=seed % 2, **shared)
            for more in ({}, {"pads": [1, 0, 1, 1]}, {"strides": [2, 3]}, {"dilations": [2, 1]}):
                case("NhwcMaxPool", [integers([2, 8, 9, 3], dtype, seed)], kernel_shape=[3, 2], **more)
        w = [weights([4, 3, 3, 3], np.int8, seed), scale(seed), np.int8(0)]
        x = quantised([1, 6, 7, 3], np.uint8, seed)
        case("QLinearConv", [*x, *w, F32(9), np.uint8(90)], channels_last=1, pads=[1, 1, 0, 1])
        bias = rng(seed).integers(-2000, 2000, 4).astype(np.int32)
        x = quantised([1, 3, 6, 7], np.uint8, seed)
        case("QLinearConv", [*x, *w, F32(9), np.uint8(90), bias], strides=[2, 1])


def quantisers():
    for seed in range(3):
        x = normal([4, 6], seed) * 3
        for dtype in (np.uint8, np.int8, np.uint16, np.int16):
            step = 0.05 if np.iinfo(dtype).bits == 8 else 2e-4
            case("QuantizeLinear", [x, F32(step), dtype(7)])
            steps = (step * rng(seed).uniform(0.5, 2, 6)).astype(F32)
            zeros = rng(seed).integers(0, 9, 6).astype(dtype)
            case("QuantizeLinear", [x, steps, zeros], axis=1)
            case("DequantizeLinear", [integers([4, 6], dtype, seed), F32(step), dtype(7)])
            case("DequantizeLinear", [integers([4, 6], dtype, seed), steps, zeros], axis=-1)
        for kind in (TensorProto.UINT4, TensorProto.INT4):
            case("QuantizeLinear", [x, F32(0.4), packed([], kind, seed)])
            case("DequantizeLinear", [packed([3, 5], kind, seed), F32(0.4), packed([], kind, seed)])
        case("DequantizeLinear", [rng(seed).integers(-9999, 9999, 7).astype(np.int32), F32(0.01)])
        case("QuantizeLinear", [x.astype(F16), F16(0.05), np.uint8(7)])
    case("QuantizeLinear", [np.array([np.inf, -np.inf, 0.5, 1.5, -0.5, 1e9], F32), F32(1), np.int8(1)])


def products():
    for seed in range(4):
        n = 5
        b_scales = rng(seed).uniform(0.01, 0.1, n).astype(F32)
        for a_type, b_type in ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)):
            a, b = integers([4, 7], a_type, seed), weights([7, n], b_type, seed + 1)
            a_grid = [scale(seed), zero(a_type, seed)]
            b_zeros = rng(seed).integers(0, 9, n).astype(b_type)
            c = rng(seed).integers(-5000, 5000, n).astype(np.int32)
            to = [F32(20), zero(a_type, seed)]
            case("QGemm", [a, *a_grid, b, scale(seed), b_type(3), c, *to])
            case("QGemm", [a, *a_grid, b, b_scales, b_zeros, None, *to], alpha=0.7)
            case("QGemm", [a, *a_grid, b, b_scales, b_zeros, c], alpha=0.7)
            flat = {"transA": 1, "transB": 1}
            case("QGemm", [a.T.copy(), *a_grid, b.T.copy(), b_scales, b_zeros, c.reshape(1, n), *to], **flat)
            bias = normal([n], seed)
            x = [integers([2, 4, 7], a_type, seed), b, a_grid[0], b_scales, a_grid[1], b_zeros, bias]
            case("MatMulIntegerToFloat", x)
            case("MatMulIntegerToFloat", [a, b, a_grid[0], scale(seed)])
            case("DynamicQuantizeMatMul", [normal([3, 4, 7], seed), b, b_scales, b_zeros, bias])
            case("DynamicQuantizeMatMul", [np.abs(normal([4, 7], seed)), b, scale(seed)])
        case("MatMulInteger16", [integers([2, 3], np.int16, seed), integers([3, 4], np.int16, seed)])


def block_weights():
    for seed in range(3):
        for bits in (2, 4, 8):
            for k, block in ((32, 16), (40, 32), (16, 16), (64, 64)):
                n, blocks = 5, -(-k // block)
                a, b = normal([2, 3, k], seed), integers([n, blocks, block * bits // 8], np.uint8, seed)
                scales = rng(seed).uniform(0.01, 0.1, [n, blocks]).astype(F32)
                sizes = {"K": k, "N": n, "bits": bits, "block_size": block}
                zeros = integers([n, -(-blocks * bits // 8)], np.uint8, seed)
                case("MatMulNBits", [a, b, scales], **sizes)
                case("MatMulNBits", [a, b, scales, zeros], **sizes)
                case("MatMulNBits", [a, b, scales, None, None, normal([n], seed)], **sizes)
                if bits == 4:
                    floats = rng(seed).uniform(5, 9, [n, blocks]).astype(F32)
                    case("MatMulNBits", [a, b, scales, floats], **sizes)
                    case("MatMulNBits", [a.astype(F16), b, scales.astype(F16)], **sizes)
        for kind in (0, 1):
            n, k = 6, 32
            b, largest = integers([n * k // 2], np.uint8, seed), rng(seed).uniform(0.1, 2, n * k // 16).astype(F32)
            sizes = {"K": k, "N": n, "block_size": 16, "quant_type": kind}
            case("MatMulBnb4", [normal([2, k], seed), b, largest], **sizes)
        index = rng(seed).integers(-6, 6, [2, 3])
        scales = rng(seed).uniform(0.1, 1, [6, 2]).astype(F32)
        for kind in (TensorProto.UINT4, TensorProto.INT4):
            table, zeros = packed([6, 32], kind, seed), packed([6, 2], kind, seed)
            case("GatherBlockQuantized", [table, index, scales], block_size=16)
            case("GatherBlockQuantized", [table, index, scales, zeros], block_size=16)
            table, scales_3 = packed([2, 6, 32], kind, seed), rng(seed).uniform(0.1, 1, [2, 1, 32]).astype(F32)
            more = {"gather_axis": 2, "quantize_axis": 1, "block_size": 16}
            case("GatherBlockQuantized", [table, index.astype(np.int32), scales_3], **more)
        table = integers([6, 16], np.uint8, seed)
        case("GatherBlockQuantized", [table, index, scales], block_size=16)
        case("GatherBlockQuantized", [table, index, scales, integers([6, 1], np.uint8, seed)], block_size=16)
        table = integers([6, 32], np.uint8, seed)
        case("GatherBlockQuantized", [table, index, scales], block_size=16, bits=8)


def earlier():
    for seed in range(2):
        x = normal([2, 3, 4], seed)
        for upper in (0, 1):
            for k in (None, np.int64(1), np.int64(-1), np.int64(9)):
                case("Trilu", [x, k] if k is not None else [x], upper=upper)
        for axis in (0, 1, -1, -3):
            case("ExpandDims", [x, np.int32(axis)])
        image, places = normal([2, 3, 5, 6], seed), rng(seed).uniform(-1.3, 1.3, [2, 4, 3, 2]).astype(F32)
        for mode in ("bilinear", "nearest", "bicubic"):
            for padding in ("zeros", "border", "reflection"):
                case("GridSample", [image, places], mode=mode, padding_mode=padding, align_corners=seed)
        for mode in ("constant", "edge", "reflect"):
            case("Pad", [x, np.array([0, 1, 2, 1, 0, 1]), F32(1.5)], mode=mode)
        case("Pad", [x, np.array([[0, -1, 0, 0, 0, 2]])])
        case("Unique", [rng(seed).integers(0, 5, 12).astype(F32)], outputs=3)
        case("GatherND", [x, np.array([[0, 1], [1, 2]])])
    case("Range", [F32(1), F32(5), F32(1.5)])
    case("Range", [np.int64(3), np.int64(9)])
    case("Range", [np.int32(9), np.int32(0), np.int32(-2)])


def matrices():
    for seed in range(3):
        case("Inverse", [normal([2, 4, 4], seed) + 3 * np.eye(4, dtype=F32)])
        for metric in ("euclidean", "sqeuclidean"):
            case("CDist", [normal([4, 7], seed), normal([3, 7], seed + 1)], metric=metric)


def embeddings():
    for seed in range(3):
        for shape, more in (
            ([2, 3, 16], {}),
            ([2, 4, 3, 8], {}),
            ([2, 4, 3, 8], {"interleaved": 1}),
            ([2, 3, 32], {"num_heads": 2, "rotary_embedding_dim": 8}),
        ):
            tables = [normal([9, 4], 1), normal([9, 4], 2)]
            case("RotaryEmbedding", [normal(shape, seed), np.array([seed]), *tables], **more)
            case("RotaryEmbedding", [normal(shape, seed), rng(seed).integers(0, 9, [2, 3]), *tables], **more)
        for dtype in (np.uint8, np.int8):
            hidden = 8
            ids = [rng(seed).integers(0, n, [2, 4]).astype(np.int32) for n in (9, 2)]
            data = [integers(shape, dtype, seed) for shape in ([9, hidden], [4, hidden], [2, hidden], [hidden], [hidden])]
            scales, zeros = [scale(i) for i in range(5)], [zero(dtype, i) for i in range(5)]
            mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], np.int32)
            x = [*ids, *data, mask, *scales, *zeros]
            case("QEmbedLayerNormalization", x, outputs=2, epsilon=1e-6)
            for i in (1, 4, 7, 10, 15):
                x[i] = None
            case("QEmbedLayerNormalization", x, outputs=2)


def fused():
    for seed in range(2):
        a, b, c = normal([4, 7], seed), normal([7, 5], seed + 1), normal([5], seed + 2)
        for name, more in (
            ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("LeakyRelu", {"activation_alpha": 0.2}),
            ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
        ):  # fmt: skip
            case("FusedGemm", [a, b, c], activation=name, alpha=0.5, beta=2.0, **more)
        case("FusedGemm", [a.T.copy(), b.T.copy()], activation="Relu", transA=1, transB=1)
        case("TransposeMatMul", [normal([2, 3, 4], seed), normal([2, 5, 4], seed)], transB=1, alpha=0.5)


def attention():
    for seed in range(3):
        batch, length, hidden, heads = 2, 3, 8, 2
        for w_type in (np.uint8, np.int8):
            x = [integers([batch, length, hidden], np.uint8, seed), weights([hidden, 24], w_type, seed + 1)]
            x += [normal([24], seed), F32(0.02), F32(0.01)]
            zeros = [np.uint8(120), w_type(5)]
            case("QAttention", [*x, None, *zeros], num_heads=heads)
            case("QAttention", [*x, np.array([2, 3], np.int32), *zeros], num_heads=heads, unidirectional=1)
            mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
            case("QAttention", [*x, mask, *zeros], num_heads=heads, scale=0.3)
            past = normal([2, batch, heads, 2, 4], seed)
            case("QAttention", [*x, None, *zeros, past], outputs=2, num_heads=heads, unidirectional=1)
            x[4] = rng(seed).uniform(0.01, 0.02, 24).astype(F32)
            zeros[1] = rng(seed).integers(0, 9, 24).astype(w_type)
            case("QAttention", [*x, None, *zeros], num_heads=heads)
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            w, r = weights([d, 5, 24], np.int8, seed), weights([d, 6, 24], np.int8, seed + 1)
            x = [normal([4, 1, 5], seed), w, r, normal([d, 48], seed), None, None, None, None]
            x += [np.full([d], 0.01, F32), np.zeros([d], np.int8), np.full([d], 0.008, F32), np.zeros([d], np.int8)]
            case("DynamicQuantizeLSTM", x, outputs=3, hidden_size=6, direction=direction)
        n, kv, size = 4, 2, 16
        shared = {"num_heads": n, "kv_num_heads": kv}
        tables = [normal([16, size // 2], 1), normal([16, size // 2], 2)]
        q, k, v = normal([2, 5, n * size], seed), normal([2, 5, kv * size], seed + 1), normal([2, 5, kv * size], seed + 2)
        prompt = [q, k, v, None, None, np.array([4, 4], np.int32), np.int32(5)]
        case("GroupQueryAttention", prompt, outputs=3, **shared)
        case("GroupQueryAttention", prompt, outputs=3, local_window_size=2, **shared)
        case("GroupQueryAttention", prompt, outputs=3, softcap=0.7, scale=0.5, **shared)
        case("GroupQueryAttention", prompt, outputs=3, smooth_softmax=1, **shared)
        case("GroupQueryAttention", [*prompt, *tables], outputs=3, do_rotary=1, **shared)
        case("GroupQueryAttention", [*prompt, *tables], outputs=3, do_rotary=1, rotary_interleaved=1, **shared)
        bias = normal([2, n, 5, 5], seed)
        case("GroupQueryAttention", [*prompt, None, None, None, bias], outputs=3, **shared)
        case("GroupQueryAttention", [*prompt, None, None, None, None, normal([n], seed)], outputs=3, **shared)
        packed_qkv = np.concatenate([q, k, v], 2)
        case("GroupQueryAttention", [packed_qkv, None, None, *prompt[3:], *tables], outputs=3, do_rotary=1, **shared)
        past = [normal([2, kv, 6, size], seed), normal([2, kv, 6, size], seed + 1)]
        one = [a[:, :1].copy() for a in (q, k, v)]
        step = [*one, *past, np.array([6, 4], np.int32), np.int32(7)]
        case("GroupQueryAttention", step, outputs=3, **shared)
        case("GroupQueryAttention", [*step, *tables], outputs=3, do_rotary=1, local_window_size=3, **shared)


def transforms():
    for name in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        yield {"post_transform": name}


def ml(op, inputs, outputs=1, version=3, words=None, **attributes):
    case(op, inputs, outputs, "ai.onnx.ml", version, words, **attributes)


def forest(trees, depth, features, seed, prefix, ids, weights, modes=("BRANCH_LEQ",)):
    """Attributes of full trees with random thresholds; each leaf votes for `ids(number)`."""
    r = rng(seed)
    out = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    out["nodes_missing_value_tracks_true"] = []
    out.update({f"{prefix}_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")})
    for tree in range(trees):
        for node in range(2 ** (depth + 1) - 1):
            leaf = node >= 2**depth - 1
            row = {
                "treeids": tree, "nodeids": node, "featureids": 0 if leaf else int(r.integers(features)),
                "values": 0.0 if leaf else float(F32(r.standard_normal())),
                "modes": "LEAF" if leaf else str(r.choice(modes)),
                "truenodeids": 0 if leaf else 2 * node + 1, "falsenodeids": 0 if leaf else 2 * node + 2,
                "missing_value_tracks_true": int(r.integers(2)),
            }  # fmt: skip
            for k, v in row.items():
                out[f"nodes_{k}"].append(v)
            for target in ids(node) if leaf else ():
                for k, v in (("treeids", tree), ("nodeids", node), ("ids", target), ("weights", float(weights(r)))):
                    out[f"{prefix}_{k}"].append(v)
    return out


def trees():
    every = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
    positive, mixed = lambda r: r.uniform(0, 0.2), lambda r: r.standard_normal()
    for seed in range(3):
        x = normal([9, 5], seed)
        x[0, :2] = np.nan
        for targets in (1, 3):
            ids = lambda node: [node % targets]
            for how in ("SUM", "AVERAGE", "MIN", "MAX"):
                f = forest(6, 3, 5, seed, "target", ids, mixed, every if targets == 1 else ("BRANCH_LEQ",))
                base = {} if seed == 0 else {"base_values": [0.5 * i for i in range(targets)]}
                ml("TreeEnsembleRegressor", [x], n_targets=targets, aggregate_function=how, **f, **base)
            f = forest(4, 3, 5, seed, "target", lambda node: range(targets), positive)
            for more in transforms():
                if more["post_transform"] != "PROBIT":
                    ml("TreeEnsembleRegressor", [x], n_targets=targets, **f, **more)
        f = forest(6, 3, 5, seed, "class", lambda node: range(3), positive)
        for more in transforms():
            if more["post_transform"] != "PROBIT":
                ml("TreeEnsembleClassifier", [x], 2, classlabels_int64s=[7, 8, 9], **f, **more)
                strings = {"classlabels_strings": ["a", "b", "c"], "base_values": [0.3, 0.2, 0.1]}
                ml("TreeEnsembleClassifier", [x], 2, words=["a", "b", "c"], **strings, **f, **more)
                for weights in (positive, mixed):
                    g = forest(6, 3, 5, seed, "class", lambda node: [0], weights)
                    ml("TreeEnsembleClassifier", [x], 2, classlabels_int64s=[7, 8], **g, **more)
                    ml("TreeEnsembleClassifier", [x], 2, classlabels_int64s=[7, 8], base_values=[0.2], **g, **more)
        g = forest(6, 3, 5, seed, "class", lambda node: [1], positive)
        ml("TreeEnsembleClassifier", [x], 2, words=["n", "y"], classlabels_strings=["n", "y"], **g)
        doubles = {k: v for k, v in f.items() if k not in ("nodes_values", "class_weights")}
        for k in ("nodes_values", "class_weights"):
            doubles[f"{k}_as_tensor"] = numpy_helper.from_array(np.array(f[k], np.float64), k)
        ml("TreeEnsembleClassifier", [x.astype(np.float64)], 2, classlabels_int64s=[7, 8, 9], **doubles)
        ml("TreeEnsembleClassifier", [np.arange(10).reshape(2, 5)], 2, classlabels_int64s=[7, 8, 9], **f)
    tensor = lambda name, v, dtype=F32: numpy_helper.from_array(np.array(v, dtype), name)
    single = {
        "n_targets": 2, "tree_roots": [0], "nodes_featureids": [0, 0, 0],
        "nodes_splits": tensor("s", [3.14, 1.2, 4.2]), "nodes_modes": tensor("m", [0, 0, 0], np.uint8),
        "nodes_truenodeids": [1, 0, 2], "nodes_trueleafs": [0, 1, 1], "nodes_falsenodeids": [2, 1, 3],
        "nodes_falseleafs": [0, 1, 1], "leaf_targetids": [0, 1, 0, 1], "leaf_weights": tensor("w", [5.23, 12.12, -12.23, 7.21]),
    }  # fmt: skip
    x = np.array([[1.2, 3.4], [-0.12, 1.66], [4.14, 1.77], [9, 0]], F32)
    for how in range(4):
        ml("TreeEnsemble", [x], version=5, aggregate_function=how, **single)


def linear():
    for seed in range(3):
        x = normal([6, 4], seed) * 0.2
        for more in transforms():
            probit = more["post_transform"] == "PROBIT"
            one = {"coefficients": rng(seed).uniform(0, 0.5, 4).tolist(), "intercepts": [0.4]}
            three = {"coefficients": rng(seed).uniform(0, 0.5, 12).tolist(), "intercepts": [0.4, 0.3, 0.5]}
            if not probit:
                ml("LinearClassifier", [x], 2, version=1, classlabels_ints=[7, 8], **one, **more)
            ml("LinearClassifier", [x], 2, version=1, words=["a", "b", "c"], classlabels_strings=["a", "b", "c"], **three, **more)
            ml("LinearRegressor", [x], version=1, **one, **more)
            ml("LinearRegressor", [x], version=1, targets=3, **three, **more)


def machines():
    for seed in range(3):
        x, r = normal([6, 4], seed), rng(seed)
        for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID"):
            shared = {"kernel_type": kernel, "kernel_params": [0.3, 0.2, 3.0]}
            vectors = r.standard_normal(7 * 4).tolist()
            regression = {"coefficients": r.standard_normal(7).tolist(), "rho": [0.3], "n_supports": 7, "support_vectors": vectors}
            ml("SVMRegressor", [x], version=1, **regression, **shared)
            ml("SVMRegressor", [x], version=1, one_class=1, **regression, **shared)
            for classes, counts in ((2, [3, 4]), (3, [2, 3, 2])):
                pairs = classes * (classes - 1) // 2
                two = {
                    "coefficients": r.standard_normal(7 * (classes - 1)).tolist(), "rho": r.standard_normal(pairs).tolist(),
                    "support_vectors": vectors, "vectors_per_class": counts, "classlabels_ints": list(range(5, 5 + classes)),
                }  # fmt: skip
                chances = {"prob_a": [-1.0] * pairs, "prob_b": r.standard_normal(pairs).tolist()}
                for more in transforms():
                    if more["post_transform"] != "PROBIT":
                        ml("SVMClassifier", [x], 2, version=1, **two, **shared, **more)
                        ml("SVMClassifier", [x], 2, version=1, **two, **chances, **shared, **more)
        plain = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0], "rho": [0.3]}
        ml("SVMRegressor", [x], version=1, coefficients=r.standard_normal(4).tolist(), n_supports=0, **plain)
        labels = {"classlabels_strings": ["a", "b", "c"], "coefficients": r.standard_normal(12).tolist()}
        ml("SVMClassifier", [x], 2, version=1, words=["a", "b", "c"], **labels, **plain)


def features():
    for dtype in (F32, np.float64, np.int64, np.int32):
        x = (normal([5, 3], 1) * 4).astype(dtype)
        ml("Scaler", [x], version=1, offset=[0.5], scale=[2.0])
        ml("Scaler", [x], version=1, offset=[0.5, 1.0, -1.0], scale=[2.0, 0.1, 3.0])
        for norm in ("MAX", "L1", "L2"):
            ml("Normalizer", [x], version=1, norm=norm)
        ml("Normalizer", [np.zeros([2, 2], dtype)], version=1, norm="L2")
        ml("FeatureVectorizer", [x, x[:, :2].copy()], version=1, inputdimensions=[3, 2])
        ml("FeatureVectorizer", [x, x], version=1, inputdimensions=[2, 4])
        ml("ArrayFeatureExtractor", [x, np.array([[2, 0]])], version=1)
        ml("ArrayFeatureExtractor", [x[0], np.array([1])], version=1)
        if dtype != np.int32:
            ml("OneHotEncoder", [x], version=1, cats_int64s=[-1, 0, 2, 3])
        if dtype == F32:
            ml("Imputer", [np.where(x > 0, x, np.nan).astype(dtype)], version=1, imputed_value_floats=[7.0], replaced_value_float=float("nan"))
    ml("Binarizer", [normal([5, 3], 1)], version=1, threshold=0.3)
    ml("Imputer", [rng(1).integers(0, 3, [5, 3])], version=1, imputed_value_int64s=[7, 8, 9], replaced_value_int64=1)
    words = np.array([["a", "z"], ["b", "a"]], object)
    ml("OneHotEncoder", [words], version=1, cats_strings=["a", "b"])
    ml("CategoryMapper", [words], version=1, cats_int64s=[4, 5], cats_strings=["a", "b"])
    ml("CategoryMapper", [np.array([4, 9])], version=1, words=["a", "b", "?"], cats_int64s=[4, 5], cats_strings=["a", "b"], default_string="?")
    ml("LabelEncoder", [words], version=1, classes_strings=["b", "a"])
    ml("LabelEncoder", [np.array([1, 0, 5])], version=1, words=["a", "b", "_Unused"], classes_strings=["a", "b"])
    ml("LabelEncoder", [words], version=2, keys_strings=["a", "b"], values_floats=[0.5, 1.5])
    ml("LabelEncoder", [np.array([1, 0, 5])], version=2, keys_int64s=[0, 5], values_int64s=[3, 4], default_int64=-7)
    ml("LabelEncoder", [np.array([1, np.nan, 0.5], F32)], version=4, keys_floats=[float("nan"), 0.5], values_int64s=[3, 4])


GROUPS = [
    quantised_elementwise, quantised_pools, quantisers, products, block_weights, earlier, matrices, embeddings,
    fused, attention, trees, linear, machines, features,
]  # fmt: skip


def model_of(op, inputs, outputs, domain, version, words, attributes):
    """The model of one node, and the arrays that are its inputs."""
    names, infos, constants, feed = [], [], [], {}
    for i, x in enumerate(inputs):
        name = "" if x is None else f"x{i}"
        names.append(name)
        if x is None:
            continue
        if isinstance(x, onnx.TensorProto):
            x.name = name
            constants.append(x)
            continue
        x = np.asarray(x)
        if x.dtype.kind in "OUS":
            constants.append(numpy_helper.from_array(x.astype(object), name))
            continue
        feed[name] = x
        infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
    made = [f"y{i}" for i in range(outputs)]
    nodes = [helper.make_node(op, names, made, domain=domain, **attributes)]
    ends = list(made)
    if words is not None:
        # npz has no strings: they become their place in `words`.
        values = list(range(len(words)))
        coder = {"cats_strings": list(words), "cats_int64s": values, "default_int64": -9}
        nodes.append(helper.make_node("CategoryMapper", ["y0"], ["place"], domain="ai.onnx.ml", **coder))
        ends[0] = "place"
    if op == "QuantizeLinear" and isinstance(inputs[-1], onnx.TensorProto):
        nodes.append(helper.make_node("Cast", ["y0"], ["wide"], to=TensorProto.INT8))
        ends[0] = "wide"
    infos_out = [onnx.ValueInfoProto(name=name) for name in ends]
    graph = helper.make_graph(nodes, "one", infos, infos_out, constants)
    opsets = {"": 21, "ai.onnx.ml": 4, "com.microsoft": 1, domain: version}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()])
    model.ir_version = 10
    return model, feed


def expected_of(model, feed):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed)))


def found_of(edgesmith, model, feed, provider, folder):
    paths = [folder / name for name in ("model.onnx", "in.npz", "out.npz")]
    onnx.save(model, paths[0])
    np.savez(paths[1], **feed)
    words = ["--input", paths[1], "--output", paths[2], "--force", "--level", "none", "--providers", provider]
    done = subprocess.run([edgesmith, "run", paths[0], *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().splitlines()[0])
    with np.load(paths[2]) as archive:
        return dict(archive)


def difference(found, expected):
    """How far apart two arrays are; refuses other shapes, types and places of what is not finite."""
    expected = np.asarray(expected)
    if found.shape != expected.shape:
        raise ValueError(f"shape {found.shape} instead of {expected.shape}")
    if found.dtype != expected.dtype:
        raise ValueError(f"type {found.dtype} instead of {expected.dtype}")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    odd = ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True) or not np.isfinite(a[~odd]).all():
        raise ValueError("values are not finite in different places")
    apart = np.abs(a - b)[~odd]
    if apart.size == 0:
        return 0.0
    largest = np.abs(b[~odd]).max()
    return float(apart.max() / (largest if found.dtype.kind == "f" and largest > 0 else 1))


def allowed(op, dtype):
    if dtype.kind != "f":
        return STEPS.get(op, 0)
    return max(TOLERANCES.get(op, TOLERANCE), 2e-3 if dtype == F16 else 0)


def compare(args, one, folder):
    """The largest difference of a case over its outputs and both providers, and what is wrong."""
    model, feed = model_of(*one)
    expected = expected_of(model, feed)
    worst = 0.0
    for provider in ("reference", "cpu"):
        found = found_of(args.edgesmith, model, feed, provider, folder)
        for name, array in expected.items():
            apart = difference(found[name], array)
            worst = max(worst, apart)
            if apart > allowed(one[0], found[name].dtype):
                return worst, f"{name} of {provider} is {apart:.3g} away"
    return worst, None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgesmith", type=Path, required=True, help="the binary")
    parser.add_argument("--only", nargs="+", metavar="OP", help="these operators and no others")
    args = parser.parse_args()
    args.edgesmith = args.edgesmith.resolve()
    for group in GROUPS:
        group()
    lines, wrong = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for one in CASES:
            if args.only and one[0] not in args.only:
                continue
            key = one[3], one[0]
            count, worst, faults = lines.get(key, (0, 0.0, []))
            try:
                apart, fault = compare(args, one, Path(folder))
            except Exception as problem:
                apart, fault = 0.0, str(problem).splitlines()[0][:160]
            if fault:
                shapes = [getattr(x, "shape", None) if x is not None else "-" for x in one[1]]
                faults = [*faults, f"{one[6]} {shapes}: {fault}"]
                wrong += 1
            lines[key] = count + 1, max(worst, apart), faults
    for (domain, op), (count, worst, faults) in sorted(lines.items()):
        print(f"{domain}.{op:28} {count:4} cases  largest difference {worst:.3g}{'  WRONG' if faults else ''}")
        for fault in faults[:4]:
            print(f"    {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
