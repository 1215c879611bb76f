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
    """Writes a quantised MiniLM; what the program said of its weights."""
    model = args.models / "minilm"
    command = [args.edgesmith, "quantize", model / "model.onnx", "-o", out, "--force", *flags]
    if data:
        command += ["--calibrate", args.calibrate or model / "calib.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return next(line for line in done.stderr.splitlines() if line.startswith("weights only"))


def session(path, outputs=None):
    """A session of ONNX Runtime on two threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    # DequantizeLinear before MatMul becomes MatMulNBits, which rounds activations to bytes unless told not to.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
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
                said = quantize(args, path, *flags)
                row(method, bits, path)
                if args.verbose:
                    print(said)


def products(model):
    """The MatMul nodes with a constant weight: node, weight [K, N]."""
    weights = {t.name: t for t in model.graph.initializer}
    found = (n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights)
    return [(n, numpy_helper.to_array(weights[n.input[1]])) for n in found]


def grams(args):
    """XᵀX in f64 of what each product reads, without padding."""
    folder = args.models / "minilm"
    nodes = products(onnx.load(folder / "model.onnx"))
    names = sorted({n.input[0] for n, _ in nodes})
    run = session(str(folder / "model.onnx"), names)
    samples = inputs(folder / "calib.npz")
    sums = {}
    for first in range(0, len(samples["input_ids"]), 16):
        batch = {k: v[first : first + 16] for k, v in samples.items()}
        mask = batch["attention_mask"].astype(bool)
        for name, value in zip(names, run.run(names, batch)):
            rows = value[mask].astype(np.float64)
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return nodes, sums


def plain_gptq(w, h, bits, group, damping):
    """Algorithm 1 of the GPTQ paper, column by column, in f64: the rounded weight [N, K]."""
    w, h, k = w.copy(), h.copy(), len(h)
    h[np.diag_indices(k)] += damping * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    most = 2**bits - 1
    rounded = np.empty_like(w)
    for j in range(k):
        if j % group == 0:
            part = w[:, j : j + group].astype(np.float32).astype(np.float64)
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            scale = ((high - low) / most).astype(np.float32).astype(np.float64)
            zero = np.clip(np.rint(-low / ((high - low) / most)), 0, most)
        codes = np.clip(np.rint(w[:, j] / scale + zero), 0, most)
        rounded[:, j] = (codes - zero) * scale
        error = (w[:, j] - rounded[:, j]) / upper[j, j]
        w[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
    return rounded


def rounded_to_nearest(w, bits, group):
    """The same grid without making errors good."""
    return plain_gptq(w, np.eye(w.shape[1]), bits, group, 0.0)


def decoded(node, tensors):
    """The weight [N, K] of a MatMulNBits node, without zero points between codes."""
    of = {a.name: a.i for a in node.attribute}
    n, k, bits, group = of["N"], of["K"], of["bits"], of["block_size"]
    unpack = lambda b: np.stack([(b >> s) & (2**bits - 1) for s in range(0, 8, bits)], -1)
    codes = unpack(tensors[node.input[1]]).reshape(n, -1)[:, :k].astype(np.float64)
    scales = tensors[node.input[2]].reshape(n, -1).astype(np.float64)
    blocks = scales.shape[1]
    zeros = np.full((n, blocks), 2.0 ** (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        zeros = unpack(tensors[node.input[3]].reshape(n, -1)).reshape(n, -1)[:, :blocks]
    each = lambda x: np.repeat(x, group, axis=1)[:, :k]
    return (codes - each(zeros)) * each(scales)


def energy(delta, h):
    """The squared output error."""
    return float(np.sum((delta @ h) * delta))


def check(what, value, most):
    """Prints a figure beside what it may be at most."""
    print(f"{'ok  ' if value <= most else 'FAIL'} {what}: {value:.3g} (at most {most:g})")
    return value <= most


def exact_inputs(folder, k, n, rows, rng):
    """A product whose inputs are small integers that depend on each other: their XᵀX is exact in f32."""
    steps = rng.integers(-1, 2, (rows, k))
    x = np.clip(steps + np.roll(steps, 1, 1) + 2 * np.roll(steps, 2, 1), -3, 3).astype(np.float32)
    weight = rng.standard_normal((k, n), np.float32)
    value = lambda name, width: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", width])
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    tensors = [numpy_helper.from_array(weight, "w")]
    graph = onnx.helper.make_graph([node], "one", [value("x", k)], [value("y", n)], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10),
              folder / "one.onnx")  # fmt: skip
    np.savez(folder / "x.npz", x=x)
    return weight.T.astype(np.float64), x.astype(np.float64).T @ x.astype(np.float64)


def tensors_of(path):
    model = onnx.load(path)
    return model, {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


GPTQ = ["--to", "int4", "--method", "gptq", "--group", "128", "--natural-order"]


def references(args):
    """GPTQ beside numpy, NF4 beside ONNX Runtime."""
    nodes, sums = grams(args)
    good = True
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        rng = np.random.default_rng(0)
        for k, n in [(384, 384), (384, 1536), (1536, 384), (500, 70)]:
            w, h = exact_inputs(work, k, n, 2 * k, rng)
            command = [args.edgesmith, "quantize", work / "one.onnx", "-o", work / "q.onnx", "--force", *GPTQ]
            subprocess.run([*command, "--calibrate", work / "x.npz"], check=True, capture_output=True)
            model, tensors = tensors_of(work / "q.onnx")
            found = decoded(next(n for n in model.graph.node if n.op_type == "MatMulNBits"), tensors)
            reference = plain_gptq(w, h, 4, 128, 0.01)
            apart = abs(energy(found - w, h) / energy(reference - w, h) - 1)
            good &= check(f"GPTQ of {k} x {n}, the same XᵀX: output error apart from numpy", apart, 1e-5)
        path = work / "model.onnx"
        quantize(args, path, *GPTQ, "--keep-embeddings")
        model, tensors = tensors_of(path)
        ours = {n.output[0]: n for n in model.graph.node if n.op_type == "MatMulNBits"}
        apart, gains = [], []
        for node, weight in nodes:
            h, w = sums[node.input[0]], weight.T.astype(np.float64)
            found = energy(decoded(ours[node.output[0]], tensors) - w, h)
            apart.append(found / energy(plain_gptq(w, h, 4, 128, 0.01) - w, h) - 1)
            gains.append(found / energy(rounded_to_nearest(w, 4, 128) - w, h))
        print(f"MiniLM, {len(nodes)} products, XᵀX of ONNX Runtime's activations: output error apart from numpy "
              f"{np.mean(apart):.2g} on average, {np.max(np.abs(apart)):.2g} at most")
        print(f"     over that of rounding {np.exp(np.mean(np.log(gains))):.3f} (geometric mean)")
        good &= check("GPTQ: output error over that of rounding, the largest of all products", max(gains), 0.75)
        good &= nf4(args, path, nodes)
    sys.exit(not good)


def nf4(args, path, nodes):
    """Codes and largest magnitudes of NF4 are those of ONNX Runtime; the bits that are told."""
    from onnxruntime.capi._pybind_state import quantize_matmul_bnb4

    quantize(args, path, "--to", "nf4", data=False)
    model = onnx.load(path)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    ours = {n.output[0]: n for n in model.graph.node if n.op_type == "MatMulBnb4"}
    different = 0
    for node, weight in nodes:
        k, n = weight.shape
        packed, largest = np.zeros(k * n // 2, np.uint8), np.zeros(k * n // 64, np.float32)
        quantize_matmul_bnb4(packed, np.ascontiguousarray(weight.T), largest, 64, 1, n, k)
        found = ours[node.output[0]]
        different += np.sum(tensors[found.input[1]] != packed) + np.sum(tensors[found.input[2]] != largest)
    good = check("NF4: bytes and magnitudes that differ from ONNX Runtime's", int(different), 0)
    said = quantize(args, path, "--to", "nf4", "--double-quantize", data=False)
    told = "4.127 bits" in said
    print(f"{'ok  ' if told else 'FAIL'} NF4 with double quantisation: {said}")
    return good and told


FORMS = [
    ("int4", "matmulnbits"), ("int4", "qdq"), ("int3", "matmulnbits"), ("int3", "qdq"),
    ("int2", "matmulnbits"), ("int8-weights", "matmulnbits"), ("int8-weights", "qdq"), ("nf4", "bnb4"),
]  # fmt: skip


def files(args):
    """Every form of file gives the same here and in ONNX Runtime, where it is fused."""
    folder = args.models / "minilm"
    samples = inputs(folder / "calib.npz", 8)
    good = True
    variants = [(to, form, extra) for to, form in FORMS for extra in ([], ["--symmetric"], ["--group", "row"])]
    variants += [("nf4", "bnb4", ["--double-quantize"]), ("int4", "matmulnbits", ["--method", "hqq"])]
    with tempfile.TemporaryDirectory() as work:
        path, fed, got = (Path(work) / n for n in ("model.onnx", "in.npz", "out.npz"))
        np.savez(fed, **samples)
        for to, form, extra in variants:
            if to == "nf4" and extra in (["--symmetric"], ["--group", "row"]):
                continue
            method = [] if to == "nf4" or "--method" in extra else ["--method", "rtn"]
            quantize(args, path, "--to", to, "--format", form, *method, *extra, data=False)
            theirs = session(str(path)).run(["sentence_embedding"], samples)[0]
            command = [args.edgesmith, "run", path, "--input", fed, "--output", got, "--force"]
            subprocess.run(command, check=True, capture_output=True)
            with np.load(got) as out:
                apart = float(np.max(np.abs(out["sentence_embedding"] - theirs)))
            fused = fused_products(path)
            good &= check(f"{to} {form} {' '.join(extra)}: apart from ONNX Runtime", apart, 2e-5)
            print(f"     products that ONNX Runtime runs on codes: {fused} of 36")
    sys.exit(not good)


def fused_products(path):
    """Products of codes in the model that ONNX Runtime makes of a file."""
    with tempfile.TemporaryDirectory() as work:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(work) / "optimized.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    return sum(n.op_type in ("MatMulNBits", "MatMulBnb4") for n in model.graph.node)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["similarity", "references", "files"])
    parser.add_argument("--edgesmith", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--calibrate", type=Path, help="instead of DIR/minilm/calib.npz")
    parser.add_argument("--flags", default="", help="more flags of `edgesmith quantize`")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    globals()[args.command](args)


if __name__ == "__main__":
    main()
