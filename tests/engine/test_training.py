"""The training loop: what it computes, not how fast."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import FitResult, fit
from netopt_cli.errors import ConfigError, DivergedError, InputError
from netopt_cli.progress import SilentReporter
from netopt_cli.target import cpu


@pytest.fixture
def data(blobs_data: Dataset) -> Dataset:
    return blobs_data


def network(seed: int = 0, normalize: bool = False) -> keras.Model:
    keras.utils.set_random_seed(seed)
    with cpu.build().strategy.scope():
        layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(16)]
        layers += [keras.layers.BatchNormalization()] if normalize else []
        layers += [keras.layers.ReLU(), keras.layers.Dropout(0.1), keras.layers.Dense(3)]
        return keras.Sequential(layers)


def train(model: keras.Model, data: Dataset, **options: object) -> FitResult:
    arguments = {"target": cpu.build(), "seed": 0, "observer": SilentReporter(), "stage": "test"}
    arguments["modifiers"] = options.pop("modifiers", ())
    settings = {"epochs": 3, "batch_size": 20, "learning_rate": 0.01, "steps_per_call": 4}
    return fit(model, data, TrainSettings(**settings | options), **arguments)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_learns(data: Dataset, optimizer: str) -> None:
    rate = {"sgd": 0.1, "adagrad": 0.1}.get(optimizer, 0.01)
    result = train(network(), data, optimizer=optimizer, learning_rate=rate, epochs=8)
    assert result.val_score > 0.9
    assert [row.epoch for row in result.epochs] == list(range(1, 9))


def test_the_same_seed_gives_the_same_weights(data: Dataset) -> None:
    first, second = network(normalize=True), network(normalize=True)
    train(first, data)
    train(second, data)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_a_call_do_not_change_the_result(data: Dataset) -> None:
    weights = []
    for steps in (1, 7):
        model = network()
        train(model, data, steps_per_call=steps)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_modifiers_combine_in_one_step(data: Dataset) -> None:
    model = network()
    kernel = model.trainable_variables[0]
    told: list[tuple[int, int]] = []

    def soften(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x, 0.5 * y + 0.5 / 3

    def penalty(step: Forward) -> tf.Tensor:
        return 100.0 + 0.0 * tf.reduce_sum(step.logits)

    modifiers = [
        Modifier("labels", transform_batch=soften, task_loss_weight=0.0),
        Modifier("penalty", extra_loss=penalty),
        Modifier("clamp", constrain=lambda: kernel.assign(tf.zeros_like(kernel.value))),
        Modifier("host", before_steps=lambda step, total: told.append((step, total))),
    ]
    result = train(model, data, epochs=1, modifiers=modifiers)
    assert told == [(step, 10) for step in range(11)]
    assert result.epochs[0].loss == pytest.approx(100.0)
    assert not kernel.numpy().any()


@pytest.mark.parametrize("substituted", [False, True])
def test_each_modifier_gets_the_tensors_it_taps(data: Dataset, substituted: bool) -> None:
    model = network(normalize=True)
    hidden, normalized = (
        next(layer.output for layer in model.layers if isinstance(layer, kind))
        for kind in (keras.layers.Dense, keras.layers.BatchNormalization)
    )
    kernel = model.trainable_variables[0]

    def shrink(step: Forward) -> tf.Tensor:
        (value,) = step.taps
        assert value.shape[-1] == 16 and step.logits.shape[-1] == 3
        return 10.0 * tf.reduce_mean(tf.square(value))

    def nothing(step: Forward) -> tf.Tensor:
        assert len(step.taps) == 2
        return 0.0 * tf.reduce_sum(step.taps[1])

    modifiers = [
        Modifier("shrink", extra_loss=shrink, taps=(hidden,), task_loss_weight=0.0),
        Modifier("both", extra_loss=nothing, taps=(hidden, normalized)),
    ]
    if substituted:
        modifiers.append(Modifier("half", substitute=lambda seed: [(kernel, 0.5 * kernel.value)]))
    hidden_of = keras.Model(model.inputs, hidden)
    x, _ = next(data.normalized_batches(data.train, 100))
    before = np.square(hidden_of(x)).mean()
    train(model, data, modifiers=modifiers)
    assert np.square(hidden_of(x)).mean() < 0.5 * before


def test_averages_are_validated_and_kept_in_place_of_the_weights(data: Dataset) -> None:
    model = network()
    average = [keras.Variable(tf.zeros_like(w.value), trainable=False) for w in model.weights]
    averages = tuple(zip(model.weights, average, strict=True))
    result = train(model, data, modifiers=[Modifier("zeros", averages=averages)])
    assert result.epochs[-1].val_loss == pytest.approx(np.log(3))  # of logits that are all zero
    assert result.epochs[-1].loss < 0.9 * np.log(3)  # while the weights themselves were trained
    assert not any(weight.any() for weight in model.get_weights())


@pytest.mark.parametrize("substituted", [False, True])
def test_the_gradient_is_taken_uphill(data: Dataset, substituted: bool) -> None:
    radius, factor = 0.5, 0.3 if substituted else 1.0
    model = network()
    weight = model.trainable_variables[-1]
    modifiers = [
        Modifier(
            "square",
            extra_loss=lambda step: tf.reduce_sum(tf.square(factor * weight.value)),
            task_loss_weight=0.0,
            sharpness_radius=radius,
        )
    ]
    if substituted:
        other = model.trainable_variables[0]
        modifiers.append(Modifier("half", substitute=lambda seed: [(other, 0.5 * other.value)]))
    start = np.array([1.0, 2.0, 3.0])
    weight.assign(start)
    gradient = 2 * factor**2 * start  # of the loss |factor * w|²
    uphill = start + radius * gradient / np.linalg.norm(gradient)
    train(model, data, modifiers=modifiers, epochs=1, batch_size=200, optimizer="sgd",
          momentum=0.0, learning_rate=0.1, schedule="constant")  # fmt: skip
    np.testing.assert_allclose(weight.numpy(), start - 0.1 * 2 * factor**2 * uphill, rtol=1e-4)


def test_a_batch_transform_reaches_the_loss(data: Dataset) -> None:
    def blank(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros_like(x), tf.fill(tf.shape(y), 1 / 3)

    result = train(network(), data, modifiers=[Modifier("blank", transform_batch=blank)])
    assert result.epochs[-1].loss == pytest.approx(np.log(3), abs=0.02)


def test_batch_transforms_get_a_new_seed_each_step(data: Dataset) -> None:
    seeds = tf.Variable(tf.zeros((10, 2), tf.int32))
    count = tf.Variable(0)

    def note(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seeds.scatter_nd_update([[count]], [seed])
        count.assign_add(1)
        return x, y

    train(network(), data, epochs=1, modifiers=[Modifier("note", transform_batch=note)])
    assert len({tuple(seed) for seed in seeds.numpy()}) == 10


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_weights(data: Dataset) -> None:
    model = network()
    before = model.get_weights()
    broken = itertools.count()

    def spoil(step: int, total: int) -> None:
        if next(broken) == 4:
            model.trainable_variables[0].assign(np.full((16, 16), np.inf, np.float32))

    with pytest.raises(DivergedError, match=r"not a finite number at step 5 of 'test' \(epoch 1\)"):
        train(model, data, modifiers=[Modifier("spoil", before_steps=spoil)])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_growing_loss_is_divergence(data: Dataset) -> None:
    def blow_up(step: int, total: int) -> None:
        head.assign(head.value * 5.0)

    model = network()
    head = model.trainable_variables[-2]
    with pytest.raises(DivergedError, match=r"loss grew to .* a learning rate of 0\.01"):
        train(model, data, steps_per_call=10, modifiers=[Modifier("up", before_steps=blow_up)])


def test_early_stopping_ends_with_the_best_weights(data: Dataset) -> None:
    model = network()
    result = train(model, data, epochs=40, early_stopping_epochs=2, learning_rate=0.05)
    assert len(result.epochs) == result.kept_epoch + 2
    assert result.val_score == max(row.val_score for row in result.epochs)
    logits = model.predict(data.normalization.numpy(data.validation.x), verbose=0)
    assert np.mean(logits.argmax(-1) == data.validation.y) == pytest.approx(result.val_score)


def test_weights_of_an_unsettled_schedule_are_never_the_best(data: Dataset) -> None:
    result = train(network(), data, epochs=4, modifiers=[Modifier("late", settles_at=0.75)])
    assert result.kept_epoch >= 3


def test_clipping_bounds_the_update(data: Dataset) -> None:
    model = network()
    before = [v.numpy() for v in model.trainable_variables]
    train(
        model, data, optimizer="sgd", momentum=0.0, schedule="constant", learning_rate=1.0,
        clip_norm=0.01, epochs=1, best_weights=False,
    )  # fmt: skip
    moved = [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
    assert 0 < np.sqrt(sum(np.sum(m**2) for m in moved)) <= 10 * 0.01 + 1e-6


def test_decoupled_decay_spares_the_biases(data: Dataset) -> None:
    model = network()
    model.trainable_variables[1].assign(np.ones(16))
    silent = Modifier("silent", task_loss_weight=0.0)
    before = model.trainable_variables[0].numpy()
    train(
        model, data, optimizer="sgd", momentum=0.0, schedule="constant", learning_rate=0.1,
        weight_decay=0.5, epochs=1, best_weights=False, modifiers=[silent],
    )  # fmt: skip
    np.testing.assert_allclose(
        model.trainable_variables[0].numpy(), before * (1 - 0.1 * 0.5) ** 10, rtol=1e-4
    )
    np.testing.assert_array_equal(model.trainable_variables[1].numpy(), np.ones(16))


def test_further_networks_decay_as_the_model_does_and_variables_do_not(data: Dataset) -> None:
    model, peer = network(), network(seed=1)
    gate = keras.Variable(np.ones((2, 2), np.float32))
    peer.trainable_variables[1].assign(np.ones(16))
    before = peer.trainable_variables[0].numpy()
    silent = Modifier(
        "silent", task_loss_weight=0.0, variables=(gate,), networks=(peer,),
        extra_loss=lambda step: 0.0 * (tf.reduce_sum(peer(step.x)) + tf.reduce_sum(gate.value)),
    )  # fmt: skip
    result = train(
        model, data, optimizer="sgd", momentum=0.0, schedule="constant", learning_rate=0.1,
        weight_decay=0.5, epochs=1, modifiers=[silent],
    )  # fmt: skip
    kernel, bias = peer.trainable_variables[:2]
    np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.1 * 0.5) ** 10, rtol=1e-4)
    np.testing.assert_array_equal(bias.numpy(), np.ones(16))
    np.testing.assert_array_equal(gate.numpy(), np.ones((2, 2)))
    assert result.trainable_params == model.count_params() + peer.count_params() + 4


def test_mixed_precision_leaves_a_float32_network(data: Dataset) -> None:
    model = network(normalize=True)
    result = train(model, data, mixed_precision="bfloat16", epochs=8)
    assert result.val_score > 0.9
    assert model(np.zeros((1, 4, 4, 1), np.float32)).dtype == tf.float32
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_a_stream_from_disk_trains_like_the_arrays(data: Dataset, tmp_path) -> None:
    paths = []
    for index, image in enumerate(data.train.x):
        path = tmp_path / f"{index:04}.png"
        path.write_bytes(tf.io.encode_png(image).numpy())
        paths.append(str(path))
    stream = FileSource(np.array(paths), data.train.y, (4, 4, 1))
    losses = [
        [row.loss for row in train(network(), Dataset(**vars(data) | {"train": split})).epochs]
        for split in (data.train, stream)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_split_smaller_than_the_batch_is_one_batch(data: Dataset) -> None:
    small = Dataset(**vars(data) | {"train": data.train.take(np.arange(7))})
    result = train(network(), small, epochs=2, batch_size=64)
    assert len(result.epochs) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_at": (0.8, 0.5)}, "step_at must be increasing"),
        ({"nesterov": True, "optimizer": "adam"}, "train.nesterov works with train.optimizer=sgd"),
    ],
)
def test_settings_that_contradict_each_other(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**options)


def test_a_substituted_weight_counts_and_its_own_variables_learn(data: Dataset) -> None:
    """Gates, half open at first, on the weights of a layer; the rest is as always."""
    model = network(normalize=True)
    before = [v.numpy() for v in model.variables]
    kernel = model.trainable_variables[0]
    with cpu.build().strategy.scope():
        gate = keras.Variable(np.full(kernel.shape, 0.5, np.float32), name="gate")
    modifier = Modifier(
        "gate", variables=(gate,), substitute=lambda seed: [(kernel, kernel.value * gate.value)]
    )
    train(model, data, modifiers=[modifier], epochs=1)
    assert np.abs(gate.numpy() - 0.5).max() > 0
    moved = {
        variable.path.rpartition("/")[2]
        for variable, old in zip(model.variables, before, strict=True)
        if not np.array_equal(variable.numpy(), old)
    }
    assert moved >= {"kernel", "gamma", "moving_mean", "moving_variance", "seed_generator_state"}


def test_two_substitutes_of_one_weight_are_refused(data: Dataset) -> None:
    model = network()
    kernel = model.trainable_variables[0]
    twice = [Modifier(n, substitute=lambda seed: [(kernel, kernel.value * 1.0)]) for n in "ab"]
    with pytest.raises(InputError, match="in place of one weight: a, b"):
        train(model, data, modifiers=twice, epochs=1)
