"""Which layers are paired, and which pairs are refused."""

import keras
import pytest
from keras import layers

from netopt_cli.errors import InputError
from netopt_cli.graph.layer_pairs import LayerPair, pair_layers


def conv_net(filters: tuple[int, ...], size: int = 8) -> keras.Model:
    x = inputs = keras.Input((size, size, 1))
    for number, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 3, padding="same", name=f"conv_{number}")(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x)
        x = layers.Activation("relu", name=f"act_{number}")(x)
        x = layers.MaxPooling2D(name=f"pool_{number}")(x)
    x = layers.Dense(12, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="net")


def dense_net(*units: int) -> keras.Model:
    stack = [layers.Dense(n, activation="relu", name=f"dense_{i}") for i, n in enumerate(units)]
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), *stack, layers.Dense(3, name="logits")]
    )


def names(pairs: list[LayerPair]) -> list[str]:
    return [str(pair) for pair in pairs]


def auto(student: keras.Model, teacher: keras.Model, method: str) -> list[str]:
    return names(pair_layers(student, teacher, method, "auto", where="opt.distill.layers"))


def test_by_depth_and_shape() -> None:
    student, teacher = conv_net((2, 4)), conv_net((8, 16))
    assert auto(student, teacher, "features") == ["act_2 4x4x4 learns from act_2 4x4x16"]
    assert auto(student, teacher, "attention") == [
        "act_1 8x8x2 learns from act_1 8x8x8", "act_2 4x4x4 learns from act_2 4x4x16",
    ]  # fmt: skip
    for method in ("relational", "similarity", "contrastive"):
        assert auto(student, teacher, method) == ["hidden 12 learns from hidden 12"]


def test_a_sequential_student_of_another_depth() -> None:
    found = auto(dense_net(4, 5, 6), dense_net(7, 8, 9, 10, 11), "features")
    assert found == ["dense_1 5 learns from dense_2 9"]


def test_attention_of_other_sizes_resizes_the_teachers_map() -> None:
    found = auto(conv_net((2,), size=8), conv_net((4,), size=16), "attention")
    assert found == ["act_1 8x8x2 learns from act_1 16x16x4"]


@pytest.mark.parametrize(
    ("method", "chosen", "words"),
    [
        ("features", {"act_1": "act_2"}, "8x8x2 learns from act_2 4x4x16"),
        ("features", {"act_1": "hidden"}, "all other sizes must be equal"),
        ("attention", {"hidden": "act_1"}, "attention is a map"),
        ("features", {"act_9": "act_1"}, "Did you mean 'act_2'?"),
        ("features", {"act_1": "conf_1"}, "Did you mean 'conv_1'?"),
    ],
)
def test_impossible_pairs_are_refused_with_their_shapes(
    method: str, chosen: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=r"^opt\.x\.layers") as error:
        pair_layers(conv_net((2, 4)), conv_net((8, 16)), method, chosen, where="opt.x.layers")
    assert words in str(error.value)


def test_no_pair_to_be_found_says_what_there_is() -> None:
    with pytest.raises(InputError, match="finds no pair for method=attention") as error:
        auto(dense_net(4), conv_net((2,)), "attention")
    assert "dense_0 4" in str(error.value) and "act_1 8x8x2" in str(error.value)
