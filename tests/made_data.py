"""Data of every kind of task, small and made by a seed: honest, for they can be learned."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes, load_digits


def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 8, 8), int (n,)."""
    x, y = load_digits(return_X_y=True)
    return np.round(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), y


def canvases(
    count: int, side: int, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[list[tuple[int, int, int]]]]:
    """Digits 8×8 at places without overlap.

    Returns:
        uint8 (n, side, side); the class + 1 of every pixel, 0 is background; and of each image
        (class, left, top) of its digits.
    """
    random = np.random.default_rng(seed)
    x, y = digits()
    images = np.zeros((count, side, side), np.uint8)
    classes = np.zeros((count, side, side), np.int64)
    objects: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    for image, labels, found in zip(images, classes, objects, strict=True):
        for _ in range(random.integers(1, most + 1)):
            chosen = random.integers(len(x))
            left, top = random.integers(0, side - 8, 2)
            where = np.s_[top : top + 8, left : left + 8]
            if image[where].any():
                continue
            image[where] = np.maximum(x[chosen], 1)
            labels[where] = np.where(x[chosen] > 60, y[chosen] + 1, 0)
            found.append((int(y[chosen]), int(left), int(top)))
    return images, classes, objects


def diabetes_file(folder: Path) -> Path:
    """442 patients, 10 values; the progression of the disease a year later."""
    x, y = load_diabetes(return_X_y=True)
    x = (x / x.std(axis=0)).astype(np.float32)
    path = folder / "diabetes.npz"
    np.savez(path, x_train=x[:342], y_train=y[:342], x_test=x[342:], y_test=y[342:])
    return path


def several_digits_file(folder: Path) -> Path:
    """Two digits below 4 side by side, and which there are: one or two classes a sample."""
    x, y = digits()
    x, y = x[y < 4], y[y < 4]
    left, right = np.random.default_rng(0).integers(0, len(x), (2, 500))
    images = np.concatenate([x[left], x[right]], axis=2)
    there = (y[[left, right]][..., np.newaxis] == np.arange(4)).any(axis=0)
    path = folder / "several.npz"
    np.savez(
        path, x_train=images[:400], y_train=there[:400], x_test=images[400:], y_test=there[400:]
    )
    return path


def pixels_file(folder: Path, count: int = 300) -> Path:
    """Background, low digits, high digits; the border does not count."""
    images, classes, _ = canvases(count, 16, 3, 0)
    y = np.select([classes == 0, classes <= 5], [0, 1], 2).astype(np.uint8)
    y[:, 0] = 255
    train = count * 4 // 5
    path = folder / "pixels.npz"
    np.savez(
        path, x_train=images[:train], y_train=y[:train], x_test=images[train:], y_test=y[train:]
    )
    return path


def steps_file(folder: Path, count: int = 300) -> Path:
    """Series of two waves: which of them each step is of; steps at the end are padding."""
    random = np.random.default_rng(0)
    steps = np.arange(12)
    change = random.integers(3, 9, (count, 1))
    slow, fast = np.sin(steps / 3), np.sin(steps * 2.0)
    y = (steps >= change).astype(int)
    x = np.where(y, fast, slow) + random.normal(0, 0.1, (count, 12))
    x = np.stack([x, np.roll(x, 1, axis=1)], axis=2).astype(np.float32)
    y[np.arange(12) >= 12 - random.integers(0, 3, (count, 1))] = -1
    train = count * 4 // 5
    path = folder / "steps.npz"
    np.savez(path, x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
    return path


def fields_file(folder: Path) -> Path:
    """A digit and a text of two words: the class says whether each of them is about a large one."""
    random = np.random.default_rng(0)
    x, y = digits()
    x, y = x[:600], y[:600]
    word = random.integers(0, 10, len(x))
    text = np.stack([2 + word, np.where(word % 2, 12, 0)], axis=1)
    label = 2 * (y >= 5) + (word >= 5)
    path = folder / "fields.npz"
    np.savez(
        path, image_train=x[:480], text_train=text[:480], y_train=label[:480],
        image_test=x[480:], text_test=text[480:], y_test=label[480:],
    )  # fmt: skip
    return path


def coco_folder(folder: Path, count: int = 200, side: int = 32) -> Path:
    """PNG files with digits of two kinds, low and high, and their boxes."""
    images, _, objects = canvases(count, side, 3, 0)
    root = folder / "coco"
    root.mkdir()
    annotations = []
    for number, (image, found) in enumerate(zip(images, objects, strict=True)):
        (root / f"{number}.png").write_bytes(tf.io.encode_png(image[..., None]).numpy())
        annotations += [
            {"image_id": number, "category_id": 3 if digit < 5 else 7, "bbox": [left, top, 8, 8]}
            for digit, left, top in found
        ]
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": side, "height": side} for n in range(count)
        ],
        "categories": [{"id": 7, "name": "high"}, {"id": 3, "name": "low"}],
        "annotations": [{"id": n} | entry for n, entry in enumerate(annotations)],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root
