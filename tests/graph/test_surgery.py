import keras
import numpy as np
import pytest
from keras import layers
from surgery_check import check, inputs_for, run

from netopt_cli.errors import ArchError, InputError
from netopt_cli.graph.channels import ChannelGraph, read_channels, values_of
from netopt_cli.graph.labels import Labels
from netopt_cli.graph.rule_call import Call, consumes, follows, produces
from netopt_cli.graph.rules import register_rule
from netopt_cli.graph.surgery import masked, remove


def small() -> keras.Model:
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(5, activation="relu", name="dense")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def names(graph: ChannelGraph) -> list[str]:
    return [group.name for group in graph.groups]


def reasons(model: keras.Model) -> dict[str, str]:
    return dict(read_channels(model).protected)


def test_groups_tell_what_goes_with_each_unit():
    graph = read_channels(small())
    assert names(graph) == ["conv", "dense"]
    parts = [(m.path, m.axis, m.role, m.indices.shape) for m in graph.group("conv").members]
    assert parts == [
        ("conv/kernel", 3, "produces", (6, 1)),
        ("norm/gamma", 0, "follows", (6, 1)),
        ("norm/beta", 0, "follows", (6, 1)),
        ("norm/moving_mean", 0, "follows", (6, 1)),
        ("norm/moving_variance", 0, "follows", (6, 1)),
        ("dense/kernel", 0, "consumes", (6, 16)),
    ]
    # Flatten lays the channels out position by position.
    np.testing.assert_array_equal(graph.group("conv").members[-1].indices[2], 2 + 6 * np.arange(16))


def test_rows_hold_the_weights_of_each_unit():
    model = small()
    group = read_channels(model).group("conv")
    values = values_of(model)
    produced = group.rows(values, roles=("produces",))
    assert produced.shape == (6, 18)
    np.testing.assert_array_equal(produced[4], values["conv/kernel"][..., 4].ravel())
    taken = group.rows(values, roles=("consumes",))
    np.testing.assert_array_equal(taken[4], values["dense/kernel"][4::6].ravel())
    assert group.rows(values).shape == (6, 18 + 4 + 16 * 5)


def test_remove_cuts_configuration_and_weights():
    model = small()
    graph = read_channels(model)
    smaller = remove(model, graph, {"conv": [0, 3], "dense": np.array([4])})
    assert smaller.get_layer("conv").filters == 4
    assert smaller.get_layer("dense").units == 4
    np.testing.assert_array_equal(
        smaller.get_layer("conv").kernel, model.get_layer("conv").kernel.numpy()[..., [1, 2, 4, 5]]
    )
    assert smaller.output_shape == model.output_shape
    assert model.get_layer("conv").filters == 6


def test_remove_of_nothing_is_a_copy():
    model = small()
    x = inputs_for(model)
    copy = remove(model, read_channels(model), {})
    np.testing.assert_allclose(run(model, x)[0], run(copy, x)[0], atol=1e-6)
    assert copy.count_params() == model.count_params()


def test_a_graph_serves_a_clone_with_its_own_weights():
    model = small()
    graph = read_channels(model)
    clone = keras.models.clone_model(model)
    smaller = remove(clone, graph, {"dense": [0]})
    np.testing.assert_array_equal(
        smaller.get_layer("logits").kernel, clone.get_layer("logits").kernel.numpy()[1:]
    )


@pytest.mark.parametrize("surgery", [remove, masked])
@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"cnov": [0]}, "no group 'cnov' of channels. Did you mean 'conv'"),
        ({"conv": [6]}, r"must be in \[0, 6\). Received: 6 to 6"),
        ({"conv": [-1]}, r"must be in \[0, 6\). Received: -1"),
        ({"conv": range(6)}, "must keep at least one of its 6 units"),
    ],
)
def test_refuses(surgery, removed, message):
    model = small()
    with pytest.raises(InputError, match=message):
        surgery(model, read_channels(model), removed)


def test_residual_branches_lose_the_same_channels():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    x = layers.Add()([x, y])
    z = layers.Conv2D(6, 1, name="second")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, z]))
    graph, _ = check(keras.Model(inputs, layers.Dense(2)(x)))
    assert names(graph) == ["stem"]
    assert graph.groups[0].layers == ("stem", "branch", "second")


def test_concatenated_channels_stay_apart():
    inputs = keras.Input((4, 4, 2))
    first = layers.Conv2D(3, 1, name="first")(inputs)
    second = layers.Conv2D(4, 1, name="second")(inputs)
    x = layers.Concatenate()([first, second])
    x = layers.Dense(2, name="head")(layers.Flatten()(x))
    graph, _ = check(keras.Model(inputs, x))
    assert names(graph) == ["first", "second"]
    assert graph.group("second").members[-1].indices[0].tolist() == [3 + 7 * i for i in range(16)]


def test_part_of_a_split_is_never_emptied():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 1, name="conv")(inputs)
    first, second = keras.ops.split(x, [2], axis=-1)
    x = keras.ops.concatenate([first, keras.ops.tanh(second)], axis=-1)
    graph, _ = check(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), ratio=0.9)
    assert [(group.name, group.size) for group in graph.groups] == [("conv", 2), ("conv#2", 4)]


def test_attention_loses_heads():
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(4, 3, output_shape=8, name="attention")
    x = attention(inputs, inputs)
    graph, smaller = check(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), ratio=0.5)
    assert [(group.name, group.size) for group in graph.groups] == [
        ("attention", 4),
        ("attention#2", 8),
    ]
    assert smaller.get_layer("attention").num_heads == 2
    assert smaller.get_layer("attention").key_dim == 3


def test_sequential_model():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, name="a"), layers.Dense(4, name="b"), layers.Dense(2)]
    )
    graph, _ = check(model)
    assert names(graph) == ["a", "b"]


def test_nested_models_with_layers_of_one_name():
    def block(name: str, features: int) -> keras.Model:
        return keras.Sequential(
            [keras.Input((features,)), layers.Dense(6, activation="relu", name="dense")], name=name
        )

    inputs = keras.Input((4,))
    x = block("second", 6)(block("first", 4)(inputs))
    graph, smaller = check(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    assert names(graph) == ["dense", "dense#2"]
    assert [m.path for m in graph.group("dense").members] == [
        "first/dense/kernel",
        "first/dense/bias",
        "second/dense/kernel",
    ]
    assert smaller.get_layer("first").get_layer("dense").units == 4


def test_nested_model_called_twice():
    inner = keras.Input((6,))
    block = keras.Model(inner, layers.Dense(6, activation="relu", name="inner")(inner), name="b")
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="before")(inputs)
    x = block(block(x))
    graph, _ = check(keras.Model(inputs, layers.Dense(2)(x)))
    # What it gives is what it takes.
    assert names(graph) == ["before"]
    assert graph.groups[0].layers == ("before", "inner")


def test_shared_layer_on_two_sizes():
    a, b = keras.Input((4, 4, 2)), keras.Input((6, 6, 2))
    tower = layers.Conv2D(5, 3, activation="relu", name="tower")
    both = [layers.GlobalMaxPooling2D()(tower(one)) for one in (a, b)]
    check(keras.Model({"a": a, "b": b}, layers.Dense(2)(layers.Concatenate()(both))))


@pytest.mark.parametrize("kind", [layers.LayerNormalization, layers.Softmax])
def test_shared_layer_that_mixes_units(kind):
    inputs = keras.Input((4,))
    shared = kind()
    x = shared(layers.Dense(6, name="first")(inputs))
    y = shared(layers.Dense(6, name="second")(x))
    graph, _ = check(keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([x, y, shared(y)]))))
    assert len(graph.groups) == (1 if kind is layers.LayerNormalization else 2)


def test_several_outputs_are_kept_whole():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="trunk")(inputs)
    features = layers.Dense(5, name="features")(x)
    model = keras.Model(inputs, {"y": layers.Dense(2, name="y")(features), "features": features})
    graph, smaller = check(model)
    assert names(graph) == ["trunk"]
    assert {name for name, _ in graph.protected} == {"features", "y"}
    assert keras.tree.map_structure(lambda t: t.shape, smaller.output) == {
        "y": (None, 2),
        "features": (None, 5),
    }


def test_protects_around_what_has_no_rule():
    class Odd(layers.Layer):
        def call(self, x):
            return keras.ops.cumsum(x, axis=-1)

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((4,))
    x = layers.Dense(6, name="first")(inputs)
    x = Odd(name="odd")(layers.Dense(5, name="second")(x))
    x = layers.Dense(7, name="third")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    graph, _ = check(model)
    assert names(graph) == ["first", "third"]
    told = dict(graph.protected)
    assert "no rule for" in told["odd"] and "netopt_channel_rule" in told["odd"]
    assert told["second"] == "'odd' takes it in and is left alone"
    assert told["head"] == "it gives the outputs of the model"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (layers.Lambda(lambda y: y * 2, name="lambda"), "'lambda' takes it in"),
        (lambda x: x + np.ones(4, "float32"), "combines it with values that are fixed"),
        (lambda x: x[:, ::2], "takes each 2th of them"),
        (layers.Activation(lambda y: y * 2, name="odd"), "'odd' takes it in"),
        (layers.Dense(4, activation=lambda y: y * 2), None),
        (layers.Reshape((4, 1)), None),
    ],
)
def test_says_why_units_stay(body, reason):
    inputs = keras.Input((3,))
    x = body(layers.Dense(4, name="held")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    check(model, changes=False)
    told = reasons(model)
    assert ("held" in told) == (reason is not None)
    assert reason is None or reason in told["held"]


def test_index_of_a_single_unit_holds_that_one_alone():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="dense")(inputs)
    y = layers.Dense(3)(x)
    graph, _ = check(
        keras.Model(inputs, [layers.Dense(2)(y), layers.Dense(2)(x[:, 2:3] + y)]), ratio=0.9
    )
    group = graph.group("dense")
    produced = next(m for m in group.members if m.path == "dense/kernel")
    assert produced.indices.ravel().tolist() == [0, 1, 3]


def test_a_single_unit_is_said_to_stay():
    inputs = keras.Input((3,))
    x = layers.Dense(1, name="one")(inputs)
    assert reasons(keras.Model(inputs, layers.Dense(2)(x)))["one"] == "it has a single unit"


def test_units_that_are_one_are_said_to_stay():
    inputs = keras.Input((2, 2, 2))
    x = layers.Conv2D(4, 1, name="conv")(inputs)
    x = layers.GroupNormalization(2)(x)  # (0, 1) and (2, 3)
    x = layers.Permute((1, 2, 4, 3))(layers.Reshape((2, 2, 2, 2))(x))  # (0, 2) and (1, 3)
    x = layers.Dense(2)(layers.Flatten()(x))
    assert reasons(keras.Model(inputs, x))["conv"] == "its units hang together as one"


class Mixer(layers.Layer):
    """A user's layer: a matrix to `size` features, and a factor for each of the inputs."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="factor", initializer="ones")
        self.matrix = self.add_weight(shape=(shape[-1], self.size), name="matrix")

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x * self.factor, self.matrix))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def mix(call: Call) -> Labels:
    out = call.units(call.layer.size)
    call.weight(call.layer.factor, follows(call.x[-1]))
    call.weight(call.layer.matrix, consumes(call.x[-1]), produces(out))
    call.resize("size", out)
    return call.x.with_axis(-1, out)


class Hooked(Mixer):
    def netopt_channel_rule(self, call):
        return mix(call)


class Registered(Mixer):
    pass


class Forgetful(Mixer):
    def netopt_channel_rule(self, call):
        out = call.units(self.size)
        call.weight(self.matrix, consumes(call.x[-1]), produces(out))
        return call.x.with_axis(-1, out)


class Wrong(Mixer):
    def netopt_channel_rule(self, call):
        return call.x


def with_mixer(kind: type) -> keras.Model:
    inputs = keras.Input((3,))
    x = kind(5, name="mixer")(layers.Dense(6, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def test_a_layer_brings_its_rule():
    graph, smaller = check(with_mixer(Hooked))
    assert names(graph) == ["before", "mixer"]
    assert smaller.get_layer("mixer").size < 5


def test_a_rule_is_registered():
    assert "mixer" in reasons(with_mixer(Registered))
    register_rule(Registered, mix)
    graph, _ = check(with_mixer(Registered))
    assert names(graph) == ["before", "mixer"]


def test_a_rule_is_not_inherited_by_registration():
    register_rule(Mixer, mix)

    class Sub(Mixer):
        pass

    assert "mixer" in reasons(with_mixer(Sub))


def test_a_rule_that_does_not_fit_its_layer():
    model = with_mixer(Forgetful)
    graph = read_channels(model)
    with pytest.raises(ArchError, match=r"rule of Forgetful does not fit layer 'mixer'.*resize"):
        remove(model, graph, {"mixer": [0]})


def test_a_rule_of_wrong_shape_is_reported():
    model = with_mixer(Wrong)
    graph, _ = check(model, changes=False)
    assert names(graph) == []
    assert "its rule gives labels of shapes [(1, 6)]" in dict(graph.protected)["mixer"]


def test_subclassed_model_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ArchError, match="subclassed"):
        read_channels(Own())
