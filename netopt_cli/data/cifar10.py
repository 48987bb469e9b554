"""CIFAR-10: small colour photographs."""

from pathlib import Path

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.readers import keras_download, read_cifar_binary
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load(
    seed: int,
    *,
    path: str | None = None,
    validation_fraction: Fraction = 0.1,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads 50,000 + 10,000 images of 32×32×3 pixels, 10 classes.

    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        task: What is to be learned of the classes.
        path: The folder of the binary version (`data_batch_1.bin` … `data_batch_5.bin`,
            `test_batch.bin`); when None, `keras.datasets` is asked.

    Raises:
        DataError: the data cannot be had, is damaged, or does not fit a parameter.
    """
    if path is not None:
        folder = Path(path)
        files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
        train = read_cifar_binary(files, label_bytes=1, label=0)
        test = read_cifar_binary([folder / "test_batch.bin"], label_bytes=1, label=0)
    else:
        import keras

        train, test = keras_download(
            "CIFAR-10",
            keras.datasets.cifar10.load_data,
            "By hand: unpack cifar-10-binary.tar.gz and give data.path= its folder.",
        )
    return assemble(
        "cifar10",
        train=train,
        test=test,
        class_names=CLASS_NAMES,
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )
