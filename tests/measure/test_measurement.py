import dataclasses
import json

import keras
import numpy as np
import pytest

from netopt_cli.contracts import ExportRecipe, Network, Timing
from netopt_cli.errors import ParityError
from netopt_cli.export.packed import unpack
from netopt_cli.measure.measurement import (
    Measurement,
    calibration_samples,
    compare,
    export_network,
    gzip_size,
    measure,
)
from netopt_cli.measure.runtime import LitertRunner

TIMING = Timing(warmup_runs=5, timed_runs=30)
COLUMNS = [
    "accuracy",
    "loss",
    "params",
    "nonzero_params",
    "sparsity",
    "macs",
    "size_bytes",
    "size_gzip_bytes",
    "size_packed_bytes",
    "latency_ms_median",
    "latency_ms_p90",
    "peak_memory_bytes",
    "parity_max_abs",
]


def network_of(model, scheme) -> Network:
    return Network(model, ExportRecipe(scheme, calibration_samples=64))


@pytest.fixture(scope="module", params=["float32", "int8"])
def measured(request, model, data, tmp_path_factory):
    network = network_of(model, request.param)
    graph, content = export_network(network, data)
    file = tmp_path_factory.mktemp("measure") / "model.tflite"
    file.write_bytes(content)
    return request.param, content, measure(network, data, TIMING, file, graph)


def test_the_fields_are_the_columns():
    names = [field.name for field in dataclasses.fields(Measurement)]
    assert names == ["scores", *COLUMNS[1:], "details", "packed"]


def test_what_is_known_by_hand(measured):
    scheme, content, measurement = measured
    assert measurement.params == 9 * 6 + 6 + 54 * 16 + 16 + 16 * 4 + 4
    assert measurement.nonzero_params == measurement.params - 6 - 16 - 4  # biases start at 0
    assert measurement.macs == 36 * 6 * 9 + 54 * 16 + 16 * 4
    assert measurement.size_bytes == len(content)
    assert measurement.size_gzip_bytes == gzip_size(content) < len(content)
    assert measurement.size_packed_bytes == len(measurement.packed)
    assert unpack(measurement.packed) == content
    assert 0 < measurement.latency_ms_median <= measurement.latency_ms_p90
    assert measurement.peak_memory_bytes > 0
    assert 0 <= measurement.sparsity < 0.1
    details = measurement.details
    assert [row["layer"] for row in details["layers"]] == ["conv", "hidden", "head"]
    assert {row["dtype"] for row in details["layers"]} == {scheme}
    assert [row["shape"] for row in details["layers"]] == [[3, 3, 1, 6], [54, 16], [16, 4]]
    assert (details["device"], details["threads"], details["timed_runs"]) == ("cpu", 1, 30)
    assert details["parity"]["samples"] == 48
    json.dumps(details)


def test_accuracy_and_loss_are_those_of_the_test_split(measured, model, data):
    scheme, _, measurement = measured
    x, y = next(data.normalized_batches(data.test, len(data.test)))
    logits = model(x, training=False)
    loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    close = 1e-5 if scheme == "float32" else 0.03
    assert measurement.loss == pytest.approx(float(np.mean(loss)), abs=close)
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == y))
    assert measurement.score == pytest.approx(accuracy, abs=close)


def test_the_loss_of_a_certain_and_wrong_network_is_finite(model, data, tmp_path):
    certain = keras.models.clone_model(model)
    certain.set_weights([1e4 * weight for weight in model.get_weights()])
    network = Network(certain)
    graph, content = export_network(network, data)
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    measurement = measure(network, data, TIMING, file, graph)
    assert measurement.loss > 1e6
    assert np.isfinite(measurement.loss)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_the_file_of_another_model_fails(model, data, tmp_path, scheme):
    other = keras.models.clone_model(model)
    keras.utils.set_random_seed(7)
    other.set_weights([np.random.permutation(weight) for weight in model.get_weights()])
    graph, content = export_network(network_of(other, scheme), data)
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    with pytest.raises(ParityError, match="does not compute what the network computes"):
        measure(network_of(model, scheme), data, TIMING, file, graph)


def test_the_test_split_is_read_once(model, data, tmp_path, monkeypatch):
    reads = []
    read = type(data).normalized_batches

    def counted(self, source, batch_size):
        reads.append(source)
        return read(self, source, batch_size)

    monkeypatch.setattr(type(data), "normalized_batches", counted)
    graph, content = export_network(Network(model), data)
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    measure(Network(model), data, TIMING, file, graph, workers=1)
    assert sum(source is data.test for source in reads) == 1


def test_export_is_reproducible_and_calibrated_by_the_seed(model, data):
    network = Network(model, ExportRecipe("int8", calibration_samples=4))
    files = [export_network(network, data, seed)[1] for seed in (0, 0, 1)]
    assert files[0] == files[1] != files[2]
    assert gzip_size(files[0]) == gzip_size(files[1])


def test_calibration_is_random_or_even_over_the_classes(model, data):
    def labels(sampling: str, samples: int = 20) -> np.ndarray:
        recipe = ExportRecipe("int8", samples, calibration_sampling=sampling)
        chosen = list(calibration_samples(Network(model, recipe), data, seed=0))
        assert {x.shape for x in chosen} == {(1, *data.shape)}
        x, y = next(data.normalized_batches(data.train, len(data.train)))
        places = [int(np.flatnonzero((x == one).all(axis=(1, 2, 3)))[0]) for one in chosen]
        assert len(set(places)) == len(places)
        return np.bincount(y[places], minlength=data.classes)

    assert set(labels("stratified")) == {5}
    assert len(set(labels("random"))) > 1
    assert labels("stratified", 1000).sum() == len(data.train)


@pytest.mark.parametrize("scheme", ["weight_int4", "dynamic", "float16"])
def test_a_file_is_compared_with_the_rounded_network(model, data, scheme):
    network = network_of(model, scheme)
    _, content = export_network(network, data)
    runner = LitertRunner(content, TIMING)
    parity = compare(network, data, runner, scheme)
    assert parity["max_abs_rounded"] < parity["max_abs"] or scheme == "dynamic"
    assert parity["max_abs_rounded"] <= parity["tolerance"]
    # A file of other bits than it says fails, small as the difference is.
    if scheme == "weight_int4":
        with pytest.raises(ParityError):
            compare(network_of(model, "weight_int8"), data, runner, "weight_int8")
