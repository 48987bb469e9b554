import numpy as np
import pytest

from netopt_cli.contracts import ExportRecipe, Timing
from netopt_cli.errors import RunError
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.measure.runtime import LitertRunner


@pytest.fixture(scope="module")
def x(data):
    return next(data.normalized_batches(data.test, 50))[0]


@pytest.fixture(scope="module")
def files(model, x):
    graph = freeze(model)
    return {
        "float32": to_litert(graph, ExportRecipe()),
        "int8": to_litert(graph, ExportRecipe("int8", len(x)), iter(x[:, np.newaxis])),
    }


@pytest.mark.parametrize("device", ["cpu", "cpu_reference"])
@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_predict_gives_the_models_logits(model, x, files, device, scheme):
    tolerance = {"float32": 1e-5, "int8": 0.1}[scheme]
    logits = LitertRunner(files[scheme], Timing(device=device)).predict(x[:1])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, model(x[:1]).numpy(), atol=tolerance)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("workers", [1, 3, 60])
def test_logits_keep_the_order_for_any_number_of_workers(x, files, scheme, workers):
    one_by_one = LitertRunner(files[scheme], Timing())
    expected = np.concatenate([one_by_one.predict(sample[np.newaxis]) for sample in x])
    batches = [x[:20], x[20:]]
    actual = list(LitertRunner(files[scheme], Timing(), workers).logits(batches))
    assert [len(part) for part in actual] == [20, 30]
    np.testing.assert_array_equal(np.concatenate(actual), expected)


def test_what_int8_cannot_hold_saturates(x, files):
    runner = LitertRunner(files["int8"], Timing())
    np.testing.assert_array_equal(
        runner.predict(np.full_like(x[:1], 1e6)), runner.predict(np.full_like(x[:1], 1e9))
    )


def test_a_file_reads_like_its_content(tmp_path, x, files):
    path = tmp_path / "model.tflite"
    path.write_bytes(files["float32"])
    np.testing.assert_array_equal(
        LitertRunner(path, Timing()).predict(x[:1]),
        LitertRunner(files["float32"], Timing()).predict(x[:1]),
    )


@pytest.mark.parametrize("as_path", [True, False])
def test_what_is_no_model_is_a_run_error(tmp_path, as_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(RunError, match="LiteRT cannot load"):
        LitertRunner(path if as_path else path.read_bytes(), Timing())
