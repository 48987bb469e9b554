"""Quantization-aware training as a stage."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight, Timing
from netopt_cli.errors import InputError
from netopt_cli.graph.fake_quant import quantizer_state
from netopt_cli.graph.kernels import kernels, sparsity_of
from netopt_cli.graph.quantizers import quantize_symmetric
from netopt_cli.measure.measurement import export_network
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.qat import Qat

layers = keras.layers


def small(shape: tuple[int, ...], classes: int) -> keras.Model:
    inputs = keras.Input(shape, name="input")
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(momentum=0.9, name="conv_bn")(x)
    x = layers.Activation("relu", name="conv_act")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(6, name="dw_act")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="small")


def trained(bench: Bench) -> Network:
    return bench.fit(bench.build(small), epochs=6)


def file_logits(network: Network, bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the file and of the Keras model on the test split."""
    _, content = export_network(network, bench.data)
    x = bench.data.normalization.numpy(bench.data.test.x)
    return next(LitertRunner(content, Timing()).logits([x])), network.model(x).numpy()


@pytest.mark.parametrize(("method", "bits"), [("minmax", 8), ("lsq", 4)])
def test_the_file_agrees_with_the_trained_network(bench: Bench, method: str, bits: int) -> None:
    network = trained(bench)
    before = bench.evaluate(network.model)
    network = apply(Qat(method=method, weight_bits=bits, epochs=3), network, bench)
    assert network.recipe.scheme == "int8" and network.recipe.trained_ranges
    assert "fake quantization" in network.properties
    in_file, in_keras = file_logits(network, bench)
    np.testing.assert_array_equal(in_file.argmax(-1), in_keras.argmax(-1))
    # The file's integers round halves where floats do not meet them: a step here and there.
    steps = np.unique(in_keras)
    step = np.diff(steps)[np.diff(steps) > 1e-6].min()
    apart = np.abs(in_file - in_keras) / step
    assert apart.max() < 2.1 and np.mean(apart > 0.1) < 0.05
    assert bench.evaluate(network.model) >= before - 0.05


def test_few_bits_train_better_than_they_round(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=6)
    x, y = next(bench.data.normalized_batches(bench.data.validation, 60))

    def loss(model: keras.Model) -> float:
        logits = model(x, training=False)
        return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)))

    stage = Qat(weight_bits=2, epochs=6, learning_rate=0.01)
    trained_loss = loss(apply(stage, network, bench).model)
    for variable in kernels(network.model).values():
        variable.assign(quantize_symmetric(variable.numpy(), 2, [-1]))
    assert trained_loss < 0.5 * loss(network.model)


@pytest.mark.slow
def test_lsq_learns_its_steps(bench: Bench) -> None:
    stage = Qat(method="lsq", weight_bits=4, epochs=2, learning_rate=0.01)
    start, _ = stage._rewritten(trained(bench))
    before = {v.path: v.numpy() for v in quantizer_state(start.model) if v.trainable}
    network = apply(stage, trained(bench), bench)
    after = {v.path: v.numpy() for v in quantizer_state(network.model) if v.trainable}
    assert set(after) == set(before)
    changed = [path for path in before if np.abs(after[path] - before[path]).max() > 1e-3]
    assert len(changed) >= len(before) - 1


def test_zeros_survive_in_the_network_and_in_the_file(bench: Bench) -> None:
    network = apply(Prune(sparsity=0.6, epochs=2), trained(bench), bench)
    zeros = {path: v.numpy() == 0 for path, v in kernels(network.model).items()}
    network = apply(Qat(epochs=2), network, bench)
    for path, variable in kernels(network.model).items():
        assert not variable.numpy()[zeros[path]].any()
    assert sparsity_of(list(kernels(network.model).values())) >= 0.599
    in_file, in_keras = file_logits(network, bench)
    np.testing.assert_array_equal(in_file.argmax(-1), in_keras.argmax(-1))


def test_bits_and_exclusions_go_by_the_path(bench: Bench) -> None:
    stage = Qat(weight_bits=4, layer_bits={"logits/*": 8}, exclude=("dw/*",), epochs=1)
    network = apply(stage, trained(bench), bench)
    bits = {
        layer.name: layer.weight_bits
        for layer in network.model.layers
        if hasattr(layer, "weight_bits")
    }
    assert bits == {"conv": 4, "dw": None, "logits": 8}
    assert any("dw/kernel: excluded" in note for note in bench.notes)


def test_patterns_that_fit_nothing_are_refused(bench: Bench) -> None:
    network = bench.build(small)
    with pytest.raises(InputError, match=r"opt.qat.exclude must fit .*'head/\*'.*logits/kernel"):
        Qat(exclude=("head/*",)).plan(Preflight("qat", network, True, bench.build))
    with pytest.raises(InputError, match=r"opt.qat.layer_bits must fit .*'head/\*'"):
        Qat(layer_bits={"head/*": 4}).plan(Preflight("qat", network, True, bench.build))


def test_the_plan_is_what_will_come_of_it_and_once_is_enough(bench: Bench) -> None:
    network = bench.build(small)
    weights = network.model.get_weights()
    planned = Qat().plan(Preflight("qat", network, True, bench.build))
    for before, after in zip(weights, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    done = apply(Qat(epochs=1), network, bench)
    assert [v.path for v in planned.model.weights] == [v.path for v in done.model.weights]
    assert planned.recipe == done.recipe and planned.properties == done.properties
    again = Preflight("qat2", planned, False, bench.build, {"fake quantization": "qat"})
    with pytest.raises(InputError, match="'qat2' cannot come after 'qat'"):
        Qat().plan(again)
