"""The file that `netopt check` compares a run with: figures over seeds, and rules.

    {
      "format": 1,
      "made_of": {"run": …, "seeds": […], "metric": "accuracy", …},
      "reference": "baseline",         the row whose latency the others' is divided by
      "false_alarm": 0.005,            how often a figure that has not changed may fail by chance
      "rules": {"accuracy": {"direction": "higher", "absolute": 0.003, "spread": true}, …},
      "rows": {"prune": {"role": …, "rules": {}, "figures": {"accuracy": {"mean": …}, …}}, …}
    }

It is to be read and edited. A rule is for a column; one of a row goes before one of all rows, and
"ignore" stands for no rule, also for a whole row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.files import write_text
from netopt_cli.metrics import ACCURACY

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
Ignore = Literal["ignore"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Part):
    """How far a figure may be from the baseline's; the widest of the tolerances that it names.

    Attributes:
        direction: Which way is better: a change that way never fails. `both`: none is.
        absolute: In the unit of the column: 0.01 of accuracy is one point.
        relative: A fraction of the baseline's mean.
        spread: Whether the spread of the baseline's seeds is a tolerance; by default when the rule
            names no other.
    """

    direction: Literal["higher", "lower", "both"]
    absolute: _Amount | None = None
    relative: _Amount | None = None
    spread: bool | None = None

    @property
    def uses_spread(self) -> bool:
        if self.spread is None:
            return self.absolute is None and self.relative is None
        return self.spread


class Figure(_Part):
    """A column of a row over the seeds; `values` are for people."""

    mean: _Finite
    sd: _Amount | None = None
    n: Annotated[int, Field(ge=1)]
    values: list[_Finite] = []


class BaselineRow(_Part):
    role: str
    rules: dict[str, Rule | Ignore] | Ignore = {}
    figures: dict[str, Figure]


class MadeOf(_Part):
    """Where the figures come from; `fingerprint` is that of the data, empty for any data; `metric`
    is the column that counts, and `protocol` how it was taken, where there are several ways."""

    run: str
    command: str
    seeds: list[int]
    started: str
    data: str
    fingerprint: str
    git_commit: str
    processor: str
    metric: str = ACCURACY
    protocol: str = ""


class Baseline(_Part):
    format: Literal[1] = 1
    made_of: MadeOf
    reference: str = "baseline"
    false_alarm: Annotated[float, Field(gt=0, lt=0.5)] = 0.005
    rules: dict[str, Rule | Ignore]
    rows: dict[str, BaselineRow]

    def rule(self, row: str, column: str) -> Rule | None:
        """The rule of a figure; None where it is not checked."""
        of_row = self.rows[row].rules
        if of_row == "ignore":
            return None
        found = of_row.get(column, self.rules.get(column, "ignore"))
        return None if found == "ignore" else found


def read(path: Path) -> Baseline:
    """Reads a baseline.

    Raises:
        InputError: It is missing, no JSON, or breaks a rule: which, where, and what was received.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the baseline {path}: {error.strerror}. "
            "Make it of a good run: netopt check RUN --baseline FILE --update"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the baseline {path} is no JSON: {error}") from error
    try:
        return Baseline.model_validate(content)
    except ValidationError as error:
        raise InputError(f"the baseline {path}: {_first(error)}") from error


def write(path: Path, baseline: Baseline) -> None:
    write_text(path, _text(baseline.model_dump(exclude_none=True), "") + "\n")


def _first(error: ValidationError) -> str:
    """The first thing that is wrong; an unknown key before the one that is missing for it, and what
    is wrong with a rule before that it is not the word "ignore"."""

    def rank(found: ErrorDetails) -> bool:
        return found["type"] != "extra_forbidden"

    rules = [each for each in error.errors() if "literal['ignore']" not in each["loc"]]
    first = min(rules or error.errors(), key=rank)
    place = [str(part) for part in first["loc"] if part not in ("Rule", "literal['ignore']")]
    where = ".".join(part for part in place if not part.startswith("dict["))
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}'.{did_you_mean(place[-1], _keys_beside(place))}"
    received = "" if first["type"] == "missing" else f" Received: {first['input']!r:.80}"
    return f"'{where}': {first['msg']}.{received}"


def _keys_beside(place: list[str]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"rules": Rule, "figures": Figure, "made_of": MadeOf}
    inside = next((kinds[part] for part in reversed(place[:-1]) if part in kinds), None)
    if inside is None:
        inside = BaselineRow if "rows" in place[:-1] else Baseline
    return list(inside.model_fields)


def _text(node: Mapping[str, Any], indent: str) -> str:
    """JSON with a line for each figure and rule, so that a change of one is a line in a diff."""
    inner = indent + "  "
    lines = []
    for key, value in node.items():
        nested = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
        text = _text(value, inner) if nested else json.dumps(value, allow_nan=False)
        lines.append(f"{inner}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
