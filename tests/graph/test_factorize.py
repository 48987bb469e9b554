import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers

from netopt_cli.arch import cnn, resnet
from netopt_cli.errors import InputError
from netopt_cli.export.litert import freeze
from netopt_cli.graph import ranks as module
from netopt_cli.graph.calls import calls_by_layer, macs
from netopt_cli.graph.factorize import factorize
from netopt_cli.graph.ranks import Factorization, choose_factorizations
from netopt_cli.measure.macs import count_macs


def outputs(model: keras.Model) -> np.ndarray:
    shapes = model.input_shape[1:]
    return model(np.random.default_rng(0).normal(size=(2, *shapes)).astype("float32")).numpy()


def one(shape: tuple[int, ...], layer: keras.Layer) -> keras.Model:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=w.shape) / w.size**0.5 for w in model.get_weights()])
    return model


def full_rank(model: keras.Model, kind: str) -> list[Factorization]:
    """At full rank nothing is saved, so that it cannot be chosen: it is built past the choice."""
    (layer,) = [layer for layer in model.layers if layer.weights]
    its_calls = calls_by_layer(model)[id(layer)]
    (form,) = module._forms(layer, its_calls, kind)
    return [form.at(*form.full)]


def assert_same_at_full_rank(model: keras.Model, kind: str) -> None:
    (choice,) = full_rank(model, kind)
    result = factorize(model, [choice])
    assert result.output_shape == model.output_shape
    assert choice.energy == pytest.approx(1.0)
    np.testing.assert_allclose(outputs(result), outputs(model), atol=2e-5)
    assert count_macs(freeze(result).traced.graph).total == choice.macs[1]
    assert count_macs(freeze(model).traced.graph).total == choice.macs[0]
    before = sum(w.size for w in model.get_weights()) - choice.params[0]
    assert sum(w.size for w in result.get_weights()) == choice.params[1] + before


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["channel", "spatial", "tucker"]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["same", "valid"]),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    bias=st.booleans(),
)
def test_a_convolution_is_the_same_at_full_rank(  # noqa: PLR0917
    kind, size, strides, dilation, padding, channels, bias
):
    assume(max(strides) == 1 or max(dilation) == 1)
    layer = layers.Conv2D(
        channels[1], size, strides=strides, dilation_rate=dilation, padding=padding,
        use_bias=bias, activation="tanh", name="conv",
    )  # fmt: skip
    assert_same_at_full_rank(one((9, 8, channels[0]), layer), kind)


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(["channel", "tucker"]),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid", "causal"]),
)
def test_a_1d_convolution_is_the_same_at_full_rank(kind, strides, padding):
    layer = layers.Conv1D(4, 3, strides=strides, padding=padding, activation="relu", name="conv")
    assert_same_at_full_rank(one((10, 3), layer), kind)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((6,), lambda: layers.Dense(4, activation="relu")),
        ((5, 6), lambda: layers.Dense(3, use_bias=False)),
        ((5, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de")),
        ((5, 2, 4), lambda: layers.EinsumDense("abcd,cde->abe", (None, 6), bias_axes="e")),
        ((5, 6), lambda: layers.EinsumDense("...x,xy->...y", 4, activation="tanh")),
    ],
)
def test_a_dense_layer_is_the_same_at_full_rank(shape, layer):
    assert_same_at_full_rank(one(shape, layer()), "auto")


def test_channels_first_keeps_its_axes():
    layer = layers.Conv2D(8, 3, strides=2, data_format="channels_first", name="conv")
    inputs = keras.Input((8, 11, 7))
    model = keras.Model(inputs, layer(inputs))
    for kind in ("channel", "spatial", "tucker"):
        (choice,) = full_rank(model, kind)
        # The CPU has no kernel for it, so that only shapes and costs are compared.
        result = factorize(model, [choice])
        assert result.output_shape == model.output_shape
        its_calls = calls_by_layer(result)
        assert choice.macs[1] == sum(macs(x, its_calls[id(x)]) for x in result.layers)


def low_rank_dense(rank: int) -> keras.Model:
    model = one((32,), layers.Dense(24, name="dense"))
    random = np.random.default_rng(0)
    kernel = random.normal(size=(32, rank)) @ random.normal(size=(rank, 24))
    model.get_layer("dense").set_weights([kernel, random.normal(size=24)])
    return model


def test_energy_finds_the_true_rank():
    model = low_rank_dense(3)
    (choice,), left = choose_factorizations(model, rank_by="energy", amount=1.0)
    assert choice.ranks == (3,) and left == []
    result = factorize(model, [choice])
    assert [layer.name for layer in result.layers[1:]] == ["dense_basis", "dense"]
    assert result.count_params() == 3 * (32 + 24) + 24
    np.testing.assert_allclose(outputs(result), outputs(model), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["auto", "channel", "spatial", "tucker"])
def test_energy_is_the_energy_that_is_kept(kind):
    model = one((8, 8, 12), layers.Conv2D(16, 3, use_bias=False, name="conv"))
    (choice,), _ = choose_factorizations(model, rank_by="energy", amount=0.6, convolution=kind)
    assert 0.6 <= choice.energy < 0.9
    assert kind in ("auto", choice.kind)
    # White noise in: the mean squared difference of outputs is the lost energy.
    x = np.random.default_rng(2).normal(size=(200, 8, 8, 12)).astype("float32")
    expected, actual = model(x).numpy(), factorize(model, [choice])(x).numpy()
    lost = np.mean((expected - actual) ** 2) / np.mean(expected**2)
    # Exact where there is one rank, a bound for Tucker.
    assert lost <= (1 - choice.energy) * 1.05
    assert choice.kind == "tucker" or lost == pytest.approx(1 - choice.energy, rel=0.05)


def test_a_layer_that_would_not_get_cheaper_is_left():
    model = one((8,), layers.Dense(8, name="small"))
    chosen, left = choose_factorizations(model, rank_by="ratio", amount=0.6)
    assert chosen == []
    assert left == ["left as they are, ratio 0.6 would not lower both MACs and weights: small"]


def test_ratio_is_of_the_full_rank():
    (choice,), _ = choose_factorizations(low_rank_dense(24), rank_by="ratio", amount=0.25)
    assert choice.ranks == (6,)


@pytest.mark.parametrize(
    "amount", [0.7, *(pytest.param(a, marks=pytest.mark.slow) for a in (0.4, 0.15))]
)
def test_macs_are_a_budget_of_the_whole_model(amount):
    model = resnet.build((16, 16, 3), 10)
    before = count_macs(freeze(model).traced.graph).total
    chosen, _ = choose_factorizations(model, rank_by="macs", amount=amount)
    result = factorize(model, chosen)
    after = count_macs(freeze(result).traced.graph).total
    assert 0.95 * amount <= after / before <= amount
    assert after == before - sum(f.macs[0] - f.macs[1] for f in chosen)
    assert all(f.macs[1] < f.macs[0] and f.params[1] < f.params[0] for f in chosen)
    assert result.count_params() < model.count_params()


def test_a_budget_spares_the_layer_that_would_lose_most():
    inputs = keras.Input((40,))
    x = layers.Dense(40, use_bias=False, name="redundant")(inputs)
    model = keras.Model(inputs, layers.Dense(40, use_bias=False, name="full")(x))
    random = np.random.default_rng(0)
    low = random.normal(size=(40, 4)) @ random.normal(size=(4, 40))
    model.set_weights([low, np.linalg.qr(random.normal(size=(40, 40)))[0]])
    (choice,), left = choose_factorizations(model, rank_by="macs", amount=0.65)
    assert choice.layer.name == "redundant" and choice.energy == pytest.approx(1.0)
    assert left == ["left as they are, the budget is met without them: full"]


def test_a_budget_leaves_no_layer_with_next_to_nothing():
    """On flat spectra every MAC costs the same energy, and the largest layer must not pay all."""
    inputs = keras.Input((128,))
    x = layers.Dense(128, name="large")(inputs)
    for index in range(3):
        x = layers.Dense(64, name=f"small_{index}")(x)
    model = keras.Model(inputs, x)
    for layer in model.layers[1:]:
        rows, columns = layer.kernel.shape
        kernel, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(rows, rows)))
        layer.set_weights([kernel[:, :columns], layer.get_weights()[1]])
    chosen, _ = choose_factorizations(model, rank_by="macs", amount=0.5)
    linear, _ = choose_factorizations(
        model, rank_by="macs", amount=0.5, damage_of=lambda layer: lambda lost: lost
    )
    assert min(choice.energy for choice in linear) < 0.01, "the sum of energies gives one layer up"
    assert min(choice.energy for choice in chosen) > 0.1


def test_a_budget_out_of_reach_names_the_nearest():
    with pytest.raises(InputError, match=r"amount=0.001 .* is out of reach.* Nearest: 0\.\d+"):
        choose_factorizations(cnn.build((8, 8, 1), 10), rank_by="macs", amount=0.001)


def mixed() -> keras.Model:
    """Nested, shared and unsupported layers."""
    inputs = keras.Input((8, 8, 8))
    shared = layers.Conv2D(8, 3, padding="same", activation="relu", name="shared")
    x = shared(shared(inputs))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = layers.Conv2D(8, 1, kernel_constraint="non_neg", name="bound")(x)
    nested = keras.Sequential(
        [layers.Input((128,)), layers.Dense(32, name="inner"), layers.Dense(128, name="outer")],
        name="nested",
    )
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(nested(nested(x))))


def test_nested_and_shared_layers_are_factorized_and_the_rest_is_named():
    model = mixed()
    chosen, left = choose_factorizations(model, rank_by="ratio", amount=0.3, exclude=["outer"])
    assert [f.layer.name for f in chosen] == ["shared", "inner", "head"]
    assert left == [
        "left as they are, DepthwiseConv2D has no factorization here: depthwise",
        "left as they are, a grouped convolution is thin already: grouped",
        "left as they are, a constraint on the kernel would not hold for its factors: bound",
        "left as they are, excluded: outer",
    ]
    result = factorize(model, chosen)
    before, after = (count_macs(freeze(m).traced.graph).total for m in (model, result))
    assert after == before - sum(f.macs[0] - f.macs[1] for f in chosen)
    assert result.count_params() == model.count_params() - sum(
        f.params[0] - f.params[1] for f in chosen
    )
    assert model.get_layer("shared").kernel.shape == (3, 3, 8, 8), "the original is not changed"
    paths = {weight.path for weight in result.weights}
    kept = {weight.path for weight in model.weights if not weight.path.endswith("/kernel")}
    assert kept < paths
    assert "nested/outer/kernel" in paths


def test_it_can_be_factorized_twice_and_saved(tmp_path):
    model = one((64,), layers.Dense(64, name="dense"))
    for amount in (0.4, 0.4):
        chosen, _ = choose_factorizations(model, rank_by="ratio", amount=amount)
        model = factorize(model, chosen)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names) and "dense_basis_2" in names
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(restored), outputs(model), atol=1e-6)


def test_what_cannot_work_is_said():
    model = low_rank_dense(3)
    with pytest.raises(InputError, match=r"exclude matches no layer.*dens_e.*mean 'dense'"):
        choose_factorizations(model, rank_by="ratio", amount=0.5, exclude=["dens_e"])
    with pytest.raises(InputError, match=r"finds no layer to factorize.*excluded: dense"):
        choose_factorizations(model, rank_by="ratio", amount=0.5, exclude=["*"])
