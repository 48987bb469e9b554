"""MNIST: handwritten digits."""

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.readers import keras_download, read_mnist_files
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task


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
    """Loads 60,000 + 10,000 images of 28×28×1 pixels, 10 classes.

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        task: What is to be learned of the classes.
        path: A folder with the four IDX files, raw or `.gz`; when None, `keras.datasets` is asked.

    Raises:
        DataError: the data cannot be had, is damaged, or does not fit a parameter.
    """
    if path is not None:
        train, test = read_mnist_files(path)
    else:
        import keras

        train, test = keras_download(
            "MNIST",
            keras.datasets.mnist.load_data,
            "By hand: put the four idx-ubyte.gz files into a folder and give data.path=FOLDER.",
        )
    return assemble(
        "mnist",
        train=train,
        test=test,
        class_names=[str(digit) for digit in range(10)],
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )
