"""CIFAR-100: small colour photographs of many classes."""

from pathlib import Path
from typing import Literal

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.readers import keras_download, read_cifar_binary
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things
large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""


def load(
    seed: int,
    *,
    path: str | None = None,
    labels: Literal["fine", "coarse"] = "fine",
    validation_fraction: Fraction = 0.1,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads 50,000 + 10,000 images of 32×32×3 pixels.

    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        task: What is to be learned of the classes.
        path: The folder of the binary version (`train.bin`, `test.bin`); when None,
            `keras.datasets` is asked.
        labels: The 100 classes, or the 20 superclasses.

    Raises:
        DataError: the data cannot be had, is damaged, or does not fit a parameter.
    """
    if path is not None:
        label = ("coarse", "fine").index(labels)
        train = read_cifar_binary([Path(path) / "train.bin"], label_bytes=2, label=label)
        test = read_cifar_binary([Path(path) / "test.bin"], label_bytes=2, label=label)
    else:
        import keras

        train, test = keras_download(
            "CIFAR-100",
            lambda: keras.datasets.cifar100.load_data(label_mode=labels),
            "By hand: unpack cifar-100-binary.tar.gz and give data.path= its folder.",
        )
    return assemble(
        "cifar100",
        train=train,
        test=test,
        class_names=(_FINE if labels == "fine" else _COARSE).split(),
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )
