"""Writes docs/compatibility.md: every arch with every optimization step, tried for real.

    python docs/generate_compatibility.py [--archs A,B] [--opts X,Y] [--jobs 2] [--tried FILE]

Each cell is a run of the command line on tiny data: a baseline of one epoch, the step, the
exported file. `yes` is a run that ends with a measured file; a refusal has its reason below the
table; a cell that fails in any other way ends this command with an error, after the table is
written. Cells are written to FILE as they come, and those that it has are not tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from netopt_cli import catalog
from netopt_cli.app import main as netopt
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT

FILE = Path(__file__).parent / "compatibility.md"
sys.path.append(str(Path(__file__).parents[1] / "tests"))
import made_data  # noqa: E402

Cells = dict[tuple[str, str], tuple[str, str]]
"""(arch, step) -> `yes`, `no` or `fails`, and the reason."""

FOLDERS = catalog.config_folders()

TINY = [
    "train.epochs=1", "train.batch_size=16", "control=false", "--quiet",
    "target.warmup_runs=1", "target.timed_runs=20",
]  # fmt: skip

IMAGES = ["data=npz", "data.path=images.npz"]
TEXTS = ["data=text_csv", "data.path=texts.csv", "data.text.length=12"]
RATINGS = ["data=ratings", "data.path=ratings.csv"]
NORMAL = ["data=digits", "data.train_limit=200", "task=anomaly", "task.normal_classes=[0,1]"]
PAIRS = ["data=digits", "data.train_limit=200", "task=verification", "task.held_out_classes=[0,4]"]
PIXELS = ["data=npz", "data.path=pixels.npz", "task=segmentation"]
BOXES = ["data=coco_folder", "data.path=boxes", "data.image_size=[32,32]", "data.channels=1",
         "task.strides=[4]", "task.sizes=[2.0]"]  # fmt: skip
FIELDS = ["data=npz_fields", "data.path=fields.npz", "data.fields={image:values,text:tokens}"]

DATA = {
    "autoencoder": NORMAL, "bag_of_embeddings": TEXTS, "dlrm": RATINGS, "fusion": FIELDS,
    "history_autoencoder": RATINGS, "matrix_factorization": RATINGS, "neumf": RATINGS,
    "rnn": TEXTS, "siamese": PAIRS, "ssd": BOXES, "text_cnn": TEXTS, "text_encoder": TEXTS,
    "transformer": TEXTS, "two_tower": RATINGS, "unet": PIXELS,
}  # fmt: skip
"""What an arch is tried on, where these are not images."""

TINY_ARCH = {
    "alexnet": ["width=0.0625"],
    "autoencoder": ["hidden=[16,4,16]"],
    "bag_of_embeddings": ["width=8"],
    "crnn": ["filters=8", "units=[8]", "dense=8"],
    "dlrm": ["width=8", "hidden=[8]"],
    "ds_cnn": ["filters=8", "separable_blocks=2"],
    "fusion": ["filters=[8]", "hidden=[16]"],
    "history_autoencoder": ["width=8"],
    "inception": ["width=0.125"],
    "keras_model": ["path=own.keras"],
    "matrix_factorization": ["width=8"],
    "mlp": ["hidden=[16,16,16]"],
    "mobilenet": ["alpha=0.125"],
    "neumf": ["width=8", "hidden=[16]"],
    "resnet": ["width=0.25"],
    "rnn": ["units=[8]", "width=8"],
    "siamese": ["encoder=cnn", "encoder.filters=[8,16]", "embedding=16"],
    "ssd": ["backbone.filters=[8,16]", "width=16"],
    "text_cnn": ["width=8", "filters=8"],
    "text_encoder": ["path=encoder.keras"],
    "transformer": ["width=16", "heads=2", "feed_forward=16"],
    "two_tower": ["embedding=8", "width=8", "user_hidden=[16]", "item_hidden=[16]"],
    "unet": ["filters=[8,8]"],
    "vgg": ["widths=[8,8]", "repeats=[1,1]"],
}  # fmt: skip
"""What makes an arch tiny."""

TEACHERS = {
    "data.path=ratings.csv": "matrix_factorization", "data.path=texts.csv": "bag_of_embeddings",
    "data.path=pixels.npz": "unet", "data.path=boxes": "ssd", "data.path=fields.npz": "fusion",
    "task=anomaly": "autoencoder", "task=verification": "siamese",
}  # fmt: skip

TINY_OPT = {"active": ["labels=8"], "lowrank": ["amount=0.8"]}
"""What fits a step to tiny data."""

BUDGETED = {"active", "fixmatch", "pseudo_label", "simclr"}
"""Steps that learn from samples without labels, which there must be where there are classes."""


def write_data(folder: Path) -> None:
    """Images of noise with a bright corner for each class, texts that say their class, ratings of
    two tastes, a network; the others as the tests make them."""
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
    films = ["a fine and moving film,fine", "a flat and tired film,flat",
             "a dark and quiet film,dark", "a loud and merry film,loud"]  # fmt: skip
    texts = ["text,label", *films * 30]
    (folder / "texts.csv").write_text("\n".join(texts))
    pairs = [(user, item) for user in range(40) for item in range(user % 2, 40, 2)]
    chosen = random.permutation(len(pairs))[:600]
    ratings = [f"u{pairs[i][0]},i{pairs[i][1]},5,{time}" for time, i in enumerate(chosen)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating,timestamp", *ratings]))
    made_data.pixels_file(folder, 100)
    made_data.fields_file(folder)
    made_data.coco_folder(folder, 60).rename(folder / "boxes")
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(4)(x)).save(folder / "own.keras")
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Embedding(100, 8)(tokens))
    keras.Model(tokens, x).save(folder / "encoder.keras")


def settings_of(arch: str, opt: str) -> list[str]:
    node = OmegaConf.load(catalog.find("opt", opt, FOLDERS))
    data = DATA.get(arch, IMAGES)
    tiny = [f"arch.{word}" for word in TINY_ARCH.get(arch, [])]
    words = [f"arch={arch}", *data, *tiny, f"opt={opt}"]
    if opt in BUDGETED and data in (IMAGES, TEXTS, FIELDS):
        words.append("data.labels_per_class=4")
    words += [f"opt.{opt}.{word}" for word in TINY_OPT.get(opt, [])]
    if "epochs" in node:
        words.append(f"opt.{opt}.epochs=1")
    if "teacher_epochs" in node:
        teacher = next((name for word, name in TEACHERS.items() if word in data), "mlp")
        prefix = f"opt.{opt}.teacher"
        words += [f"arch@{prefix}={teacher}", f"{prefix}_epochs=1"]
        words += [f"{prefix}.{word}" for word in TINY_ARCH[teacher]]
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
    is_refusal = code == EXIT_WRONG_INPUT and not reason.startswith("unknown key")
    return ("no" if is_refusal else "fails", reason)


def table(cells: Cells) -> str:
    archs = list(dict.fromkeys(arch for arch, _ in cells))
    opts = list(dict.fromkeys(opt for _, opt in cells))
    reasons: dict[str, int] = {}

    def text(arch: str, opt: str) -> str:
        found, reason = cells[arch, opt]
        if found == "yes":
            return "yes"
        same = reason.replace(f"the model '{arch}'", "the network").replace(f"'{arch}'", "it")
        return f"{found} [{reasons.setdefault(same, len(reasons) + 1)}]"

    lines = [f"| | {' | '.join(archs)} |", f"|---|{'---|' * len(archs)}"]
    lines += [f"| {opt} | {' | '.join(text(arch, opt) for arch in archs)} |" for opt in opts]
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def try_arch(arch: str, opts: Sequence[str], file: Path) -> None:
    """Tries the steps with the arch, each on a line of the file as soon as it is known."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["NETOPT_CACHE"] = "cache"  # which the baseline is taken from after the first
        write_data(Path(folder))
        for opt in opts:
            cell = [arch, opt, *tried(settings_of(arch, opt))]
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(cell) + "\n")
            print(*cell, file=sys.stderr, flush=True)


def cells_in(file: Path) -> Cells:
    cells = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {(arch, opt): (found, reason) for arch, opt, found, reason in cells}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", default=",".join(sorted(catalog.choices("arch", FOLDERS))))
    opts = sorted(set(catalog.choices("opt", FOLDERS)) - {"none"})
    parser.add_argument("--opts", default=",".join(opts))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tried", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file: Path = (options.tried or Path(folder) / "cells.jsonl").resolve()
        file.touch()
        cells = cells_in(file)
        wanted = list(itertools.product(options.archs.split(","), options.opts.split(",")))
        with ProcessPoolExecutor(
            options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            left = {
                arch: [opt for of, opt in wanted if of == arch and (arch, opt) not in cells]
                for arch, _ in wanted
            }
            tasks = [pool.submit(try_arch, arch, new, file) for arch, new in left.items() if new]
            for task in tasks:
                task.result()
        cells = {cell: found for cell, found in cells_in(file).items() if cell in set(wanted)}
    cells = {cell: cells[cell] for cell in wanted}
    FILE.write_text(f"{_HEAD}\n{table(cells)}\n", encoding="utf-8")
    return 1 if any(found == "fails" for found, _ in cells.values()) else 0


_HEAD = """# Which step works with which network

Written by `python docs/generate_compatibility.py`, which tries every cell: a tiny network of the
arch on tiny data (images; texts, ratings, pixels, boxes or several inputs where the arch is for
these), the step with its defaults but where so little data ask for less, one epoch, the exported
file measured. A `no` is a refusal before training; its reason is below.
"""

if __name__ == "__main__":
    sys.exit(main())
