"""Takes channels, heads and blocks out of models, and says what that buys.

    python scripts/structured.py models  --edgesmith E [--amount 0.3] [--structure channel] MODEL.onnx...
    python scripts/structured.py example --edgesmith E --data FASHION_MNIST [--rankings local,global]
    python scripts/structured.py shrink  --edgesmith E --data FASHION_MNIST

models prunes each file, and measures both in turn, on one thread, in our runtime and in ONNX Runtime (CPU time).
example prunes half of the multiplications of the embedded example by each criterion, without and with recovery, and
counts right answers on the 10,000 images of the test in ONNX Runtime. shrink carries out
the steps of models/fashion_mnist/shrink.toml one after another, and counts zeros at the end. FASHION_MNIST is the folder of the four idx files (Debian: dataset-fashion-mnist).
"""

import argparse
import pathlib
import re
import sys
import tempfile
import time

import numpy as np

from pruning import accuracy, fashion, line, run, session, table

HERE = pathlib.Path(__file__).resolve().parent.parent
EXAMPLE = HERE / "models" / "fashion_mnist"
CRITERIA = "l1 l2 bn-scale fpgm lamp activation wanda taylor random".split()


def in_turn(first, second, times=40):
    """CPU milliseconds of both in ONNX Runtime."""
    sessions = [session(first), session(second)]
    given = {}
    for i in sessions[0].get_inputs():
        dims = [d if isinstance(d, int) else (1 if at == 0 else 32) for at, d in enumerate(i.shape)]
        given[i.name] = np.ones(dims, np.int64) if "int64" in i.type else np.random.rand(*dims).astype(np.float32)
    took = [[], []]
    for _ in range(times):
        for k, s in enumerate(sessions):
            start = time.process_time()
            s.run(None, given)
            took[k].append(time.process_time() - start)
    return [1e3 * np.median(t) for t in took]


def models(args):
    table(["model", "groups", "frozen", "parameters", "MACs", "our ms", "", "ONNX Runtime ms", ""])
    for model in args.models:
        told, _ = run(args.edgesmith, "prune", model, "--structure", args.structure, "--explain")
        groups, _, frozen = told.partition("stays whole")
        with tempfile.TemporaryDirectory() as at:
            out = pathlib.Path(at) / "pruned.onnx"
            words = ["--structure", args.structure, "--amount", args.amount, "--measure"]
            _, said = run(args.edgesmith, "prune", model, "-o", out, *words)
            parts = re.findall(r"\(([+-][\d.]+ %)\)", said)
            before, after = map(float, re.search(r"latency: ([\d.]+) ms before, ([\d.]+)", said).groups())
            other = in_turn(model, out)
            name = model.parent.name if model.name == "model.onnx" else model.name
            count = len(re.findall(r"(?m)(inner|stream)\s*$", groups))
            kept = max(0, len(frozen.strip().splitlines()) - 2)
            change = lambda a, b: f"{100 * (b / a - 1):+.1f} %"
            line([name, count, kept, parts[0], parts[1], f"{before:.2f} -> {after:.2f}", change(before, after),
                  f"{other[0]:.2f} -> {other[1]:.2f}", change(*other)])
        for row in frozen.strip().splitlines()[2:]:
            print("    stays whole: " + re.sub(r"\s{2,}", " | ", row.strip()))
        sys.stdout.flush()


def example(args):
    (x, y), test = fashion(args.data)
    model = EXAMPLE / "model.onnx"
    print(f"dense: {accuracy(model, test):.2f} %")
    table(["criterion", "ranking", "as cut", "recovered", "of the drop won back"])
    dense = accuracy(model, test)
    with tempfile.TemporaryDirectory() as at:
        at = pathlib.Path(at)
        np.savez(at / "calib.npz", image=x[:512], labels=y[:512])
        for criterion in CRITERIA:
            for ranking in args.rankings.split(","):
                found = []
                for more in (["--no-recovery"], []):
                    words = ["--structure", "channel", "--amount", 0.5, "--of", "macs", "--ranking", ranking]
                    words += ["--criterion", criterion, "--calibrate", at / "calib.npz", *more]
                    run(args.edgesmith, "prune", model, "-o", at / "out.onnx", "--force", *words)
                    found.append(accuracy(at / "out.onnx", test))
                won = (found[1] - found[0]) / max(dense - found[0], 1e-9)
                line([criterion, ranking, f"{found[0]:.2f}", f"{found[1]:.2f}", f"{100 * won:.0f} %"])
                sys.stdout.flush()


def zeros(path):
    """The share of zeros of each weight of integers that has blocks of zeros."""
    import onnx
    from onnx import numpy_helper

    found = {}
    for t in onnx.load(str(path)).graph.initializer:
        w = numpy_helper.to_array(t)
        if w.dtype == np.int8 and w.ndim >= 2 and w.size > 1024:
            found[t.name] = float((w == 0).mean())
    return found


def shrink(args):
    _, test = fashion(args.data)
    recipe = (EXAMPLE / "shrink.toml").read_text()
    recipe = recipe.replace("/usr/share/datasets/fashion-mnist", str(args.data))
    dense = EXAMPLE / "model.onnx"
    print(f"dense: {accuracy(dense, test):.2f} %, {dense.stat().st_size:,} bytes")
    with tempfile.TemporaryDirectory() as at:
        at = pathlib.Path(at)
        head, *steps = re.split(r"(?m)^\[\[step\]\]$", recipe)
        head = head.replace('"calib.npz"', f'"{EXAMPLE / "calib.npz"}"')
        before = dense
        for count, step in enumerate(steps, 1):
            out = at / f"{count}.onnx"
            text = head.replace('"model.onnx"', f'"{before}"').replace('"shrunk.onnx"', f'"{out}"')
            (at / "r.toml").write_text(text + "[[step]]" + step.replace('"self"', f'"{dense}"'))
            start = time.time()
            _, said = run(args.edgesmith, "apply", at / "r.toml")
            does = re.search(r'do = "(\w+)"', step).group(1)
            size = f"{out.stat().st_size:,} bytes"
            print(f"after {count}, {does}: {accuracy(out, test):.2f} %, {size}, {time.time() - start:.0f} s")
            for told in said.splitlines():
                if "pruned by" in told:
                    print("    " + told)
            sys.stdout.flush()
            before = out
        for name, share in zeros(out).items():
            print(f"    {name}: {100 * share:.1f} % of its integers are zero")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (models, example, shrink):
        c = commands.add_parser(function.__name__)
        c.set_defaults(function=function)
        c.add_argument("--edgesmith", required=True)
        if function is models:
            c.add_argument("--amount", default="0.3")
            c.add_argument("--structure", default="channel")
            c.add_argument("models", nargs="+", type=pathlib.Path)
        else:
            c.add_argument("--data", required=True, type=pathlib.Path)
        if function is example:
            c.add_argument("--rankings", default="local,global")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
