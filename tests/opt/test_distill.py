"""Distillation: what the student learns, from whom and from which samples."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import CommandLine
from stage_bench import Bench, apply, build

from netopt_cli.contracts import Forward, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.graph.teaching import Lesson
from netopt_cli.opt.amalgamate import Amalgamate
from netopt_cli.opt.born_again import BornAgain
from netopt_cli.opt.distill import Distill
from netopt_cli.opt.mutual import Mutual
from netopt_cli.opt.qat import Qat
from netopt_cli.target import cpu


def convolutional(shape: tuple[int, ...], classes: int, filters: int = 4) -> keras.Model:
    inputs = keras.Input(shape, name="input")
    x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name="conv")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(10, activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="small")


def wide(shape: tuple[int, ...], classes: int) -> keras.Model:
    return convolutional(shape, classes, filters=12)


def logits_of(model: keras.Model, data: Dataset) -> np.ndarray:
    return model.predict(data.normalization.numpy(data.test.x), verbose=0)


def divergence(teacher: keras.Model, student: keras.Model, data: Dataset) -> float:
    """KL of what the teacher says from what the student says, at temperature 4 (nats)."""
    p, q = (keras.ops.softmax(logits_of(model, data) / 4).numpy() for model in (teacher, student))
    return float(np.sum(p * np.log(p / q), axis=-1).mean())


def preflight(bench: Bench, network: Network) -> Preflight:
    return Preflight("distill", network, True, bench.build)


class Remembering(Bench):
    """A bench that keeps the teachers it has given."""

    def __init__(self, data: Dataset, **options: Any) -> None:
        super().__init__(data, **options)
        self.teachers: list[keras.Model] = []
        self.trained_on: list[Dataset | None] = []

    def teacher(self, arch: Any, **how: Any) -> keras.Model:
        self.teachers.append(super().teacher(arch, **how))
        return self.teachers[-1]

    def fit(self, network: Network, **how: Any) -> Network:
        self.trained_on.append(how.get("data"))
        return super().fit(network, **how)


@pytest.mark.parametrize(
    "method", ["features", pytest.param("contrastive", marks=pytest.mark.slow)]
)
def test_projections_are_trained_with_the_student(method: str, bench: Bench) -> None:
    teacher = bench.fit(bench.build(wide), epochs=4).model
    student = bench.build(convolutional).model
    lesson = Lesson(method=method, student_loss_weight=0.0, logits_weight=0.0)
    pairs = lesson.pairs(student, teacher, where="layers")
    with cpu.build().strategy.scope():
        modifier = lesson.modifier([teacher], pairs)
    x, _ = next(bench.data.normalized_batches(bench.data.test, 20))

    def loss() -> float:
        taps = (keras.Model(student.inputs, modifier.taps[0])(x),)
        nothing = tf.zeros((20, 3))
        return float(modifier.extra_loss(Forward(tf.constant(x), nothing, nothing, taps, nothing)))

    before, head = loss(), student.get_layer("logits").get_weights()
    last = Modifier("the last epoch counts", settles_at=1.0)
    bench.fit(Network(student), epochs=8, modifiers=[modifier, last])
    assert loss() < 0.7 * before
    np.testing.assert_array_equal(head[0], student.get_layer("logits").get_weights()[0])


@pytest.mark.parametrize(
    "method",
    ["attention", *(pytest.param(m, marks=pytest.mark.slow) for m in ("relational", "similarity"))],
)
def test_each_method_brings_its_features_nearer_to_the_teachers(
    method: str, blobs_data: Dataset
) -> None:
    """Its own loss is lower than that of a student that was taught by logits alone."""
    found = {}
    for chosen in ("logits", method):
        bench = Remembering(blobs_data)
        stage = Distill(teacher=wide, method=chosen, epochs=6, start="current", feature_weight=20.0)
        network = apply(stage, bench.build(convolutional), bench)
        found[chosen] = measured(method, network.model, bench.teachers[0], blobs_data)
    assert found[method] < 0.8 * found["logits"]


def measured(method: str, student: keras.Model, teacher: keras.Model, data: Dataset) -> float:
    """A loss of the method's kind on the test split."""
    layer = "conv" if method == "attention" else "hidden"
    x = data.normalization.numpy(data.test.x)
    own, shown = (
        keras.Model(model.inputs, model.get_layer(layer).output)(x).numpy()
        for model in (student, teacher)
    )
    if method == "attention":
        maps = [np.mean(z**2, axis=-1).reshape(len(z), -1) for z in (own, shown)]
        a, b = (m / np.linalg.norm(m, axis=-1, keepdims=True) for m in maps)
        return float(np.mean((a - b) ** 2))
    if method == "similarity":
        grams = [z @ z.T for z in (own, shown)]
        a, b = (g / np.linalg.norm(g, axis=-1, keepdims=True) for g in grams)
        return float(np.mean((a - b) ** 2))
    distances = [np.linalg.norm(z[:, None] - z[None], axis=-1) for z in (own, shown)]
    a, b = (d / d.mean() for d in distances)
    return float(np.mean((a - b) ** 2))


@pytest.mark.slow
def test_dkd_brings_the_student_to_the_teacher(blobs_data: Dataset) -> None:
    bench = Remembering(blobs_data)
    alone = bench.fit(bench.fresh(), epochs=12)
    stage = Distill(
        teacher=build, method="dkd", temperature=2.0, student_loss_weight=0.0, epochs=12
    )
    taught = apply(stage, bench.fresh(), bench)
    teacher = bench.teachers[0]
    assert divergence(teacher, taught.model, blobs_data) < 0.5 * divergence(
        teacher, alone.model, blobs_data
    )


@pytest.mark.slow
def test_unlabeled_means_that_no_label_is_read(blobs_data: Dataset) -> None:
    """A student of shuffled labels becomes the very same network."""
    shuffled = np.random.default_rng(0).permutation(blobs_data.train.y)
    confused = replace(blobs_data, train=replace(blobs_data.train, y=shuffled))
    weights = []
    for data in (blobs_data, confused):
        bench = Bench(data)
        taught = bench.fit(bench.build(build), epochs=4, data=blobs_data).model
        bench.teacher = lambda arch, taught=taught, **how: taught
        stage = Distill(teacher=build, unlabeled=True, epochs=1, combine="per_sample")
        weights.append(apply(stage, bench.fresh(), bench).model.get_weights())
    for own, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(own, other)


def test_the_student_of_a_transfer_set_gets_few_samples_and_never_a_class(
    blobs_data: Dataset,
) -> None:
    bench = Remembering(blobs_data)
    stage = Distill(teacher=build, samples_per_class=7, missing_classes=(1,), epochs=1)
    apply(stage, bench.fresh(), bench)
    of_teacher, of_student = bench.trained_on
    assert (of_teacher or blobs_data).train is blobs_data.train
    assert np.bincount(of_student.train.y, minlength=3).tolist() == [7, 0, 7]
    assert of_student.validation is blobs_data.validation


@pytest.mark.slow
def test_a_class_that_was_never_shown_is_recalled_after_its_bias_is_set(
    blobs_data: Dataset,
) -> None:
    def recalls(**options: Any) -> tuple[float, float, Bench]:
        bench = Bench(blobs_data, epochs=10)
        stage = Distill(teacher=build, missing_classes=(2,), unlabeled=True, epochs=20, **options)
        said = logits_of(apply(stage, bench.fresh(), bench).model, blobs_data).argmax(-1)
        y = blobs_data.test.y
        return float(np.mean(said[y == 2] == 2)), float(np.mean(said == y)), bench

    before, _, _ = recalls()
    after, accuracy, bench = recalls(calibrate_bias=True)
    assert before < 0.5 and after > 0.9 and accuracy > 0.9
    assert any("class c, not in the transfer set: bias raised" in note for note in bench.notes)


@pytest.mark.slow
def test_a_worse_teacher_is_said_and_a_better_one_is_not(bench: Bench) -> None:
    trained = bench.fit(bench.fresh(), epochs=6)
    apply(Distill(teacher=build, teacher_epochs=0, epochs=1), trained, bench)
    assert any(note.startswith("warning: teacher tiny is worse") for note in bench.notes)
    bench.notes.clear()
    apply(Distill(teacher=build, teacher_epochs=8, epochs=1), bench.fresh(), bench)
    assert not any("warning" in note for note in bench.notes)


def untrained(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Sure of the first class, whatever it sees."""
    model = build(shape, classes)
    model.get_layer("logits").bias.assign([9.0, 0.0, 0.0])
    return model


@pytest.mark.parametrize(
    ("combine", "weights", "best"),
    [
        pytest.param("weighted", (1.0, 1e-6), 0, marks=pytest.mark.slow),
        ("weighted", (1e-6, 1.0), 1),
        ("per_sample", (), 0),
    ],
)
def test_several_teachers_are_heard_by_their_weights(
    combine: str, weights: tuple[float, ...], best: int, blobs_data: Dataset
) -> None:
    bench = Bench(blobs_data)
    good = bench.fit(bench.build(build), epochs=8).model
    bad = bench.build(untrained).model
    given = iter([good, bad])
    bench.teacher = lambda arch, **how: next(given)
    stage = Distill(
        teacher=build, teachers={"second": untrained}, combine=combine, teacher_weights=weights,
        epochs=8, student_loss_weight=0.01,
    )  # fmt: skip
    student = apply(stage, bench.fresh(), bench).model
    distances = [divergence(teacher, student, blobs_data) for teacher in (good, bad)]
    assert int(np.argmin(distances)) == best


@pytest.mark.slow
def test_qat_while_distilling_in_one_stage(blobs_data: Dataset) -> None:
    def rounded(*, is_taught: bool) -> float:
        bench = Remembering(blobs_data)
        network = bench.fit(bench.fresh(), epochs=12)
        bench.is_first = False
        stage = Distill(teacher=build, teacher_epochs=4, student_loss_weight=0.0, epochs=0,
                        keep_teacher=True)  # fmt: skip
        taught = apply(stage, network, bench)
        assert taught.model is network.model, "it trains nothing of its own"
        if not is_taught:
            taught = replace(taught, keeps=())
        after = apply(Qat(epochs=4, learning_rate=0.01), taught, bench)
        assert after.recipe.scheme == "int8"
        return divergence(bench.teachers[0], after.model, blobs_data)

    assert rounded(is_taught=True) < 0.5 * rounded(is_taught=False)


@pytest.mark.slow
def test_born_again_generations_learn_from_the_one_before(bench: Bench) -> None:
    first = bench.fit(bench.fresh(), epochs=6)
    start = first.model.get_weights()
    last = apply(BornAgain(generations=2, epochs=6, student_loss_weight=0.0), first, bench)
    assert bench.restarts[1:] == [True, True]
    assert last.model is not first.model
    for old, new in zip(start, first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    alone = bench.fit(bench.fresh(), epochs=6)
    assert divergence(first.model, last.model, bench.data) < 0.5 * divergence(
        first.model, bench.build(build).model, bench.data
    )
    assert bench.evaluate(last.model) >= bench.evaluate(alone.model) - 0.1
    assert [note[:13] for note in bench.notes] == ["generation 1:", "generation 2:"]


@pytest.mark.slow
def test_peers_train_too_and_agree_with_the_network(blobs_data: Dataset) -> None:
    peers: list[keras.Model] = []

    class Watching(Bench):
        def build(self, arch: Any) -> Network:
            network = super().build(arch)
            peers.append(network.model)
            return network

    def apart(weight: float) -> float:
        peers.clear()
        bench = Watching(blobs_data)
        network = apply(Mutual(peer=wide, weight=weight, epochs=6), bench.fresh(), bench)
        assert bench.evaluate(peers[-1]) > 0.8, "the peer has learned"
        assert bench.notes == [note for note in bench.notes if note.startswith("peer 1, small")]
        return divergence(peers[-1], network.model, blobs_data)

    assert apart(5.0) < 0.6 * apart(1e-6)


def test_experts_are_made_for_the_samples_of_the_run(netopt: CommandLine) -> None:
    films = ["fine and moving,fine", "flat and tired,flat", "dark and quiet,dark", "loud,loud"]
    (netopt.folder / "films.csv").write_text("\n".join(["text,label", *films * 20]))
    words = ["train", "arch=bag_of_embeddings", "data=text_csv", "data.path=films.csv",
             "opt=amalgamate", "--dry-run"]  # fmt: skip
    done = netopt(*words, "opt.amalgamate.teacher=text_cnn")
    assert done.returncode == 0, done.stderr
    refused = netopt(*words, "opt.amalgamate.teacher=mlp")
    assert refused.returncode == 2 and "mlp needs samples of values" in refused.stderr


@pytest.mark.slow
def test_experts_of_some_classes_become_one_student_of_all(blobs_data: Dataset) -> None:
    bench = Remembering(blobs_data)
    tasks = {"ab": (0, 1), "cb": (2, 1)}
    student = apply(Amalgamate(teacher=build, tasks=tasks, epochs=8), bench.fresh(), bench).model
    for data, expert, classes in zip(
        bench.trained_on, bench.teachers, tasks.values(), strict=False
    ):
        assert data.classes == 2 and set(np.unique(data.train.y)) == {0, 1}
        assert data.class_names == tuple("abc"[label] for label in classes)
        of_task = np.isin(blobs_data.test.y, classes)
        head = logits_of(student, blobs_data)[of_task][:, list(classes)]
        said = logits_of(expert, blobs_data)[of_task]
        agree = np.mean(head.argmax(-1) == said.argmax(-1))
        assert agree > 0.95
    assert bench.evaluate(student) > 0.9


def of_shape(size: int) -> Any:
    return lambda shape, classes: build((size, size, 1), classes)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Distill(teacher=lambda shape, classes: build(shape, 7)), ["3 classes", "(7,)"]),
        (Distill(teacher=of_shape(5)), ["(4, 4, 1)", "(5, 5, 1)"]),
        (
            Distill(teacher=build, teachers={"b": lambda shape, classes: build(shape, 7)}),
            ["opt.distill.teachers.b", "(7,)"],
        ),
        (Distill(teacher=build, method="attention"), ["finds no pair", "dense_1 24"]),
        (Distill(teacher=wide, method="features", layers={"dense_1": "conv"}), ["24", "4x4x12"]),
        (Distill(teacher=build, missing_classes=(3,)), ["0 … 2", "3"]),
        (Distill(teacher=build, missing_classes=(0, 1, 2)), ["leaves no class"]),
        (Amalgamate(teacher=build, tasks={"x": (0, 5)}), ["tasks.x", "[0, 5]"]),
        (Amalgamate(teacher=build, tasks={"x": (1,)}), ["two classes or more"]),
        (
            Amalgamate(teacher=lambda shape, classes: build(shape, 3), tasks={"x": (0, 1)}),
            ["logit for each of its 2 classes", "with 3"],
        ),
        (
            Amalgamate(teacher=build, tasks={"left": (0, 1)}, teachers={"lefd": build}),
            ["Did you mean 'left'?"],
        ),
    ],
)
def test_what_cannot_be_taught_is_refused_before_training(
    stage: Any, words: list[str], bench: Bench
) -> None:
    with pytest.raises(InputError) as error:
        stage.plan(preflight(bench, bench.fresh()))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"combine": "weighted", "teacher_weights": (1.0, 2.0)}, "one of teacher_weights for each"),
        ({"teacher_weights": (1.0,)}, "go with combine=weighted"),
        ({"method": "dkd", "unlabeled": True}, "needs labels"),
        ({"calibrate_bias": True}, "there are none"),
        ({"epochs": 0}, "keep_teacher=true"),
        ({"logits_weight": 0.0}, "leaves the teacher out"),
    ],
)
def test_parameters_that_contradict_one_another(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Distill(teacher=build, **options)


def test_the_teachers_gradient_is_not_taken(bench: Bench) -> None:
    teacher = bench.build(build).model
    before = teacher.get_weights()
    bench.teacher = lambda arch, **how: teacher
    apply(Distill(teacher=build, method="relational", epochs=1), bench.fresh(), bench)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        tf.debugging.assert_equal(old, new)
