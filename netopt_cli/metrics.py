"""The metrics by which a task tells how good a network is: one of them counts in a run.

A row of a run names it under `metric`, and has its figure under that name, with further metrics of
the task beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netopt_cli.errors import InputError, RecordError, did_you_mean

ACCURACY = "accuracy"
"""What counts where a row names no metric: the share of samples that are classified right."""


@dataclass(frozen=True)
class Metric:
    """A metric of a task.

    Attributes:
        title: What a table calls it.
        higher_is_better: Which way is better.
        is_fraction: Whether people read it in per cent, and its changes in points; it is a plain
            number otherwise.
    """

    title: str
    higher_is_better: bool = True
    is_fraction: bool = True

    def bare(self, value: float, sign: str = "") -> str:
        """A value for a person, without its unit; `sign` is `+` for a change."""
        if self.is_fraction:
            return f"{100 * value:{sign}.2f}"
        for least, digits in ((1e9, ".4g"), (1e3, ",.0f"), (1e2, ".2f"), (1e-3, ".4f")):
            if abs(value) >= least:
                return f"{value:{sign}{digits}}"
        return f"{value:{sign}.2g}" if value else f"{value:{sign}.4f}"

    def text(self, value: float) -> str:
        return f"{self.bare(value)} %" if self.is_fraction else self.bare(value)

    def amount(self, value: float, sign: str = "") -> str:
        """A change for a person: points of a fraction."""
        return f"{self.bare(value, sign)} points" if self.is_fraction else self.bare(value, sign)

    @property
    def heading(self) -> str:
        """The title at the beginning of a sentence."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def of_changes(self) -> str:
        """What a column of changes counts."""
        return f"points of {self.title}" if self.is_fraction else f"difference of {self.title}"

    def goodness(self, value: float) -> float:
        """The more, the better."""
        return value if self.higher_is_better else -value


def _fraction(title: str, *, higher_is_better: bool = True) -> Metric:
    return Metric(title, higher_is_better)


def _number(title: str, *, higher_is_better: bool = True) -> Metric:
    return Metric(title, higher_is_better, is_fraction=False)


def _error(title: str) -> Metric:
    return Metric(title, higher_is_better=False, is_fraction=False)


KNOWN: dict[str, Metric] = {
    # classes, one or several a sample
    ACCURACY: _fraction("accuracy"),
    "balanced_accuracy": _fraction("balanced accuracy"),
    "exact_match": _fraction("exact match"),
    "f1": _fraction("F1"),
    "f1_macro": _fraction("macro F1"),
    "f1_micro": _fraction("micro F1"),
    "f1_samples": _fraction("F1 of samples"),
    "f1_weighted": _fraction("weighted F1"),
    "hamming_loss": _fraction("Hamming loss", higher_is_better=False),
    "jaccard": _fraction("Jaccard"),
    "label_accuracy": _fraction("accuracy of labels"),
    "matthews": _number("Matthews"),
    "precision": _fraction("precision"),
    "precision_macro": _fraction("macro precision"),
    "recall": _fraction("recall"),
    "recall_macro": _fraction("macro recall"),
    # numbers
    "mae": _error("MAE"),
    "mape": _fraction("MAPE", higher_is_better=False),
    "mase": _error("MASE"),
    "mse": _error("MSE"),
    "pearson": _number("Pearson"),
    "r2": _number("R²"),
    "rmse": _error("RMSE"),
    "smape": _fraction("sMAPE", higher_is_better=False),
    "spearman": _number("Spearman"),
    # scores: anomalies, verification
    "auroc": _fraction("AUROC"),
    "auroc_macro": _fraction("macro AUROC"),
    "average_precision": _fraction("AP"),
    "average_precision_macro": _fraction("macro AP"),
    "eer": _fraction("EER", higher_is_better=False),
    "min_dcf": _error("min DCF"),
    "pauc": _fraction("pAUC"),
    # rankings; with a cut-off as ndcg_at_10
    "coverage": _fraction("coverage"),
    "hit_rate": _fraction("hit rate"),
    "map": _fraction("mAP"),
    "mrr": _number("MRR"),
    "ndcg": _number("NDCG"),
    # places in images
    "dice": _fraction("Dice"),
    "map_50": _fraction("mAP 50"),
    "map_50_95": _fraction("mAP 50-95"),
    "map_75": _fraction("mAP 75"),
    "mean_iou": _fraction("mean IoU"),
    "pixel_accuracy": _fraction("pixel accuracy"),
    # sequences and signals
    "bits_per_character": _error("bits per character"),
    "cer": _fraction("CER", higher_is_better=False),
    "perplexity": _error("perplexity"),
    "psnr": _number("PSNR"),
    "ssim": _number("SSIM"),
    "token_accuracy": _fraction("token accuracy"),
    "wer": _fraction("WER", higher_is_better=False),
}

_CUT_OFF = re.compile(r"(.+)_at_([1-9]\d*)")


def find(name: str) -> Metric | None:
    """The metric of that name, with a cut-off (`ndcg_at_10`: among the first ten) or without."""
    if name in KNOWN:
        return KNOWN[name]
    cut = _CUT_OFF.fullmatch(name)
    if cut is None or cut[1] not in KNOWN:
        return None
    of_all = KNOWN[cut[1]]
    return replace(of_all, title=f"{of_all.title}@{cut[2]}")


def find_title(word: str) -> str | None:
    """The name of the metric that a person has written, by its name or its title."""
    if is_metric(word):
        return word
    title, _, k = word.partition("@")
    name = next((name for name, metric in KNOWN.items() if metric.title == title), "")
    name = f"{name}_at_{k}" if k else name
    return name if is_metric(name) else None


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: There is none, with the nearest one.
    """
    found = find(name)
    if found is None:
        raise InputError(f"unknown metric '{name}'.{did_you_mean(name, KNOWN)}")
    return found


def is_metric(name: str) -> bool:
    return find(name) is not None


def metric_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """The name of the metric that counts in a run, by its rows.

    Raises:
        RecordError: They name one that netopt does not know, or several.
    """
    names: dict[str, None] = {}
    for row in rows:
        name = row.get("metric") or ACCURACY
        if not isinstance(name, str) or not is_metric(name):
            hint = did_you_mean(str(name), KNOWN)
            raise RecordError(f"unknown metric of a run: {name!r:.80}.{hint}")
        names[name] = None
    if len(names) > 1:
        raise RecordError(f"the rows of a run must have one metric. Received: {', '.join(names)}")
    return next(iter(names), ACCURACY)


def metrics_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the metrics that rows of a run have figures of, the one that counts first.

    Raises:
        RecordError: See `metric_of`.
    """
    names = [name for row in rows for name, value in row.items() if value is not None]
    return list(dict.fromkeys([metric_of(rows), *filter(is_metric, names)]))
