import keras
import numpy as np
import pytest

from netopt_cli.graph.quantization_risks import loops, quantization_risks

layers = keras.layers


def net(*stack, shape=(8, 8, 3)) -> keras.Model:
    inputs = x = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def test_a_friendly_network_has_none():
    model = net(
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(max_value=6.0),
        layers.Flatten(),
        layers.Dense(3),
        layers.Softmax(),
    )
    assert quantization_risks(model) == []


@pytest.mark.parametrize(
    ("stack", "line"),
    [
        ([layers.Conv2D(4, 3, activation="swish", name="c")], "c: an activation without bound"),
        ([layers.DepthwiseConv2D(3, name="d")], "d: few weights a channel"),
        ([layers.LayerNormalization(name="n")], "n: a normalization that cannot be folded"),
        (
            [layers.Conv2D(4, 3), layers.MaxPooling2D(), layers.BatchNormalization(name="b")],
            "b: it follows no convolution",
        ),
        ([layers.Dense(4, activation="softmax", name="s")], "s: a softmax inside"),
    ],
)
def test_each_cause_is_named(stack, line):
    model = net(*stack, layers.GlobalAveragePooling2D(), layers.Dense(3))
    assert any(risk.startswith(line) for risk in quantization_risks(model))


def test_the_output_may_be_unbounded():
    assert quantization_risks(net(layers.Flatten(), layers.Dense(3, activation="relu"))) == []


@pytest.mark.parametrize("with_norm", [False, True])
def test_channels_of_different_ranges(with_norm):
    convolution = layers.Conv2D(4, 3, name="conv")
    norm = layers.BatchNormalization(name="norm")
    model = net(convolution, *([norm] if with_norm else []), layers.Flatten(), layers.Dense(3))
    assert quantization_risks(model) == []
    factor = np.float32([1, 1, 1, 100])
    if with_norm:
        norm.gamma.assign(factor)
    else:
        convolution.kernel.assign(convolution.kernel * factor)
    (risk,) = quantization_risks(model)
    assert risk.startswith("conv: channels whose ranges differ")


def test_a_pruned_channel_is_no_risk():
    convolution = layers.Conv2D(4, 3)
    model = net(convolution, layers.Flatten(), layers.Dense(3))
    convolution.kernel.assign(convolution.kernel * np.float32([1, 1, 1, 0]))
    assert quantization_risks(model) == []


def test_loops_come_first_and_unrolling_undoes_them():
    def recurrent(unroll: bool) -> keras.Model:
        inner = layers.LSTM(3, unroll=unroll, name="lstm")
        return net(layers.Bidirectional(inner), layers.Dense(3), shape=(4, 2))

    assert loops(recurrent(True)) == []
    assert loops(recurrent(False)) == ["forward_lstm", "backward_lstm"]
    first, *_ = quantization_risks(recurrent(False))
    assert first.startswith("forward_lstm, backward_lstm: a loop cannot be calibrated")


def test_many_layers_are_one_line():
    model = net(*(layers.Dense(4, activation="relu", name=f"d{i}") for i in range(5)),
                layers.Flatten(), layers.Dense(3))  # fmt: skip
    (risk,) = quantization_risks(model)
    assert risk.startswith("d0, d1, d2 and 2 more: an activation without bound")
