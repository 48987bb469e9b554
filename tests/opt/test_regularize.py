"""What each regularizer changes, shown on the network that it leaves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stage_bench import Bench, apply

from netopt_cli.contracts import Modifier, Network, Preflight
from netopt_cli.dataset import ArraySource, Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import fit
from netopt_cli.errors import InputError
from netopt_cli.graph.averaging import moving_average, stochastic_average
from netopt_cli.graph.batch_mixing import mixing
from netopt_cli.graph.gradients import task_loss
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.penalties import group_lasso, zero_units
from netopt_cli.measure.calibration import expected_calibration_error
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.regularize import Regularize
from netopt_cli.opt.structured import Structured
from netopt_cli.progress import SilentReporter
from netopt_cli.target import cpu
from netopt_cli.task.classification import CLASSIFICATION


def convolutional(normalize: bool = False) -> keras.Model:
    with cpu.build().strategy.scope():
        return _convolutional(normalize)


def _convolutional(normalize: bool) -> keras.Model:
    inputs = keras.Input((4, 4, 1), name="input")
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv_1")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(x) if normalize else x
    x = keras.layers.ReLU(name="act_1")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="conv")


def logits_of(model: keras.Model, data: Dataset) -> np.ndarray:
    return model.predict(data.normalization.numpy(data.test.x), verbose=0)


def noisy(data: Dataset) -> Dataset:
    """A quarter of the training labels are wrong."""
    random = np.random.default_rng(5)
    wrong = random.random(len(data.train)) < 0.25
    y = np.where(wrong, random.integers(0, 3, len(data.train)), data.train.y).astype(np.int32)
    return Dataset(**vars(data) | {"train": ArraySource(data.train.x, y)})


def test_group_lasso_makes_units_zero_that_surgery_removes_for_nothing(bench: Bench) -> None:
    network = apply(Regularize(epochs=12, group_lasso=0.3), bench.fresh(), bench)
    zeros = zero_units(network.model)
    assert 0 < zeros["dense_1"][0] < 24 and 0 < zeros["dense_2"][0] < 24
    assert "dense_1" in bench.notes[-1]
    plain = apply(Regularize(epochs=12), bench.fresh(), bench)
    assert not any(zero for zero, _ in zero_units(plain.model).values())

    before = logits_of(network.model, bench.data)
    share = sum(zero for zero, _ in zeros.values()) / 48
    cut = Structured(ratio=share - 0.03, of="channels", criterion="l2", epochs=0)
    smaller = apply(cut, network, bench)
    assert smaller.model.count_params() < network.model.count_params()
    np.testing.assert_allclose(logits_of(smaller.model, bench.data), before, atol=1e-5)


def test_units_at_zero_stay_there_in_later_training(bench: Bench) -> None:
    network = apply(Regularize(epochs=12, group_lasso=0.3), bench.fresh(), bench)
    before = zero_units(network.model)
    assert any(zero for zero, _ in before.values())
    bench.fit(network, epochs=3)
    assert zero_units(network.model) == before


def test_a_proximal_step_shrinks_units_with_normalization_and_readers() -> None:
    """‖w‖ of a unit falls by rate · factor · √n, and to exactly zero where it is less than that."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(6, name="hidden")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    hidden, norm, logits = (model.get_layer(name) for name in ("hidden", "bn", "logits"))

    def units() -> np.ndarray:
        """(6, 11): all that belongs to each unit."""
        parts = [hidden.kernel.numpy().T, logits.kernel.numpy()]
        parts += [v.numpy()[:, None] for v in (hidden.bias, norm.gamma, norm.beta)]
        return np.concatenate(parts, axis=1)

    for variable in (hidden.kernel, norm.gamma):  # Units 0 and 1 are small ones.
        variable.assign(variable * np.float32([0.01, 0.02, 1, 1, 1, 1]))
    logits.kernel.assign(logits.kernel * np.float32([[0.01], [0.02], [1], [1], [1], [1]]))
    before = units()
    step = group_lasso(model, factor=0.5).proximal
    assert step is not None
    step(tf.constant(0.1))
    after = units()
    lengths = np.linalg.norm(before, axis=1)
    expected = np.maximum(0, lengths - 0.1 * 0.5 * np.sqrt(11))
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), expected, atol=1e-6)
    np.testing.assert_array_equal(after[:2], 0)
    np.testing.assert_allclose(after, before * (expected / lengths)[:, None], atol=1e-6)
    assert norm.moving_variance.numpy().all(), "statistics are no weights"
    assert zero_units(model) == {"hidden": (2, 6)}


@pytest.fixture(scope="module")
def plain_weights(blobs_data: Dataset) -> list[np.ndarray]:
    bench = Bench(blobs_data)
    return apply(Regularize(epochs=1), bench.fresh(), bench).model.get_weights()


@pytest.mark.parametrize(
    "option",
    [
        {"l1": 1e-3}, {"l2": 1e-3}, {"group_lasso": 0.1}, {"orthogonal": 0.01},
        {"label_smoothing": 0.1}, {"confidence_penalty": 0.1}, {"focal_gamma": 2.0},
        {"mixup": 1.0}, {"cutmix": 1.0}, {"averaging": "ema"}, {"averaging": "swa"},
        {"sam_radius": 0.05},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_reaches_the_training(
    option: dict, plain_weights: list[np.ndarray], bench: Bench
) -> None:
    changed = apply(Regularize(epochs=1, **option), bench.fresh(), bench).model.get_weights()
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(plain_weights, changed, strict=True))


def test_orthogonal_brings_the_columns_to_right_angles(bench: Bench) -> None:
    def distance(**options: float) -> float:
        model = apply(Regularize(epochs=8, **options), bench.fresh(), bench).model
        kernel = kernels(model)["dense_2/kernel"].numpy()
        return float(np.square(kernel.T @ kernel - np.eye(24)).sum())

    assert distance(orthogonal=0.05) < 0.2 * distance()


@pytest.mark.slow
def test_a_focal_loss_cares_less_about_what_is_right_already(bench: Bench) -> None:
    def confidence(**options: float) -> float:
        model = apply(Regularize(epochs=10, **options), bench.fresh(), bench).model
        logits = logits_of(model, bench.data)
        assert np.mean(logits.argmax(-1) == bench.data.test.y) > 0.9
        return float(tf.nn.softmax(logits).numpy().max(-1).mean())

    plain = confidence()
    assert confidence(focal_gamma=3.0) < plain - 0.05
    assert confidence(confidence_penalty=0.5) < plain - 0.05


@pytest.mark.slow
def test_mixing_calibrates_a_network_that_would_be_too_sure(bench: Bench) -> None:
    """On samples noisier than those of the training."""
    x = np.repeat(bench.data.normalization.numpy(bench.data.test.x), 10, axis=0)
    y = np.repeat(bench.data.test.y, 10)
    x += np.random.default_rng(6).normal(0, 0.3, x.shape)

    def error(*modifiers: Modifier) -> float:
        model = bench.fresh().model
        trained(model, bench.data, *modifiers, best_weights=False, epochs=20, steps_per_call=50)
        return expected_calibration_error(model.predict(x, verbose=0), y)

    plain = error()
    assert error(mixing(mixup=1.0, cutmix=0.0)) < 0.6 * plain
    assert error(mixing(mixup=0.0, cutmix=1.0)) < 0.8 * plain


def test_cutmix_labels_go_by_the_pixels() -> None:
    x = tf.concat([tf.zeros((1, 8, 8, 1)), tf.ones((1, 8, 8, 1))], axis=0)
    y = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    transform = mixing(0.0, 1.0).transform_batch
    assert transform is not None
    shares = set()
    for number in range(20):
        mixed, labels = transform(x, y, tf.constant([3, number]))
        np.testing.assert_allclose(tf.reduce_mean(mixed, axis=(1, 2, 3)), labels[:, 1], atol=1e-6)
        assert set(np.unique(mixed)) <= {0.0, 1.0}
        shares.add(round(float(labels[0, 1]), 3))
    assert len(shares) > 10


def sharpness(model: keras.Model, data: Dataset) -> float:
    """How much the training loss rises by a step of 0.3 straight uphill."""
    x, y = (tf.constant(each) for each in next(data.normalized_batches(data.train, 200)))
    with tf.GradientTape() as tape:
        loss = task_loss(CLASSIFICATION, model, x, y)
    uphill = tape.gradient(loss, [v.value for v in model.trainable_variables])
    length = float(tf.linalg.global_norm(uphill))
    own = model.get_weights()
    model.set_weights([w + 0.3 * g.numpy() / length for w, g in zip(own, uphill, strict=True)])
    risen = float(task_loss(CLASSIFICATION, model, x, y) - loss)
    model.set_weights(own)
    return risen


def test_sam_ends_where_the_loss_is_flat(bench: Bench) -> None:
    bench.data = noisy(bench.data)
    plain = apply(Regularize(epochs=12), bench.fresh(), bench)
    flat = apply(Regularize(epochs=12, sam_radius=0.1), bench.fresh(), bench)
    assert sharpness(flat.model, bench.data) < 0.5 * sharpness(plain.model, bench.data)


def trained(model: keras.Model, data: Dataset, *modifiers, **settings) -> None:
    options = {"epochs": 2, "batch_size": 20, "learning_rate": 0.01, "steps_per_call": 1}
    fit(
        model, data, TrainSettings(**options | settings), target=cpu.build(), seed=0,
        modifiers=modifiers, observer=SilentReporter(), stage="stage",
    )  # fmt: skip


class Watch:
    """Remembers the weights after each step."""

    def __init__(self, model: keras.Model) -> None:
        self.seen: list[list[np.ndarray]] = []
        self.modifier = Modifier(
            "watch", before_steps=lambda step, total: self.seen.append(model.get_weights())
        )


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_what_is_kept_is_the_average_of_the_weights_along_the_way(
    kind: str, blobs_data: Dataset
) -> None:
    model = convolutional()
    watch = Watch(model)
    with cpu.build().strategy.scope():
        average = moving_average(model, 0.9) if kind == "ema" else stochastic_average(model, 0.5)
    trained(model, blobs_data, average, watch.modifier, best_weights=False)
    assert len(watch.seen) == 21  # before each of 20 steps, and after the last one
    if kind == "ema":
        expected = watch.seen[0]
        for step, weights in enumerate(watch.seen[1:], start=1):
            decay = min(0.9, (1 + step) / (10 + step))
            expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    else:
        expected = [np.mean(each, axis=0) for each in zip(*watch.seen[11:], strict=True)]
    for kept, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(kept, wanted, atol=1e-5)
    assert np.abs(model.get_weights()[0] - watch.seen[-1][0]).max() > 1e-3


def test_swa_estimates_the_statistics_of_its_mean_anew(bench: Bench) -> None:
    stage = Regularize(epochs=4, averaging="swa", swa_start=0.5, start="current")
    network = apply(stage, Network(convolutional(normalize=True)), bench)
    assert any("re-calibrated" in note for note in bench.notes)
    norm = network.model.get_layer("bn")
    part = keras.Model(network.model.inputs, network.model.get_layer("conv_1").output)
    values = part.predict(bench.data.normalization.numpy(bench.data.train.x), verbose=0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), values.mean(axis=(0, 1, 2)), atol=1e-3)


def test_an_average_keeps_the_zeros_of_a_pruned_network(bench: Bench) -> None:
    network = apply(Prune(sparsity=0.7, epochs=2), bench.fresh(), bench)
    zeros = [kernel.numpy() == 0 for kernel in kernels(network.model).values()]
    averaged = apply(Regularize(epochs=2, averaging="ema", start="current"), network, bench)
    for kernel, zero in zip(kernels(averaged.model).values(), zeros, strict=True):
        np.testing.assert_array_equal(kernel.numpy()[zero], 0)


def test_drop_block_drops_squares_and_nothing_at_inference(bench: Bench) -> None:
    stage = Regularize(epochs=1, drop_block=0.3, drop_block_size=2, start="current")
    network = apply(stage, Network(convolutional()), bench)
    layer = network.model.get_layer("conv_2_drop_block")
    x = np.ones((200, 9, 9, 4), np.float32)
    np.testing.assert_array_equal(layer(x, training=False), x)
    dropped = layer(x, training=True).numpy()
    zero = dropped == 0
    assert 0.2 < zero.mean() < 0.4
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    # Every dropped value is part of a dropped square of 2x2.
    square = zero[:, :-1, :-1] & zero[:, 1:, :-1] & zero[:, :-1, 1:] & zero[:, 1:, 1:]
    covered = np.zeros_like(zero)
    for dy in (0, 1):
        for dx in (0, 1):
            covered[:, dy : dy + 8, dx : dx + 8] |= square
    np.testing.assert_array_equal(covered, zero)
    assert any("before conv_2" in note for note in bench.notes)


def test_spatial_dropout_stands_before_convolutions_once(bench: Bench) -> None:
    network = Network(convolutional())
    for rate in (0.1, 0.4):
        stage = Regularize(epochs=1, spatial_dropout=rate, start="current")
        network = apply(stage, network, bench)
    found = [
        (layer.name, layer.rate)
        for layer in network.model.layers
        if isinstance(layer, keras.layers.SpatialDropout2D)
    ]
    assert found == [("conv_2_spatial_dropout", 0.4)]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Regularize(start="scratch"), "put it first"),
        (Regularize(drop_block=0.1), "needs a 2-D convolution"),
        (Regularize(cutmix=1.0), "cutmix needs images"),
    ],
)
def test_what_cannot_work_is_refused_before_training(stage: Regularize, message: str) -> None:
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    before = Preflight("regularize", Network(model), is_first=False, build=lambda arch: None)
    with pytest.raises(InputError, match=message):
        stage.plan(before)
