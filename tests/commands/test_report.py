"""`netopt report` as a user calls it, and its page in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import CommandLine
from stored_runs import CONFIG, drawn, judged, rows, write_run, write_seeds

from netopt_cli import app
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT
from netopt_cli.report.layers import macs_by_layer

Capture = pytest.CaptureFixture[str]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
NASTY = "</title></pre><script>alert(1)</script><img src=x onerror=alert(1)>'\"&\x00\ud800"


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages, trained for a moment."""
    netopt = CommandLine(tmp_path_factory.mktemp("report"))
    done = netopt(
        "train", "--quiet", "arch=mlp", "arch.hidden=[16]", "opt=[prune,quantize]",
        "train.epochs=2", "opt.prune.epochs=1", "data.train_limit=400",
        "target.warmup_runs=2", "target.timed_runs=30", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return netopt.folder / "run"


class Page(HTMLParser):
    """What a page holds: its tags, its attributes, and the text of its sections by their ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self._section = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        text = self.sections.get(self._section, "")
        self.sections[self._section] = f"{text} {data}".strip()


def reported(folder: Path, *words: str) -> Page:
    assert app.main(["report", str(folder), *words]) == EXIT_OK
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_of_a_real_run_has_everything(real_run: Path, capsys: Capture) -> None:
    page = reported(real_run)
    assert capsys.readouterr().out.strip().endswith("run/report.html")
    record = json.loads((real_run / "record.json").read_text())
    last = record["rows"][-1]
    assert f"{100 * last['accuracy']:.2f} %" in page.sections["summary"]
    smaller = record["rows"][0]["size_bytes"] / last["size_bytes"]
    assert f"{smaller:.2f} × smaller" in page.sections["summary"]
    assert "prune control" in page.sections["stages"]
    assert "parity_max_abs" in page.sections["stages"], "all columns are there"
    assert "prune: loss" in page.sections["learning-curves"]
    assert "64×16" in page.sections["layers-before-and-after"]
    assert "32 → 8" in page.sections["layers-before-and-after"]
    assert "1.02 k" in page.sections["layers-before-and-after"], "MACs of 64 x 16"
    assert re.search(r"1,184 weights: \d+\.\d % zero", page.sections["weights-in-the-file"])
    wrong = round((1 - last["accuracy"]) * record["dataset"]["test"])
    assert (
        f"quantize: {wrong:,} of {record['dataset']['test']:,} wrong"
        in (page.sections["confusion"])
    )
    assert "80.0% of" in page.sections["notes"]
    assert record["dataset"]["fingerprint_sha256"] in page.sections["environment"]
    assert "hydra.run.dir=run" in page.sections["repeat-it"]
    assert "sparsity: 0.8" in page.sections["repeat-it"]


def test_the_page_needs_nothing_else(real_run: Path) -> None:
    page = reported(real_run)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "onload", "onerror", "onclick")
        assert name != "href" or (value or "").startswith("#")
    text = (real_run / "report.html").read_text()
    assert "@import" not in text and "url(" not in text and "https:" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_a_complaint(
    real_run: Path, tmp_path: Path, *, dark: bool
) -> None:
    reported(real_run)
    shot = tmp_path / "shot.png"
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
            "--window-size=1280,900", "--enable-logging=stderr", "--virtual-time-budget=3000",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            (real_run / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    from matplotlib.image import imread

    picture = imread(shot)
    assert picture.shape[:2] == (900, 1280)
    ground = picture[-1, 0, :3].mean()
    assert ground < 0.2 if dark else ground > 0.9
    assert picture.std() > 0.02, "it is not empty"


def hostile(folder: Path) -> Path:
    """A run whose every text is an attack."""
    found = rows()
    for row in found[1:]:
        row |= {"stage": NASTY, "size_bytes": 10**400, "latency_ms_median": 1e-320}
    found[2]["control"] = f"{NASTY} control"
    run = write_run(
        folder, found=found, config=CONFIG | {"opt": {NASTY: {NASTY: NASTY}}},
        command=["netopt", NASTY], environment={NASTY: NASTY, "packages": {NASTY: NASTY}},
        git={"commit": NASTY, "dirty": True}, dataset={"name": NASTY, "test": 3}, error=NASTY,
        status="failed",
        stages={
            "0-baseline": {"notes": [NASTY, 3], "measurement": {
                "layers": [{"layer": NASTY, "shape": [NASTY], "params": 1, "nonzero": "x"}, 7],
                "macs_by_operation": {NASTY: NASTY}, "runtime": NASTY,
                "confusion": {"classes": [NASTY, "b"], "counts": [[1, 2], [3, 4]]},
            }},
            f"1-{NASTY}": "nothing",
        },
        exits=[{"stage": NASTY, "path": NASTY, "share": 0.5}, 7],
        robustness=[{"stage": NASTY, "clean": 0.5, "samples": NASTY}, 7],
    )  # fmt: skip
    header = "stage,epoch,loss,accuracy,val_loss,val_accuracy"
    (run / "history.csv").write_text(f'{header}\n"<script>",1,nan,x,1e999,0.5\n"<script>",2\n')
    return run


def test_the_run_of_a_stranger_runs_nothing(tmp_path: Path) -> None:
    page = reported(hostile(tmp_path / "run"))
    assert "script" not in page.tags and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.sections["repeat-it"], "it is shown as text"
    for format_ in ("svg", "png"):
        assert app.main(["report", str(tmp_path / "run"), "--format", format_]) == EXIT_OK
    drawing = ElementTree.parse(tmp_path / "run" / "report.svg")
    assert not [each for each in drawing.iter() if each.tag.endswith("script")]


def test_files_outside_the_run_are_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "secret.tflite").write_bytes(b"\0\0\0\0TFL3secret")
    (run / "0-baseline").mkdir()
    (run / "0-baseline" / "model.tflite").symlink_to(tmp_path / "secret.tflite")
    assert "not there any more" in reported(run).sections["notes"]


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name, content in (("0-baseline", b"\xff\xff\xff\x7fTFL3"), ("1-prune", b"text")):
        (run / name).mkdir()
        (run / name / "model.tflite").write_bytes(content)
    notes = reported(run).sections["notes"]
    assert "baseline: a damaged LiteRT file" in notes and "prune: not a LiteRT file" in notes


def test_seeds_give_intervals_and_a_verdict(tmp_path: Path) -> None:
    found = drawn(range(5), 0.95, 0.001, source=1)
    for of_seed in found.values():
        of_seed[2]["accuracy"] -= 0.05
    page = reported(write_seeds(tmp_path / "seeds", found, failed={"seed-9": "diverged"}))
    assert (
        "worse" in page.sections["summary"]
        and "points below its control" in (page.sections["summary"])
    )
    assert "5 seeds" in page.sections["stages"] and "worse (p = " in page.sections["stages"]
    assert "seed-9: failed: diverged" in page.sections["notes"]


def test_a_run_of_another_task_is_told_by_its_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", found=judged("rmse", 4.0, 4.1, 3.5, mae=2.25))
    epochs = "baseline,1,0.5,0.6,4.2\nbaseline,2,0.4,0.5,4.0\n"
    (run / "history.csv").write_text(f"stage,epoch,loss,val_loss,val_rmse\n{epochs}")
    page = reported(run)
    summary = page.sections["summary"]
    assert "RMSE of the file after prune is 3.5000, 0.6000 below its control" in summary
    assert "no difference in RMSE is proven" in summary and "right" not in summary
    assert "difference of RMSE against" in page.sections["stages"]
    assert "mae" in page.sections["stages"], "further metrics are among all columns"
    assert "baseline: RMSE" in page.sections["learning-curves"]
    assert "RMSE against the file (less is better)" in page.sections["trade-off"]
    assert "confusion" not in page.sections and "confusion" not in page.sections["notes"].lower()
    assert "accuracy" not in " ".join(page.sections.values()).lower()


def test_a_ranking_over_seeds_has_a_verdict_in_its_own_unit(tmp_path: Path) -> None:
    found = {seed: judged("ndcg_at_10", 0.3, 0.3, 0.4 + 0.01 * seed) for seed in range(3)}
    page = reported(write_seeds(tmp_path / "seeds", found))
    summary = page.sections["summary"]
    assert "0.4100 ± 0.0100" in summary and "0.1100 above its control (better" in summary
    assert "NDCG@10 0.4100 ± 0.0100" in " ".join(summary.split()), "it has the first tile"
    assert "+0.1100" in page.sections["stages"] and "points" not in page.sections["stages"]


def test_a_sweep_over_tasks_is_refused(tmp_path: Path, capsys: Capture) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", found=judged("rmse", 4.0, 4.1, 3.5))
    assert app.main(["report", str(tmp_path)]) == EXIT_WRONG_INPUT
    assert "a by accuracy, b by rmse" in capsys.readouterr().err


def test_exits_and_robustness_where_they_are_on_the_record(tmp_path: Path) -> None:
    way = {"stage": "prune", "macs_mean": 5000.0, "latency_ms_mean": 0.02}
    run = write_run(
        tmp_path / "run",
        exits=[
            way | {"path": "with exits", "share": None, "accuracy": 0.9},
            way | {"path": "exit 1", "share": 0.75, "accuracy": 0.98},
            way | {"path": "to the end", "share": 0.25, "accuracy": None},
        ],
        robustness=[{"stage": "prune", "role": "control", "clean": 0.9, "pgd": 0.125, "ece": 0.03,
                     "epsilon": 0.1, "steps": 7, "samples": 50, "sound": False}],
    )  # fmt: skip
    page = reported(run)
    assert "75.00 % of the samples, 98.00 % right" in page.sections["early-exits"]
    assert "25.00 % of the samples, 5.00 k MACs" in page.sections["early-exits"]
    robustness = page.sections["robustness"]
    assert "prune control 90.00 % 12.50 % 0.0300 doubtful" in robustness
    assert "ε = 0.1, 7 steps" in robustness


def test_the_further_tables_are_over_the_seeds_and_the_rest_says_of_which(tmp_path: Path) -> None:
    layer = {"layer": "dense", "shape": [4, 3], "params": 12, "nonzero": 12, "dtype": "float32"}
    confusion = {"classes": ["a", "b"], "counts": [[3, 1], [0, 4]]}
    measured = {"measurement": {"layers": [layer], "confusion": confusion}, "notes": ["said"]}
    parent = write_seeds(
        tmp_path / "seeds", {2: rows(), 5: rows()},
        stages={"0-baseline": measured, "1-prune": measured},
    )  # fmt: skip
    for seed, accuracy, latency in ((2, 0.90, 0.5), (5, 0.94, 0.3)):
        file = parent / f"seed-{seed}" / "record.json"
        record = json.loads(file.read_text())
        way = {"stage": "prune", "path": "exit 1", "macs_mean": 5000.0}
        record["exits"] = [way | {"share": accuracy - 0.2, "accuracy": accuracy}]
        record["robustness"] = [{"stage": "prune", "role": "stage", "pgd": accuracy - 0.5,
                                 "epsilon": 0.1, "sound": seed == 2}]  # fmt: skip
        exported = {"stage": "prune", "scheme": "float32", "accuracy": accuracy}
        record["exports"] = [
            exported | {"format": "litert", "latency_ms_median": latency},
            exported | {"format": "onnx", "latency_ms_median": 0.41},
        ]
        file.write_text(json.dumps(record))
    page = reported(parent)
    exits = page.sections["early-exits"]
    assert "72.00 % of the samples, 92.00 % right" in exits
    assert "72.00 ± 2.83 %" in exits and "over 2 seeds" in exits
    exports = page.sections["exported-files"]
    assert "litert float32 92.00 ± 2.83 % 0.4000 ± 0.1414 ms fastest" in exports
    assert "42.00 ± 2.83 % doubtful" in page.sections["robustness"]
    assert "Of seed 2 alone." in page.sections["layers-before-and-after"]
    assert "Of seed 2 alone." in page.sections["notes"]
    assert "all 2 seeds together. baseline: 2 of 16 wrong" in page.sections["confusion"]
    alone = reported(parent / "seed-5")
    assert not any("Of seed" in text or "±" in text for text in alone.sections.values())


def test_a_sweep_is_put_side_by_side(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", found=rows(prune=0.90, size_bytes=9000))
    arch = CONFIG["arch"] | {"hidden": [7]}
    write_run(sweep / "b", found=rows(prune=0.97), config=CONFIG | {"arch": arch})
    write_run(sweep / "c", status="failed", error="the loss became NaN", found=[])
    page = reported(sweep)
    assert "97.00 % +7.00" in page.sections["runs-side-by-side"]
    assert "arch.hidden" in page.sections["what-differs"]
    assert "c: failed: the loss became NaN" in page.sections["left-out"]
    for seed in range(3):
        write_run(tmp_path / "one" / f"{seed}", seed)
    assert "3 seeds" in reported(tmp_path / "one").sections["stages"], "seeds are one run"


def test_a_run_that_failed_before_its_first_row_still_has_a_page(tmp_path: Path) -> None:
    page = reported(write_run(tmp_path / "run", status="failed", error="no space", found=[]))
    assert "not complete (failed): no space" in page.sections[""]
    assert "stages" not in page.sections


def test_pictures_by_format_and_by_suffix(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    output = tmp_path / "picture.svg"
    assert app.main(["report", str(run), "--output", str(output)]) == EXIT_OK
    texts = "".join(ElementTree.parse(output).getroot().itertext())
    assert "Accuracy against the file" in texts and "prune control" in texts
    assert app.main(["report", str(run), "--format", "png"]) == EXIT_OK
    assert (run / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "leads to no run"),
        (["run", "--output", "report.pdf"], "--format"),
        (["run", "--output", "no/report.html"], "a directory that exists"),
        (["run", "--format", "pdf"], "html"),
        (["run", "--outptu", "x"], "Did you mean '--output'"),
        (["scan"], "netopt sensitivity"),
        (["failed"], "none of the seeds"),
        (["odd"], "'rows' must have"),
    ],
)
def test_wrong_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"))
    write_run(Path("scan"), kind="sensitivity")
    write_run(Path("odd"), found=[{"stage": ["x"], "role": "stage"}])
    write_run(Path("failed"), kind="seeds", seeds=[1], runs=[], failed={"seed-1": "diverged"})
    assert app.main(["report", *words]) == EXIT_WRONG_INPUT
    assert message in capsys.readouterr().err


def test_macs_go_to_the_layer_that_made_them() -> None:
    operations = {
        "net_1/dense_1/MatMul": 1,  # a call of `dense`
        "net_1/dense_1_1/MatMul": 2,
        "net_1/dense_1_1/dense_1_1/MatMul": 4,  # wrapped
        "net_1/block_1/conv_1/convolution": 8,
        "net_1/conv_1/convolution": 16,
        "net_1/other_1/MatMul": 32,
    }
    layers = ["dense", "dense_1", "block/conv", "conv"]
    assert macs_by_layer(operations, layers) == {
        "dense": 1, "dense_1": 6, "block/conv": 8, "conv": 16,
    }  # fmt: skip
