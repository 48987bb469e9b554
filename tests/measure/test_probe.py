import subprocess
import sys
from pathlib import Path

import pytest

from netopt_cli.contracts import ExportRecipe, Timing
from netopt_cli.errors import RunError
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.measure import own_process
from netopt_cli.measure import probe as module
from netopt_cli.measure.probe import probe

PACKAGE_PARENT = Path(module.__file__).parents[2]


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "model.tflite"
    path.write_bytes(to_litert(freeze(model), ExportRecipe()))
    return path


@pytest.mark.parametrize("device", ["cpu", "cpu_reference"])
def test_numbers_are_positive_and_ordered(file, device):
    measured = probe(file, Timing(device=device, threads=2, warmup_runs=5, timed_runs=40))
    assert 0 < measured.latency_ms_median <= measured.latency_ms_p90
    assert measured.peak_memory_bytes >= file.stat().st_size
    assert (measured.warmup_runs, measured.timed_runs) == (5, 40)


def test_the_process_does_not_import_tensorflow_or_keras(file):
    code = (
        "import sys; from netopt_cli.measure.probe import main; main([sys.argv[1]]);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE_PARENT,
    )
    assert done.returncode == 0, done.stderr
    assert "latency_ms_median" in done.stdout


def test_a_slow_model_is_timed_fewer_times(file, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: 10.0 * next(clock))
    measured = module._measure(file, Timing(warmup_runs=50, timed_runs=500))
    assert (measured.warmup_runs, measured.timed_runs) == (3, 30)


def test_a_failing_process_is_a_run_error(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    with pytest.raises(RunError, match=r"Timing .*broken\.tflite failed.*cannot load"):
        probe(broken, Timing())


def test_a_hanging_process_is_a_run_error(file, monkeypatch):
    monkeypatch.setattr(own_process, "TIMEOUT_S", 0.001)
    with pytest.raises(RunError, match="took more than"):
        probe(file, Timing())
