"""What each stage does to a network, with real trainings of a tiny one."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from stage_bench import Bench, apply, build

from netopt_cli.contracts import ArchBuilder
from netopt_cli.dataset import Dataset
from netopt_cli.graph.kernels import kernels
from netopt_cli.opt.distill import Distill
from netopt_cli.opt.quantize_friendly import QuantizeFriendly
from netopt_cli.opt.regularize import Regularize


def logits_of(model: keras.Model, data: Dataset) -> np.ndarray:
    return model.predict(data.normalization.numpy(data.test.x), verbose=0)


def test_distillation_brings_the_student_to_the_teacher(bench: Bench) -> None:
    teacher: list[keras.Model] = []
    original = bench.teacher

    def remember(arch: ArchBuilder, **how: Any) -> keras.Model:
        teacher.append(original(arch, **how))
        return teacher[-1]

    bench.teacher = remember
    stage = Distill(teacher=build, temperature=2.0, student_loss_weight=0.0, epochs=12)
    distilled = apply(stage, bench.fresh(), bench)
    alone = bench.fit(bench.fresh(), epochs=12)
    assert bench.restarts[1] is True

    def softened(model: keras.Model) -> np.ndarray:
        return tf.nn.softmax(logits_of(model, bench.data) / 2.0).numpy()

    target = softened(teacher[0])
    with_teacher = np.abs(softened(distilled.model) - target).mean()
    without = np.abs(softened(alone.model) - target).mean()
    assert with_teacher < 0.5 * without


def test_a_teacher_of_zero_epochs_is_taken_as_it_is(bench: Bench) -> None:
    apply(Distill(teacher=build, teacher_epochs=0, epochs=1), bench.fresh(), bench)
    assert len(bench.results) == 1


def test_l2_shrinks_and_l1_thins_the_weights(bench: Bench) -> None:
    def norms(**options: float) -> tuple[float, float]:
        stage = Regularize(epochs=8, **options)
        found = kernels(apply(stage, bench.fresh(), bench).model).values()
        weights = np.concatenate([v.numpy().ravel() for v in found])
        return float(np.sum(weights**2)), float(np.mean(np.abs(weights) < 1e-2))

    plain, shrunk, thinned = norms(), norms(l2=0.01), norms(l1=0.01)
    assert shrunk[0] < 0.7 * plain[0]
    assert thinned[1] > 2 * plain[1]


@pytest.mark.slow
def test_softened_labels_keep_the_network_less_sure(bench: Bench) -> None:
    def confidence(**options: float) -> float:
        model = apply(Regularize(epochs=10, **options), bench.fresh(), bench).model
        return float(tf.nn.softmax(logits_of(model, bench.data)).numpy().max(-1).mean())

    plain = confidence()
    assert confidence(label_smoothing=0.3) < plain - 0.05
    assert confidence(mixup=1.0) < plain - 0.02


def test_regularize_passes_its_decay_on_and_adds_dropout(bench: Bench) -> None:
    network = apply(Regularize(weight_decay=0.1, dropout=0.4, epochs=1), bench.fresh(), bench)
    assert bench.weight_decays == [0.1]
    rates = [layer.rate for layer in network.model.layers if hasattr(layer, "rate")]
    assert rates == [0.4]
    assert bench.notes


def test_quantize_friendly_bounds_activations_and_retrains(bench: Bench) -> None:
    network = apply(QuantizeFriendly(), bench.fresh(), bench)
    activations = {layer.activation.__name__ for layer in network.model.layers[2:-1]}
    assert "relu" not in activations
    assert bench.restarts == [True] and len(bench.results[0].epochs) == bench.epochs
    assert any("dense_1" in note for note in bench.notes)
