import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from netopt_cli.arch import cnn, mobilenet, resnet
from netopt_cli.errors import ArchError
from netopt_cli.graph import rebuild
from netopt_cli.graph.dropout import with_dropout
from netopt_cli.graph.friendly import quantization_friendly


def data(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")


def assert_same_function(first: keras.Model, second: keras.Model) -> None:
    x = data(first)
    np.testing.assert_allclose(first(x), second(x), atol=1e-6)


def activation(model: keras.Model, name: str) -> str:
    return keras.activations.serialize(model.get_layer(name).activation)


def names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def branched() -> keras.Model:
    """A bit of everything: branches, a shared layer, a nested model, a bare operation."""
    inputs = keras.Input((6, 6, 2), name="pixels")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = keras.ops.silu(x)
    shared = layers.Dense(4, activation="tanh", name="shared")
    x = layers.Concatenate(name="concat")([shared(x), shared(shared(x))])
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Dense(8, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply(name="excite")([x, layers.Reshape((1, 1, 8), name="expand")(gate)])
    x = layers.Flatten(name="flatten")(x)
    nested = keras.Sequential(
        [layers.Input((288,)), layers.Dense(5, activation="gelu", name="inner")], name="nested"
    )
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(nested(x)))


@pytest.mark.parametrize(
    "model",
    [branched, lambda: resnet.build((8, 8, 1), 3), lambda: mobilenet.build((8, 8, 1), 3)],
    ids=["branched", "resnet", "mobilenet"],
)
def test_rebuild_keeps_function_names_and_original(model):
    original = model()
    rebuilt, unfit = rebuild.rebuild(original)
    assert unfit == []
    assert names(rebuilt) == names(original)
    assert_same_function(original, rebuilt)
    before = original.get_weights()
    for variable in rebuilt.variables:
        variable.assign(keras.ops.zeros_like(variable))
    for old, new in zip(before, original.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_rebuild_keeps_shared_layers_shared():
    rebuilt, _ = rebuild.rebuild(branched())
    assert rebuilt.count_params() == branched().count_params()
    assert names(rebuilt).count("shared") == 1


def test_rebuild_keeps_several_inputs():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    original = keras.Model(inputs, layers.Concatenate()([inputs["a"], inputs["b"]]))
    rebuilt, _ = rebuild.rebuild(original)
    x = {"a": np.ones((1, 3)), "b": np.zeros((1, 2))}
    np.testing.assert_array_equal(original(x), rebuilt(x))


def test_rebuilt_models_can_be_saved_and_loaded(tmp_path):
    rebuilt, _ = quantization_friendly(branched())
    rebuilt.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_same_function(rebuilt, loaded)


class Subclassed(keras.Model):
    def call(self, x):
        return x


class NoConfig(layers.Layer):
    def __init__(self, scale, **options):
        super().__init__(**options)
        self.scale = scale[0]

    def call(self, x):
        return x * self.scale

    def get_config(self):
        return super().get_config()


def test_models_without_a_known_graph_are_refused():
    with pytest.raises(ArchError, match="subclassed model"):
        rebuild.rebuild(Subclassed())
    with pytest.raises(ArchError, match="without a known input shape"):
        rebuild.rebuild(keras.Sequential([layers.Dense(2)]))


def test_a_layer_that_cannot_be_rebuilt_is_named():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, NoConfig([2.0], name="odd")(inputs))
    with pytest.raises(ArchError, match=r"'odd' \(NoConfig\) cannot be rebuilt"):
        rebuild.rebuild(model)


# Quantization-friendly


@pytest.mark.parametrize(
    "kind", ["relu", "leaky_relu", "elu", "gelu", "swish", "hard_swish", "tanh"]
)
def test_unbounded_activations_become_relu6(kind):
    original = cnn.build((8, 8, 1), 3, activation=kind)
    friendly, lines = quantization_friendly(original)
    assert [line.split(":")[0] for line in lines] == [
        "conv_1_act",
        "conv_2_act",
        "conv_3_act",
        "dense_1_act",
    ]
    assert all(line.endswith("→ relu6") for line in lines)
    assert all(activation(friendly, f"conv_{i}_act") == "relu6" for i in (1, 2, 3))
    assert activation(original, "conv_1_act") != "relu6"
    for old, new in zip(original.get_weights(), friendly.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "layer",
    [layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU],
    ids=lambda layer: layer.__name__,
)
def test_activation_layers_become_relu6(layer):
    inputs = keras.Input((4,))
    x = layer(name="act")(layers.Dense(3, name="dense")(inputs))
    friendly, lines = quantization_friendly(keras.Model(inputs, layers.Dense(2)(x)))
    assert len(lines) == 1
    assert activation(friendly, "act") == "relu6"


@pytest.mark.parametrize("model", [cnn, resnet, mobilenet], ids=lambda m: m.__name__)
def test_a_friendly_model_stays_as_it_is(model):
    original = model.build((8, 8, 1), 3, activation="relu6")
    friendly, lines = quantization_friendly(original)
    assert lines == []
    assert_same_function(original, friendly)


def test_branches_shared_and_nested_layers_and_gates():
    friendly, lines = quantization_friendly(branched())
    assert sorted(line.split(": ")[1] for line in lines) == [
        "gelu → relu6",
        "silu → relu6",
        "tanh → relu6",
    ]
    assert activation(friendly, "gate") == "sigmoid"
    assert activation(friendly, "out") == "softmax"
    assert activation(friendly, "shared") == "relu6"
    assert activation(friendly.get_layer("nested"), "inner") == "relu6"
    assert quantization_friendly(friendly)[1] == []


def test_the_activation_of_the_outputs_is_left_and_named():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, activation="relu", name="out")])
    friendly, lines = quantization_friendly(model)
    assert lines == ["out: left as it is, its relu gives the outputs"]
    assert_same_function(model, friendly)


def reordered(fused: bool, multiplying: keras.Layer) -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = multiplying(inputs)
    if not fused:
        x = layers.Activation("elu", name="act")(x)
    x = layers.BatchNormalization(name="bn")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(x)))


@pytest.mark.parametrize("layer", [layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D])
@pytest.mark.parametrize("fused", [True, False])
def test_batch_norm_moves_before_the_activation(layer, fused):
    sizes = (3,) if layer is layers.DepthwiseConv2D else (4, 3)
    model = reordered(fused, layer(*sizes, activation="elu" if fused else None, name="conv"))
    friendly, lines = quantization_friendly(model)
    act = "conv_act" if fused else "act"
    assert names(friendly)[1:4] == ["conv", "bn", act]
    assert activation(friendly, "conv") == "linear"
    assert activation(friendly, act) == "relu6"
    assert lines == [
        f"{'conv' if fused else 'act'}: elu → relu6",
        "bn: moved before the activation of conv, so that it folds",
    ]
    assert quantization_friendly(friendly)[1] == []


def test_a_bounded_activation_moves_without_being_replaced():
    inputs = keras.Input((4,))
    x = layers.Dense(3, activation="sigmoid", name="dense")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    friendly, lines = quantization_friendly(model)
    assert lines == ["bn: moved before the activation of dense, so that it folds"]
    assert activation(friendly, "dense_act") == "sigmoid"


def test_batch_norm_stays_when_the_activation_has_other_users():
    inputs = keras.Input((4,))
    x = layers.Dense(3, activation="relu6", name="dense")(inputs)
    model = keras.Model(
        inputs, layers.Add(name="add")([layers.BatchNormalization(name="bn")(x), x])
    )
    friendly, lines = quantization_friendly(model)
    assert len(lines) == 1
    assert lines[0].startswith("bn: left as it is, the activation before it has other users")
    assert_same_function(model, friendly)


@keras.saving.register_keras_serializable("tests")
def plus_one(x):
    return x + 1


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.BatchNormalization(name="norm"), "follows no convolution"),
        (layers.LayerNormalization(name="norm"), "LayerNormalization cannot be folded"),
        (layers.GroupNormalization(2, name="norm"), "GroupNormalization cannot be folded"),
        (layers.TimeDistributed(layers.Dense(2, activation="relu"), name="norm"), "not looked"),
        (layers.Activation(plus_one, name="norm"), "custom function"),
    ],
    ids=["batch", "layer", "group", "wrapper", "custom"],
)
def test_what_cannot_be_made_friendly_is_named(layer, reason):
    inputs = keras.Input((3, 4))
    x = layers.MaxPooling1D(1)(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(layer(x))))
    friendly, lines = quantization_friendly(model)
    assert len(lines) == 1
    assert lines[0].startswith("norm: left as it is")
    assert reason in lines[0]
    assert_same_function(model, friendly)


class Custom(layers.Dense):
    """A layer of the user's: may not be touched, whatever it derives from."""


def test_custom_and_attention_layers_pass_through():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = Custom(3, activation="relu", name="custom")(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(layers.Flatten()(x)))
    friendly, lines = quantization_friendly(model)
    assert lines == []
    assert_same_function(model, friendly)


# Dropout


@settings(max_examples=8, deadline=None)
@given(rate=st.floats(0, 0.99), own=st.sampled_from([0.0, 0.25]))
def test_dropout_changes_nothing_at_inference(rate, own):
    original = cnn.build((8, 8, 1), 3, filters=[4], dense=6, dropout=own)
    changed, lines = with_dropout(original, rate)
    rates = [layer.rate for layer in changed.layers if isinstance(layer, layers.Dropout)]
    assert rates == ([rate] if own or rate else [])
    assert bool(lines) == (rate != own)
    assert_same_function(original, changed)


def test_every_dropout_gets_the_rate_nested_ones_too():
    nested = keras.Sequential([layers.Input((4, 4, 2)), layers.SpatialDropout2D(0.1, name="s")])
    inputs = keras.Input((4, 4, 2))
    x = layers.Dropout(0.5, name="d")(layers.Flatten()(nested(inputs)))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    changed, lines = with_dropout(model, 0.3)
    assert sorted(lines) == ["d: dropout rate 0.5 → 0.3", "s: dropout rate 0.1 → 0.3"]
    assert {
        layer.rate for layer in rebuild.layers(changed) if isinstance(layer, (layers.Dropout))
    } == {0.3}


@pytest.mark.parametrize("nest", [False, True])
def test_dropout_is_inserted_before_the_head(nest):
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(3, name="hidden"),
            layers.Dense(2, name="out"),
            layers.Softmax(name="softmax"),
        ]
    )
    if nest:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, model(inputs))
    changed, lines = with_dropout(model, 0.4)
    assert lines == ["out_dropout: inserted before out, rate 0.4"]
    inner = changed.layers[-1] if nest else changed
    assert names(inner)[-4:] == ["hidden", "out_dropout", "out", "softmax"]
    assert_same_function(model, changed)


def test_dropout_acts_in_training():
    changed, _ = with_dropout(cnn.build((8, 8, 1), 3), 0.5)
    x = data(changed)
    assert not np.allclose(changed(x, training=True), changed(x, training=False))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.2])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ArchError, match=rf"\[0, 1\). Received: rate={rate}"):
        with_dropout(cnn.build((8, 8, 1), 3), rate)


def test_dropout_without_a_head_to_precede_is_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Add()([inputs, inputs]))
    with pytest.raises(ArchError, match="no dropout layer and no Dense"):
        with_dropout(model, 0.2)
