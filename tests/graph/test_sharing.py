import keras
import numpy as np
import pytest
from keras import layers

from netopt_cli.arch import cnn, resnet
from netopt_cli.contracts import ExportRecipe
from netopt_cli.errors import InputError
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.graph.sharing import choose_groups, share


def outputs(model: keras.Model) -> np.ndarray:
    shape = model.input_shape[1:]
    return model(np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")).numpy()


def file_size(model: keras.Model) -> int:
    return len(to_litert(freeze(model), ExportRecipe()))


def names(groups) -> list[list[str]]:
    return [[layer.name for layer in group.layers] for group in groups]


def mlp(depth: int = 4) -> keras.Model:
    inputs = keras.Input((16,))
    x = inputs
    for index in range(depth):
        x = layers.Dense(16, activation="relu", name=f"dense_{index}")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_a_model_of_equal_layers_stays_the_same_and_its_file_shrinks():
    model = mlp()
    for index in range(1, 4):
        model.get_layer(f"dense_{index}").set_weights(model.get_layer("dense_0").get_weights())
    groups, left = choose_groups(model)
    assert names(groups) == [["dense_0", "dense_1", "dense_2", "dense_3"]]
    assert left == ["left as they are, no other layer is equal: head"]
    shared = share(model, groups)
    np.testing.assert_allclose(outputs(shared), outputs(model), atol=1e-6)
    assert [layer.name for layer in shared.layers[1:]] == ["dense_0", "head"]
    assert model.count_params() - shared.count_params() == groups[0].saved == 3 * 17 * 16


@pytest.mark.parametrize("start", ["first", "mean"])
def test_it_starts_from_the_first_or_the_mean(start):
    model = mlp(3)
    groups, _ = choose_groups(model)
    kernels = [model.get_layer(f"dense_{index}").kernel.numpy() for index in range(3)]
    expected = kernels[0] if start == "first" else np.mean(kernels, axis=0)
    shared = share(model, groups, start=start)
    np.testing.assert_allclose(shared.get_layer("dense_0").kernel, expected, atol=1e-6)
    for index in range(3):
        np.testing.assert_array_equal(model.get_layer(f"dense_{index}").kernel, kernels[index])


def test_the_file_stores_a_shared_kernel_once():
    shape = (8, 8, 3)
    model = resnet.build(shape, 3, depth=14, conv_bias=False)
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:  # Norms of equal statistics would fold into equal kernels.
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    before = file_size(model)
    groups, _ = choose_groups(model)
    shared = share(model, groups)
    saved = sum(group.saved for group in groups)
    assert saved == model.count_params() - shared.count_params()
    assert file_size(shared) < before - 4 * saved * 0.9


@pytest.mark.parametrize(
    ("shape", "make"),
    [((8, 8, 3), layers.Conv2D), ((8, 3), layers.Conv1D), ((8, 8, 3), layers.DepthwiseConv2D)],
)
def test_norms_of_each_call_do_not_change_what_is_computed(shape, make):
    inputs = keras.Input(shape)
    x = inputs
    for index in range(3):
        arguments = (3, 3) if "Depthwise" not in make.__name__ else (3,)
        x = make(*arguments, padding="same", name=f"conv_{index}")(x)
        x = layers.BatchNormalization(name=f"norm_{index}")(x)
    model = keras.Model(inputs, x)
    for index in range(1, 3):
        model.get_layer(f"conv_{index}").set_weights(model.get_layer("conv_0").get_weights())
    for weight in model.weights:
        if "norm" in weight.path:
            weight.assign(np.random.default_rng(index).uniform(0.5, 1.5, weight.shape))
    shared = share(model, choose_groups(model)[0])
    np.testing.assert_allclose(outputs(shared), outputs(model), atol=1e-5)
    assert [layer.name for layer in shared.layers if "norm" in layer.name] == [
        name for index in range(3) for name in (f"norm_{index}_unfused", f"norm_{index}")
    ]


def test_patterns_keep_positions_apart_and_a_limit_pairs_neighbours():
    model = resnet.build((8, 8, 3), 3, depth=20)
    groups, left = choose_groups(model, patterns=["block_*_conv_1", "block_*_conv_2"])
    assert names(groups)[:2] == [
        ["block_1_conv_1", "block_2_conv_1", "block_3_conv_1"],
        ["block_1_conv_2", "block_2_conv_2", "block_3_conv_2"],
    ]
    assert "no pattern matches: stem_conv" in left[0]
    pairs, _ = choose_groups(model, patterns=["block_*_conv_2"], most=2)
    assert names(pairs) == [
        ["block_1_conv_2", "block_2_conv_2"],
        ["block_4_conv_2", "block_5_conv_2"],
        ["block_7_conv_2", "block_8_conv_2"],
    ]


def test_norms_join_or_stay():
    model = resnet.build((8, 8, 3), 3, depth=14)
    together, _ = choose_groups(model, patterns=["block_[12]_*"], normalization="shared")
    assert names(together)[1] == [f"block_{b}_conv_{c}_bn" for b in (1, 2) for c in (1, 2)]
    assert "block_2_conv_1_bn" not in [x.name for x in share(model, together).layers]
    apart, _ = choose_groups(model, patterns=["block_[12]_*"])
    assert "block_2_conv_1_bn" in [x.name for x in share(model, apart).layers]


def test_other_configurations_do_not_share():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="b")(x)
    x = layers.Conv2D(4, 3, padding="same", kernel_initializer="he_normal", name="c")(x)
    model = keras.Model(inputs, layers.Conv2D(4, 3, dilation_rate=2, name="d")(x))
    groups, left = choose_groups(model)
    assert names(groups) == [["a", "c"]]
    assert left == ["left as they are, no other layer is equal: b, d"]


def test_attention_blocks_share_as_in_albert(tmp_path):
    inputs = keras.Input((6, 8))
    x = inputs
    for index in range(3):
        attended = layers.MultiHeadAttention(2, 4, name=f"attention_{index}")(query=x, value=x)
        x = layers.LayerNormalization(name=f"norm_{index}")(layers.Add()([x, attended]))
        x = layers.Dense(8, activation="gelu", name=f"feed_{index}")(x)
    model = keras.Model(inputs, layers.Flatten()(x))
    groups, _ = choose_groups(model)
    shared = share(model, groups)
    assert names(groups) == [[f"attention_{i}" for i in range(3)], [f"feed_{i}" for i in range(3)]]
    assert shared.count_params() == model.count_params() - sum(group.saved for group in groups)
    shared.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(restored), outputs(shared), atol=1e-6)


def test_a_nested_model_shares_within_itself_and_shared_layers_stay():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="one"), layers.Dense(4, name="two")]
    )
    inputs = keras.Input((4,))
    outer = layers.Dense(4, name="outer")
    model = keras.Model(inputs, inner(outer(inner(outer(inputs)))))
    groups, left = choose_groups(model)
    assert names(groups) == [["one", "two"]] and left[0].endswith("equal: outer")
    shared = share(model, groups)
    assert shared.count_params() == 2 * 20
    assert outputs(shared).shape == (2, 4)


def test_nothing_to_share_is_said():
    with pytest.raises(InputError, match=r"no two layers of 'cnn'.*conv_1"):
        choose_groups(cnn.build((8, 8, 1), 3), patterns=["conv_1"])
    with pytest.raises(InputError, match=r"opt.share.patterns matches no layer. Received: blok_\*"):
        choose_groups(resnet.build((8, 8, 1), 3), patterns=["blok_*"])
