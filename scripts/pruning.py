"""Prunes models and says what that cost.

    python scripts/pruning.py criteria --edgesmith E --model MINILM_FOLDER [--samples 128]
    python scripts/pruning.py gradual  --edgesmith E --data FASHION_MNIST [--seeds 3] [--plot gradual.svg]
    python scripts/pruning.py lottery  --edgesmith E --data FASHION_MNIST [--seeds 5] [--plot lottery.svg]

MINILM_FOLDER has model.onnx, calib.npz and sst2_dev.npz: token ids, masks and types. FASHION_MNIST is the folder of
the four idx files (Debian: dataset-fashion-mnist). Of the 60,000 examples 5,000 say which epoch is the best, the
others train; accuracies are of the 10,000 of the test. Models run in ONNX Runtime.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from distillation import fashion


def run(edgesmith, *words):
    """What a run prints on stdout and says; stops where it fails."""
    words = [str(edgesmith), *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout, done.stderr


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def lay_out(folder, at):
    """train.npz, val.npz in `at`; the test's images and labels."""
    (x, y), test = fashion(folder)
    order = np.random.default_rng(0).permutation(len(x))
    for name, part in (("train", order[5000:]), ("val", order[:5000])):
        np.savez(at / f"{name}.npz", input=x[part], labels=y[part])
    return test


def accuracy(path, test):
    """The share of right answers, in percent."""
    s = session(path)
    x, y = test
    scores = s.run(None, {s.get_inputs()[0].name: x})[0]
    return 100 * float((scores.argmax(1) == y).mean())


def share_of_zeros(path):
    """Of all weights of products, in percent."""
    import onnx
    from onnx import numpy_helper

    weights = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
    return 100 * sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def line(cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def table(head):
    line(head)
    line("---" for _ in head)


def spread(values):
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"


# Criteria.

STRUCTURES = [("unstructured, 50 %", ["--structure", "unstructured", "--amount", "0.5"]), ("2:4", ["--structure", "2:4"])]


def criteria(args):
    """Output errors of each weight on the same inputs, and how alike sentences stay."""
    inputs = {k: v[: args.texts] for k, v in np.load(args.model / "sst2_dev.npz").items() if k != "labels"}

    def embedded(path):
        s = session(path)
        names = [o.name for o in s.get_outputs()]
        return s.run([names[-1]], inputs)[0]

    dense = embedded(args.model / "model.onnx")
    kept = True
    with tempfile.TemporaryDirectory() as at:
        out = pathlib.Path(at) / "pruned.onnx"
        table(["structure", "criterion", "output error, median of weights", "mean", "weights with less than magnitude",
               "cosine to dense, mean", "5 % least"])
        for name, words in STRUCTURES:
            errors, alike = {}, {}
            for criterion in ("magnitude", "wanda", "sparsegpt", "random"):
                common = [args.model / "model.onnx", "-o", out, "--force", *words, "--criterion", criterion,
                          "--calibrate", args.model / "calib.npz", "--samples", args.samples]
                said, _ = run(args.edgesmith, "prune", *common, "--dense-inputs", "--json")
                rows = json.loads(said)["pruned"]["weights"]
                errors[criterion] = np.array([r["output_error"] for r in rows])
                run(args.edgesmith, "prune", *common)
                e = embedded(out)
                alike[criterion] = (e * dense).sum(1) / np.linalg.norm(e, axis=1) / np.linalg.norm(dense, axis=1)
                own = errors[criterion]
                line([name, criterion, f"{np.median(own):.2e}", f"{own.mean():.2e}",
                      f"{int((own < errors['magnitude']).sum())} of {len(own)}",
                      f"{alike[criterion].mean():.4f}", f"{np.quantile(alike[criterion], 0.05):.4f}"])
            order = ["sparsegpt", "wanda", "magnitude", "random"]
            for a, b in zip(order, order[1:]):
                kept &= errors[a].mean() <= errors[b].mean() and alike[a].mean() >= alike[b].mean()
    print("\nsparsegpt <= wanda <= magnitude <= random:", "yes" if kept else "NO")
    return kept


# Gradual pruning.


def gradual(args):
    found = {}
    with tempfile.TemporaryDirectory() as at:
        at = pathlib.Path(at)
        test = lay_out(args.data, at)
        data = ["--data", at / "train.npz", "--validate", at / "val.npz", "--train-threads", args.threads]
        out = at / "out.onnx"

        def note(name, sparsity, path):
            zeros = share_of_zeros(path)
            found.setdefault((name, sparsity), []).append((accuracy(path, test), zeros))

        for seed in range(args.seeds):
            dense = at / f"dense{seed}.onnx"
            common = [*data, "--train-seed", seed, "--force"]
            run(args.edgesmith, "train", "lenet-300-100", "-o", dense, *common, "--epochs", args.epochs)
            note("dense", 0, dense)
            for sparsity in args.sparsities:
                shot = at / "shot.onnx"
                run(args.edgesmith, "prune", dense, "-o", shot, "--force", "--structure", "unstructured", "--amount",
                    sparsity, "--scope", "global")
                note("one shot", sparsity, shot)
                run(args.edgesmith, "train", shot, "-o", out, *common, "--epochs", args.epochs // 2, "--rate", "3e-4")
                note("one shot, then trained", sparsity, out)
                run(args.edgesmith, "train", "lenet-300-100", "-o", out, *common, "--epochs", args.epochs, "--sparsity",
                    sparsity)
                note("gradual", sparsity, out)
    table(["pruning", "sparsity asked for", "zeros of all weights", "accuracy on the test, %"])
    for (name, sparsity), runs in sorted(found.items(), key=lambda e: (e[0][1], e[0][0])):
        line([name, sparsity, f"{np.mean([z for _, z in runs]):.2f} %", spread([a for a, _ in runs])])
    mean = {k: float(np.mean([a for a, _ in v])) for k, v in found.items()}
    top = mean["dense", 0]
    kept = True
    if 0.9 in args.sparsities:
        print(f"\nat 0.9 gradual is {top - mean['gradual', 0.9]:.2f} points below dense (bar: 0.5)")
        kept &= top - mean["gradual", 0.9] <= 0.5
    if 0.99 in args.sparsities:
        gain = mean["gradual", 0.99] - mean["one shot", 0.99]
        print(f"at 0.99 gradual is {gain:.2f} points above one shot (bar: 20)")
        kept &= gain >= 20
    if args.plot:
        names = ["gradual", "one shot, then trained", "one shot"]
        lines = [(n, [(s, mean[n, s]) for s in args.sparsities]) for n in names]
        args.plot.write_text(svg(lines, [str(s) for s in args.sparsities], "share of zeros", "accuracy, %", top))
    return kept


# Lottery tickets.


def lottery(args):
    runs = []
    with tempfile.TemporaryDirectory() as at:
        at = pathlib.Path(at)
        x, y = lay_out(args.data, at)
        np.savez(at / "test.npz", input=x, labels=y)
        for seed in range(args.seeds):
            said, _ = run(args.edgesmith, "lottery", "lenet-300-100", "-o", at / "ticket.onnx", "--force", "--json",
                          "--data", at / "train.npz", "--validate", at / "val.npz", "--evaluate", at / "test.npz",
                          "--levels", args.levels, "--prune-rate", args.prune_rate, "--controls", "reinit", "--controls-from", args.controls_from,
                          "--rewind", args.rewind, "--train-seed", seed, "--epochs", args.epochs, "--batch", 60,
                          "--optimizer", "adam", "--rate", "1.2e-3", "--schedule", "constant", "--warmup", 0,
                          "--decay", 0, "--judge-every", args.judge_every, "--train-threads", args.threads)
            found = json.loads(said)["lottery"]
            if args.log:
                with args.log.open("a") as f:
                    f.write(json.dumps(found) + "\n")
            runs += found["runs"]
            print(f"seed {seed} is done, {found['steps']} steps a run", file=sys.stderr, flush=True)
    of = lambda level, kind, key: np.array([r[key] for r in runs if r["level"] == level and r["run"] == kind])
    table(["weights left", "ticket: test, %", "other numbers: test, %", "ticket: best step", "other numbers: best step"])
    for level in range(args.levels + 1):
        cells = [f"{100 * of(level, 'ticket', 'left')[0] / found['weights']:.1f} %"]
        for key, form in (("right_on_test", lambda v: spread(100 * v)), ("best_step", lambda v: f"{v.mean():.0f}")):
            for kind in ("ticket", "reinit"):
                values = of(level, kind, key)
                cells.append(form(values) if len(values) else "")
        line(cells)
    top = 100 * of(0, "ticket", "right_on_test").mean()
    left = lambda level: of(level, "ticket", "left")[0] / found["weights"]
    level = next((l for l in range(args.levels + 1) if left(l) <= 0.05), args.levels)
    ticket, control = (100 * of(level, kind, "right_on_test") for kind in ("ticket", "reinit"))
    above = ticket - control
    print(f"\nwith {100 * left(level):.1f} % of the weights tickets are {top - ticket.mean():.2f} points below the whole "
          f"network (bar: 1) and {above.mean():.2f} above their controls, in each trial by {above.min():.2f} or more")
    if args.plot:
        lines = [("ticket", [(l, 100 * of(l, "ticket", "right_on_test").mean()) for l in range(args.levels + 1)]),
                 ("other numbers", [(l, 100 * of(l, "reinit", "right_on_test").mean())
                                    for l in range(args.controls_from, args.levels + 1)])]
        ticks = [f"{100 * left(l):.0f}" for l in range(args.levels + 1)]
        args.plot.write_text(svg(lines, ticks, "weights left, %", "accuracy on the test, %", top))
    return top - ticket.mean() <= 1 and above.min() > 0


# Plots.

COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700"]


def svg(lines, ticks, across, up, level=None):
    """Lines over evenly spaced places across; `level` is a line through all."""
    w, h, left, low = 640, 360, 60, 50
    places = {}
    for _, points in lines:
        for x, _ in points:
            places.setdefault(x, len(places))
    ys = [y for _, points in lines for _, y in points] + ([level] if level else [])
    least, most = np.floor(min(ys)), np.ceil(max(ys))
    x_of = lambda i: left + (w - left - 20) * i / max(len(places) - 1, 1)
    y_of = lambda y: 20 + (h - low - 20) * (most - y) / max(most - least, 1e-9)
    text = lambda x, y, s, more="": f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" {more}>{s}</text>'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif">',
           f'<rect width="{w}" height="{h}" fill="white"/>']
    for y in np.linspace(least, most, 5):
        out.append(f'<line x1="{left}" x2="{w - 20}" y1="{y_of(y):.1f}" y2="{y_of(y):.1f}" stroke="#ddd"/>')
        out.append(text(left - 6, y_of(y) + 4, f"{y:g}", 'text-anchor="end"'))
    for i, tick in enumerate(ticks):
        out.append(text(x_of(i), h - low + 18, tick, 'text-anchor="middle"'))
    out.append(text((w + left) / 2, h - 8, across, 'text-anchor="middle"'))
    out.append(text(14, 14, up))
    if level:
        out.append(f'<line x1="{left}" x2="{w - 20}" y1="{y_of(level):.1f}" y2="{y_of(level):.1f}" stroke="#666" '
                   'stroke-dasharray="4 3"/>')
        out.append(text(left + 4, y_of(level) - 4, "dense"))
    for k, (name, points) in enumerate(lines):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join(f"{x_of(places[x]):.1f},{y_of(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(text(left + 10, h - low - 12 - 16 * (len(lines) - 1 - k), name, f'fill="{colour}"'))
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name, function, *paths):
        c = commands.add_parser(name)
        c.add_argument("--edgesmith", type=pathlib.Path, required=True)
        for path in paths:
            c.add_argument(path, type=pathlib.Path, required=True)
        c.set_defaults(run=function)
        return c

    c = command("criteria", criteria, "--model")
    c.add_argument("--samples", type=int, default=128)
    c.add_argument("--texts", type=int, default=200)
    c = command("gradual", gradual, "--data")
    c.add_argument("--seeds", type=int, default=3)
    c.add_argument("--epochs", type=int, default=12)
    c.add_argument("--threads", type=int, default=1)
    c.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95, 0.98, 0.99])
    c.add_argument("--plot", type=pathlib.Path)
    c = command("lottery", lottery, "--data")
    c.add_argument("--seeds", type=int, default=5)
    c.add_argument("--levels", type=int, default=14)
    c.add_argument("--prune-rate", type=float, default=0.2)
    c.add_argument("--controls-from", type=int, default=1)
    c.add_argument("--rewind", type=int, default=0)
    c.add_argument("--epochs", type=int, default=5)
    c.add_argument("--log", type=pathlib.Path, help="a file to which every seed adds a line of JSON")
    c.add_argument("--judge-every", type=int, default=250)
    c.add_argument("--threads", type=int, default=1)
    c.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    sys.exit(0 if args.run(args) else 1)


if __name__ == "__main__":
    main()
