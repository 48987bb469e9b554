"""Fashion-MNIST: articles of clothing, in the format of MNIST."""

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.readers import keras_download, read_mnist_files
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

CLASS_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
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
    """Loads 60,000 + 10,000 images of 28×28×1 pixels, 10 classes.

    Source: Xiao et al. 2017, arXiv:1708.07747.

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
            "Fashion-MNIST",
            keras.datasets.fashion_mnist.load_data,
            "By hand: put the four idx-ubyte.gz files into a folder and give data.path=FOLDER.",
        )
    return assemble(
        "fashion_mnist",
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
