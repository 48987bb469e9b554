import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.contracts import ExportRecipe, Network, Timing
from netopt_cli.errors import ParityError, RunError
from netopt_cli.export.litert import freeze
from netopt_cli.measure import probe as module
from netopt_cli.measure.exports import contents_of, export_as, measure_export
from netopt_cli.measure.measurement import gzip_size
from netopt_cli.measure.probe import probe

TIMING = Timing(warmup_runs=5, timed_runs=30)


def written(format_, network, data, folder):
    export = export_as(format_, network, freeze(network.model), data, seed=0)
    path = folder / format_
    if format_ == "saved_model":
        path.mkdir()
    export.write(path)
    return export, path


@pytest.mark.parametrize(
    ("format_", "scheme"), [("onnx", "float32"), ("onnx", "int8"), ("saved_model", "float32")]
)
def test_the_figures_of_a_file(model, data, tmp_path, format_, scheme):
    network = Network(model, ExportRecipe(scheme, calibration_samples=64))
    export, path = written(format_, network, data, tmp_path)
    measured = measure_export(export, path, network, data, TIMING)
    assert (measured.format, measured.scheme) == (format_, scheme)
    assert measured.runtime == {"onnx": "onnxruntime", "saved_model": "tensorflow"}[format_]
    assert measured.version[0].isdigit()
    contents = contents_of(path)
    assert measured.size_bytes == sum(map(len, contents)) > 0
    assert measured.size_gzip_bytes == sum(map(gzip_size, contents))
    assert 0 < measured.latency_ms_median <= measured.latency_ms_p90
    assert measured.peak_memory_bytes > 0
    x, y = next(data.normalized_batches(data.test, len(data.test)))
    accuracy = float(np.mean(np.argmax(model(x, training=False), axis=-1) == y))
    close = 1e-5 if scheme == "float32" else 0.03
    assert measured.score == pytest.approx(accuracy, abs=close)
    assert (measured.parity_max_abs < 1e-4) == (scheme == "float32")


INT8 = ExportRecipe("int8", calibration_samples=8)


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        (INT8, None),
        (ExportRecipe(), None),
        (replace(INT8, calibration="mse"), "onnx is calibrated by minmax, not mse"),
        (replace(INT8, weight_bits={"head/kernel": 32}), "onnx is float32, not int8"),
        (ExportRecipe("weight_int4"), "onnx is float32, not weight_int4"),
    ],
)
def test_it_is_said_where_onnx_is_not_what_was_asked_for(model, data, recipe, note):
    export = export_as("onnx", Network(model, recipe), freeze(model), data, seed=0)
    assert export.notes == ((note,) if note else ())
    assert export.scheme == ("float32" if note and "float32" in note else recipe.scheme)


def test_a_saved_model_is_float32_and_says_so(model, data):
    export = export_as("saved_model", Network(model, INT8), freeze(model), data, seed=0)
    assert (export.scheme, export.notes) == ("float32", ("saved_model is float32, not int8",))


@pytest.mark.parametrize("format_", ["onnx", "saved_model"])
def test_the_file_of_another_model_fails(model, data, tmp_path, format_):
    other = keras.models.clone_model(model)
    other.set_weights([np.random.permutation(weight) for weight in model.get_weights()])
    export, path = written(format_, Network(other), data, tmp_path)
    with pytest.raises(ParityError, match="does not compute what the network computes"):
        measure_export(export, path, Network(model), data, TIMING)


def test_calibration_samples_are_chosen_by_the_seed(model, data, tmp_path):
    network = Network(model, ExportRecipe("int8", calibration_samples=4))
    graph = freeze(model)
    files = []
    for seed in (0, 0, 1):
        export_as("onnx", network, graph, data, seed).write(tmp_path / "model.onnx")
        files.append((tmp_path / "model.onnx").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_file_of_another_format_cannot_be_timed(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(RunError, match=r"Timing .*broken\.onnx failed.*cannot load"):
        probe(broken, TIMING, "onnx")


def test_onnx_is_timed_without_tensorflow(model, data, tmp_path):
    _, path = written("onnx", Network(model), data, tmp_path)
    code = (
        "import sys; from netopt_cli.measure.probe import main;"
        f"main([{str(path)!r}, '--format', 'onnx']);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(module.__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["latency_ms_median"] > 0
