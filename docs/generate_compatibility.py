"""Writes docs/compatibility.md: every arch with every optimization step, tried for real.

    python docs/generate_compatibility.py [--archs A,B] [--opts X,Y]

Each cell is a run of the command line on tiny data: a baseline of one epoch, the step, the
exported file. `yes` is a run that ends with a measured file; a refusal has its reason below the
table; a cell that fails in any other way ends this command with an error, after the table is
written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from netopt_cli import catalog
from netopt_cli.app import main as netopt
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT

FILE = Path(__file__).parent / "compatibility.md"
FOLDERS = catalog.config_folders()

TINY = [
    "train.epochs=1", "train.batch_size=16", "control=false", "cache=false", "--quiet",
    "target.warmup_runs=1", "target.timed_runs=30",
]  # fmt: skip

RATINGS = ["data=ratings", "data.path=ratings.csv"]

ARCH = {
    "alexnet": ["arch.width=0.0625"],
    "bag_of_embeddings": ["data=text_csv", "data.path=texts.csv", "data.text.length=12"],
    "dlrm": ["arch.width=8", "arch.hidden=[8]", *RATINGS],
    "history_autoencoder": ["arch.width=8", *RATINGS],
    "inception": ["arch.width=0.125"],
    "keras_model": ["arch.path=own.keras"],
    "matrix_factorization": ["arch.width=8", *RATINGS],
    "mlp": ["arch.hidden=[16,16,16]"],
    "mobilenet": ["arch.width=0.125"],
    "neumf": ["arch.width=8", "arch.hidden=[16]", *RATINGS],
    "resnet": ["arch.width=0.25"],
    "rnn": ["arch.units=[8]", "arch.width=8", "data=text_csv", "data.path=texts.csv",
            "data.text.length=8"],
    "text_cnn": ["arch.width=8", "arch.filters=8", "data=text_csv", "data.path=texts.csv",
                 "data.text.length=12"],
    "transformer": ["arch.width=16", "arch.heads=2", "arch.feed_forward=16", "data=text_csv",
                    "data.path=texts.csv", "data.text.length=12"],
    "two_tower": ["arch.embedding=8", "arch.width=8", "arch.user_hidden=[16]",
                  "arch.item_hidden=[16]", *RATINGS],
    "vgg": ["arch.width=0.0625"],
}  # fmt: skip
"""What makes an arch tiny, and its data where these are not images."""

IMAGES = ["data=npz", "data.path=images.npz"]


def write_data(folder: Path) -> None:
    """Images of noise with a bright corner for each class, texts of two words each, ratings of two
    tastes, a network."""
    import keras

    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("test", 16)):
        y = np.arange(count) % 4
        x = random.integers(0, 100, (count, 32, 32, 3), np.uint8)
        for index, label in enumerate(y):
            row, column = divmod(int(label), 2)
            x[index, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 100
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    np.savez(folder / "images.npz", **arrays)
    texts = ["text,label", *["a fine and moving film,good", "a flat and tired film,bad"] * 40]
    (folder / "texts.csv").write_text("\n".join(texts))
    pairs = [(user, item) for user in range(40) for item in range(user % 2, 40, 2)]
    chosen = random.permutation(len(pairs))[:600]
    ratings = [f"u{pairs[i][0]},i{pairs[i][1]},5,{time}" for time, i in enumerate(chosen)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating,timestamp", *ratings]))
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(4)(x)).save(folder / "own.keras")


def settings_of(arch: str, opt: str) -> list[str]:
    node = OmegaConf.load(catalog.find("opt", opt, FOLDERS))
    of_arch = ARCH.get(arch, [])
    data = [] if any(word.startswith("data=") for word in of_arch) else IMAGES
    words = [f"arch={arch}", *data, *of_arch, f"opt={opt}"]
    if "epochs" in node:
        words.append(f"opt.{opt}.epochs=1")
    if "teacher_epochs" in node:
        of_tokens = "matrix_factorization" if RATINGS[0] in words else "bag_of_embeddings"
        teacher = "mlp" if data else of_tokens
        words += [f"arch@opt.{opt}.teacher={teacher}", f"opt.{opt}.teacher_epochs=1"]
    return words


def tried(words: Sequence[str]) -> tuple[str, str]:
    """`yes`, `no` or `fails`, and the reason."""
    errors = io.StringIO()
    with tempfile.TemporaryDirectory(dir=".") as run, contextlib.redirect_stderr(errors):
        with contextlib.redirect_stdout(io.StringIO()):
            code = netopt(["train", *words, *TINY, f"hydra.run.dir={run}/run"])
        if code == EXIT_OK:
            record = json.loads(Path(run, "run/record.json").read_text())
            last = record["rows"][-1]
            return ("yes", "") if last["size_bytes"] > 0 else ("fails", "no file")
    said = errors.getvalue()
    reason = next((line for line in said.splitlines() if "error" in line), said.strip()[-200:])
    reason = re.sub(r"^(internal )?error: ", "", reason)
    return ("no" if code == EXIT_WRONG_INPUT else "fails", reason)


def table(cells: dict[tuple[str, str], tuple[str, str]]) -> str:
    archs = list(dict.fromkeys(arch for arch, _ in cells))
    opts = list(dict.fromkeys(opt for _, opt in cells))
    reasons: dict[str, int] = {}

    def text(arch: str, opt: str) -> str:
        found, reason = cells[arch, opt]
        if found == "yes":
            return "yes"
        return f"{found} [{reasons.setdefault(reason, len(reasons) + 1)}]"

    lines = [f"| | {' | '.join(archs)} |", f"|---|{'---|' * len(archs)}"]
    lines += [f"| {opt} | {' | '.join(text(arch, opt) for arch in archs)} |" for opt in opts]
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def cells_of(archs: Sequence[str], opts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((arch, opt) for arch in archs for opt in opts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", default=",".join(sorted(catalog.choices("arch", FOLDERS))))
    opts = sorted(set(catalog.choices("opt", FOLDERS)) - {"none"})
    parser.add_argument("--opts", default=",".join(opts))
    options = parser.parse_args()
    cells = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_data(Path(folder))
        for arch, opt in cells_of(options.archs.split(","), options.opts.split(",")):
            cells[arch, opt] = tried(settings_of(arch, opt))
            print(arch, opt, *cells[arch, opt], file=sys.stderr, flush=True)
    FILE.write_text(f"{_HEAD}\n{table(cells)}\n", encoding="utf-8")
    return 1 if any(found == "fails" for found, _ in cells.values()) else 0


_HEAD = """# Which step works with which network

Written by `python docs/generate_compatibility.py`, which tries every cell: a tiny network of the
arch on tiny data (images, texts where the arch reads tokens,
ratings where it reads users), the step with its defaults, one
epoch, the exported file measured. A `no` is a refusal before training; its reason is below.
"""

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
