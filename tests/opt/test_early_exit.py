"""Early exits: that they are trained as asked, survive later stages, and leave as measured."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from command_line import CommandLine
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.opt.early_exit import EarlyExit
from netopt_cli.opt.qat import Qat
from netopt_cli.opt.structured import Structured


def outputs_of(model: keras.Model, bench: Bench) -> list[np.ndarray]:
    x = bench.data.normalization.numpy(bench.data.validation.x)
    return [logits.numpy() for logits in model(x, training=False)]


def accuracies(model: keras.Model, bench: Bench) -> list[float]:
    labels = bench.data.validation.y
    return [float(np.mean(one.argmax(-1) == labels)) for one in outputs_of(model, bench)]


def test_exits_and_network_are_trained_together(bench: Bench) -> None:
    plain = bench.fresh()
    network = apply(EarlyExit(epochs=8), plain, bench)
    assert len(network.model.outputs) == 2
    assert min(accuracies(network.model, bench)) > 0.9
    kernel = network.model.get_layer("dense_1").kernel.numpy()
    assert not np.array_equal(kernel, plain.model.get_layer("dense_1").kernel.numpy())


def test_separate_training_leaves_the_network_as_it_was(bench: Bench) -> None:
    plain = bench.fit(bench.fresh(), epochs=2)
    before = plain.model.get_weights()
    network = apply(EarlyExit(training="separate", epochs=8), plain, bench)
    assert accuracies(network.model, bench)[0] > 0.8  # guessing: 0.33
    trunk = keras.Model(network.model.input, network.model.outputs[-1])
    for old, new in zip(before, trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(layer.trainable for layer in network.model.layers)


def test_self_distillation_brings_the_exits_to_the_final_logits(bench: Bench) -> None:
    def divergence(share: float) -> float:
        stage = EarlyExit(training="separate", self_distillation=share, temperature=1.0, epochs=10)
        exit_, final = outputs_of(apply(stage, bench.fresh(), bench).model, bench)
        target = tf.nn.softmax(final)
        return float(tf.reduce_mean(keras.losses.kl_divergence(target, tf.nn.softmax(exit_))))

    # The network is not trained: what it says is not on the labels.
    assert divergence(1.0) < 0.2 * divergence(0.0)


def test_later_training_keeps_training_the_exits(bench: Bench) -> None:
    network = apply(EarlyExit(epochs=4), bench.fresh(), bench)
    before = network.model.get_layer("exit_1_logits").kernel.numpy()
    smaller = apply(Structured(ratio=0.3, criterion="l2", epochs=4), network, bench)
    assert smaller.exits == network.exits
    assert smaller.model.count_params() < network.model.count_params()
    after = smaller.model.get_layer("exit_1_logits").kernel.numpy()
    assert after.shape != before.shape or not np.array_equal(before, after)
    assert min(accuracies(smaller.model, bench)) > 0.9


def preflight(bench: Bench, network: Network | None = None) -> Preflight:
    return Preflight("early_exit", network or bench.fresh(), True, bench.build)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": ("dense_l",)}, "Did you mean 'dense_"),
        ({"at": ("pool_9",)}, "Exits can follow: flatten, dense_1, dense_2"),
        ({"at": ("logits",)}, "not everything after 'logits' depends on it"),
        ({"every": 3}, "every of at most 1"),
        ({"loss_weights": (1.0, 0.5)}, "one for each of 1 exits"),
        ({"target_cost": 0.5}, "set the other one to null"),
        ({"max_drop": None}, "max_drop=None, target_cost=None"),
    ],
)
def test_what_cannot_work_is_said_before_training(bench: Bench, options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EarlyExit(**options).plan(preflight(bench))


def test_exits_come_once_and_not_before_qat(bench: Bench) -> None:
    planned = EarlyExit().plan(preflight(bench))
    with pytest.raises(InputError, match="finds exits in the network"):
        EarlyExit().plan(preflight(bench, planned))
    with pytest.raises(InputError, match="Use quantize"):
        Qat().plan(preflight(bench, planned))


def test_a_run_measures_the_ways_through_the_segments(netopt: CommandLine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = netopt(
        "train", "arch=mlp", "arch.hidden=[24,24,24]", "opt=[early_exit,quantize]",
        "control=false",
        "train.epochs=2", "opt.early_exit.epochs=2", "opt.early_exit.every=1", "data=digits",
        "opt.early_exit.target_cost=0.7", "opt.early_exit.max_drop=null",
        f"hydra.run.dir={run}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(run / "metrics.csv").set_index("stage")
    table = pd.read_csv(run / "exits.csv")
    for folder, stage in (("1-early_exit", "early_exit"), ("2-quantize", "quantize")):
        ways = table[table.stage == stage].set_index("path")
        assert list(ways.index) == [
            "without exits", "with exits", "exit 1", "exit 2", "to the end",
        ]  # fmt: skip
        at = ways.loc[["exit 1", "exit 2", "to the end"]]
        assert at.share.sum() == pytest.approx(1)
        together, row = ways.loc["with exits"], rows.loc[stage]
        right = (at.share * at.accuracy.fillna(0)).sum()
        assert together.accuracy == pytest.approx(right) == pytest.approx(row.accuracy)
        assert together.macs_mean == pytest.approx((at.share * at.macs_mean).sum())
        assert row.macs == round(together.macs_mean) < together.macs_max
        assert row.latency_ms_median == pytest.approx(together.latency_ms_mean)
        files = sorted((run / folder).glob("segment_*.tflite"))
        assert [file.stat().st_size for file in files] == at.size_bytes.tolist()
        assert row.size_bytes == at.size_bytes.sum()
        record = json.loads((run / "record.json").read_text())
        assert record["stages"][folder]["measurement"]["same_exits"] == 1
    assert rows.loc["quantize"].size_bytes < 0.6 * rows.loc["early_exit"].size_bytes


@pytest.mark.slow
def test_a_dry_run_tells_the_segments_and_an_unknown_layer(netopt: CommandLine) -> None:
    done = netopt("train", "arch=mlp", "opt=early_exit", "data=digits", "--dry-run")
    assert done.returncode == 0 and "2 segments" in done.stdout + done.stderr
    done = netopt("train", "arch=mlp", "opt=early_exit", "opt.early_exit.at=[pool]")
    assert done.returncode == 2 and "'pool' is no layer of the network" in done.stderr


def test_heads_fit_what_they_look_at(bench: Bench) -> None:
    inputs = keras.Input((12, 3))
    x = keras.layers.Conv1D(4, 3, name="conv")(inputs)
    x = keras.layers.Flatten()(keras.layers.Conv1D(4, 3)(x))
    network = Network(keras.Model(inputs, keras.layers.Dense(3)(x)))
    stage = EarlyExit(at=("conv",), head_side=3, head_filters=5, head_units=7)
    model = stage.plan(preflight(bench, network)).model
    assert model.get_layer("exit_1_conv").output.shape == (None, 3, 5)
    assert model.get_layer("exit_1_dense").units == 7
    assert [output.shape for output in model.outputs] == [(None, 3), (None, 3)]
