"""Trains students with and without a teacher, and says what the teacher was worth.

    python scripts/distillation.py few-labels --edgesmith E --data FASHION_MNIST [--seeds 3]
    python scripts/distillation.py ordering   --edgesmith E --data FASHION_MNIST [--seeds 3]
    python scripts/distillation.py sentences  --edgesmith E --model MINILM_FOLDER
    python scripts/distillation.py quantised  --edgesmith E --data FASHION_MNIST

FASHION_MNIST is the folder of the four idx files (Debian: dataset-fashion-mnist). MINILM_FOLDER has model.onnx,
sst2_train.npz, sst2_dev.npz and sst2_test.npz: token ids, masks, types and labels. The teacher of images is the
embedded example's model. Accuracies are those of the last line of `edgesmith`'s epochs or of its judge.
"""

import argparse
import gzip
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent.parent
TEACHER = HERE / "models/fashion_mnist/model.onnx"


def idx(path):
    with gzip.open(path) as f:
        data = f.read()
    rank = data[3]
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(dims)


def fashion(folder):
    """Images from 0 to 1, [n, 1, 28, 28], and classes, for training and for the test."""
    out = []
    for part in ("train", "t10k"):
        x = idx(folder / f"{part}-images-idx3-ubyte.gz").astype(np.float32)[:, None] / 255
        out.append((x, idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)))
    return out


def run(edgesmith, *words):
    """What a run says; stops where it fails."""
    words = [str(edgesmith), *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return done.stderr


def best(said):
    """The best accuracy of all epochs, in percent."""
    return max(float(p) for p in re.findall(r"([\d.]+) % right", said))


def last(said):
    """The accuracy after the last epoch, in percent."""
    return [float(p) for p in re.findall(r"([\d.]+) % right", said)][-1]


def table(rows):
    for name, values in rows:
        mean = sum(values) / len(values)
        print(f"{name:34} {' / '.join(f'{v:.2f}' for v in values):28} mean {mean:.2f}", flush=True)


def few_labels(args, folder):
    """400 labels, and the rest of the pool unlabelled: the student on the labels alone, and with the teacher."""
    (x, y), (xt, yt) = fashion(args.data)
    pool = args.pool
    np.savez(folder / "test.npz", image=xt, labels=yt)
    alone, taught = [], []
    for seed in range(args.seeds):
        chosen = np.random.default_rng(seed).permutation(len(x))[:pool]
        few = chosen[: args.labels]
        np.savez(folder / "few.npz", image=x[few], labels=y[few])
        labels = np.full(pool, -1)
        labels[: args.labels] = y[few]
        np.savez(folder / "pool.npz", image=x[chosen], labels=labels)
        common = ["-o", folder / "out.onnx", "--force", "--validate", folder / "test.npz", "--train-seed", seed]
        # About as many steps as it takes to learn the few by heart.
        epochs = args.epochs * pool // args.labels
        said = run(args.edgesmith, "train", args.student, "--data", folder / "few.npz", "--epochs", min(epochs, 60), *common)
        alone.append(last(said))
        said = run(
            args.edgesmith, "distill", "--student", args.student, "--teacher", TEACHER, "--data", folder / "pool.npz",
            "--epochs", args.epochs, "--loss", "cross-entropy 0.1", "--loss", "kd 0.9", "--temperature", "4", *common,
        )
        taught.append(last(said))
    table([(f"{args.labels} labels alone", alone), (f"with the teacher on {pool} images", taught)])
    print(f"the teacher is worth {np.mean(taught) - np.mean(alone):+.2f} points")


def ordering(args, folder):
    """The families of losses on the same images, each with cross entropy."""
    (x, y), (xt, yt) = fashion(args.data)
    np.savez(folder / "test.npz", image=xt, labels=yt)
    chosen = np.random.default_rng(0).permutation(len(x))[: args.pool]
    np.savez(folder / "pool.npz", image=x[chosen], labels=y[chosen])
    s, t = args.student_features, args.teacher_features
    ways = {
        "cross entropy alone": [],
        "kd": ["--loss", "cross-entropy 0.1", "--loss", "kd 0.9"],
        "dkd": ["--loss", "cross-entropy 1", "--loss", "dkd 1", "--beta", "2"],
        "hint": ["--loss", "cross-entropy 1", "--loss", f"hint 1 {s} : {t}"],
        "rkd distance and angle": [
            "--loss", "cross-entropy 1", "--loss", f"rkd-distance 25 {s} : {t}", "--loss", f"rkd-angle 50 {s} : {t}",
        ],
        "similarity": ["--loss", "cross-entropy 1", "--loss", f"similarity 3000 {s} : {t}"],
    }
    rows = []
    for name, losses in ways.items():
        values = []
        for seed in range(args.seeds):
            command = ["train", args.student] if not losses else ["distill", "--student", args.student, "--teacher", TEACHER]
            said = run(
                args.edgesmith, *command, "--data", folder / "pool.npz", "--validate", folder / "test.npz",
                "--epochs", args.epochs, "-o", folder / "out.onnx", "--force", "--train-seed", seed, *losses,
            )
            values.append(last(said))
        rows.append((name, values))
        table(rows[-1:])


def milliseconds(edgesmith, model, data):
    done = subprocess.run(
        [str(edgesmith), "bench", str(model), "--input", str(data), "--threads", "1", "--iterations", "50", "--json"],
        capture_output=True, text=True, check=True,
    )
    found = json.loads(done.stdout)
    return found["p50_ms"] if "p50_ms" in found else found["runs"][0]["p50_ms"]


# Other sentences of about the same meaning, for all alike.
VARIED = ["--augment", "drop=0.1", "--augment", "span=0.5"]


def sentences(args, folder):
    """A classifier from MiniLM, and students of two layers with and without it as a teacher.

    `from nothing` is the student's network with random weights, `from its layers` begins with layers of the teacher and
    learns the labels alone, `taught` begins there too and learns the teacher's answers beside.
    """
    data = args.model
    shared = ["--data", data / "sst2_train.npz", "--validate", data / "sst2_dev.npz", "--force", "--batch", 32, *VARIED]
    teacher, small = args.teacher or folder / "teacher.onnx", folder / "small.onnx"
    if not args.teacher:
        started = time.time()
        said = run(
            args.edgesmith, "train", data / "model.onnx", "--head", 2, "--head-from", "last_hidden_state", "-o", teacher,
            "--epochs", args.teacher_epochs, "--rate", "5e-5", "--warmup", "0.1", "--freeze", "*embeddings.word*",
            *shared[: -len(VARIED)],
        )
        print(f"teacher on dev {best(said):.2f} %, {time.time() - started:.0f} s", flush=True)
    run(args.edgesmith, "student", teacher, "-o", small, "--layers", args.layers, "--force")
    taught = ["--loss", "cross-entropy 0.1", "--loss", "kd 0.9", "--temperature", "2", "--teacher", teacher]
    ways = {
        "from nothing": ["train", small, "--fresh", "--rate", "5e-4"],
        "from its layers": ["train", small, "--rate", "1e-4"],
        "taught": ["distill", "--student", small, "--rate", "1e-4", *taught],
    }
    made = {"teacher": teacher}
    for name, words in ways.items():
        made[name] = folder / f"{name.replace(' ', '-')}.onnx"
        said = run(args.edgesmith, *words, "-o", made[name], "--epochs", args.epochs, "--warmup", "0.1", *shared)
        print(f"{name} on dev {best(said):.2f} %", flush=True)
    found = {name: accuracy(path, data / "sst2_test.npz") for name, path in made.items()}
    for name, percent in found.items():
        print(f"{name:16} on test {percent:.2f} %", flush=True)
    ms = {name: milliseconds(args.edgesmith, made[name], data / "sst2_test.npz") for name in ("teacher", "taught")}
    print(
        f"the student keeps {100 * found['taught'] / found['teacher']:.1f} % and is {ms['teacher'] / ms['taught']:.2f} times"
        f" as fast ({ms['teacher']:.2f} and {ms['taught']:.2f} ms a sentence of 64 tokens)"
    )


def accuracy(model, data):
    """By ONNX Runtime, in percent."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model))
    arrays = np.load(data)
    names = [i.name for i in session.get_inputs()]
    right = 0
    labels = arrays["labels"]
    for i in range(0, len(labels), 64):
        out = session.run(None, {n: arrays[n][i : i + 64] for n in names})[0]
        right += int((out.argmax(1) == labels[i : i + 64]).sum())
    return 100 * right / len(labels)


def quantised(args, folder):
    """A network that loses by rounding, and what training of the rounded network wins back."""
    (x, y), (xt, yt) = fashion(args.data)
    np.savez(folder / "train.npz", image=x, labels=y)
    np.savez(folder / "test.npz", image=xt, labels=yt)
    np.savez(folder / "calib.npz", image=x[:500])
    float_model = args.float or TEACHER
    said = accuracy(float_model, folder / "test.npz")
    print(f"float {said:.2f} %", flush=True)
    run(args.edgesmith, "quantize", float_model, "-o", folder / "ptq.onnx", "--calibrate", folder / "calib.npz", "--force", *args.quantize)
    print(f"quantised {accuracy(folder / 'ptq.onnx', folder / 'test.npz'):.2f} %", flush=True)
    run(
        args.edgesmith, "distill", "--student", folder / "ptq.onnx", "--teacher", float_model, "--data", folder / "train.npz",
        "--validate", folder / "test.npz", "--epochs", args.epochs, "--rate", args.rate, "-o", folder / "qat.onnx", "--force",
    )
    print(f"trained {accuracy(folder / 'qat.onnx', folder / 'test.npz'):.2f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["few-labels", "ordering", "sentences", "quantised"])
    parser.add_argument("--edgesmith", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, help="the folder of Fashion-MNIST")
    parser.add_argument("--model", type=pathlib.Path, help="the folder of MiniLM and SST-2")
    parser.add_argument("--student", default="small-cnn")
    parser.add_argument("--student-features", default="flatten7")
    parser.add_argument("--teacher-features", default="flatten")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--pool", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--teacher", type=pathlib.Path, help="the teacher of `sentences`, where it is trained already")
    parser.add_argument("--layers", default="first:2")
    parser.add_argument("--float", type=pathlib.Path, help="the float model of `quantised`")
    parser.add_argument("--rate", default="1e-4")
    parser.add_argument("--quantize", nargs=argparse.REMAINDER, default=["--to", "int8"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"few-labels": few_labels, "ordering": ordering, "sentences": sentences, "quantised": quantised}[args.what](
            args, pathlib.Path(folder)
        )


if __name__ == "__main__":
    main()
