"""Each layer in the baseline and after the last stage: shape, weights, zeros, MACs, bits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from netopt_cli.report.markup import Markup, element, joined, table
from netopt_cli.report.subject import Entry, Subject, of, of_seed
from netopt_cli.tables import count_text

_BITS = {"float32": "32", "float16": "16", "int16": "16", "int8": "8", "int4": "4"}
_HEADER = ["layer", "shape", "params", "zero", "MACs", "bits", "not zero, left", "MACs left"]
_SUFFIX = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Layer:
    """What the record tells of a layer.

    Attributes:
        macs: Of one inference; None where none of the counted operations is the layer's.
        dtype: Of its weights in the file; empty where the file has none of them.
    """

    shape: str
    params: int
    nonzero: int
    macs: int | None
    dtype: str

    @property
    def zeros(self) -> float:
        return 1 - self.nonzero / self.params if self.params else 0.0


def of_entry(subject: Subject, entry: Entry) -> dict[str, Layer]:
    """The layers of a row by name."""
    measured = of(subject.facts(entry), "measurement", dict)
    rows = [row for row in of(measured, "layers", list) if isinstance(row, dict)]
    names = [str(row.get("layer")) for row in rows]
    macs = macs_by_layer(of(measured, "macs_by_operation", dict), names)
    return {
        name: Layer(
            "×".join(str(size) for size in of(row, "shape", list)),
            _count(row.get("params")),
            _count(row.get("nonzero")),
            macs.get(name),
            of(row, "dtype", str),
        )
        for name, row in zip(names, rows, strict=True)
    }


def macs_by_layer(by_operation: dict[str, Any], layers: Iterable[str]) -> dict[str, int]:
    """Sums the MACs of the operations of each layer.

    The trace calls `block/conv` `net_1/block_1/conv_1/convolution`: it numbers every scope. So a
    number is taken off first, and `dense_1` in a trace is a call of `dense`, where there is one.
    """
    by_depth = sorted({tuple(name.split("/")) for name in layers}, key=len, reverse=True)
    found: dict[str, int] = {}
    for operation, count in by_operation.items():
        scopes = str(operation).split("/")[:-1]
        bare = [_SUFFIX.sub("", scope) for scope in scopes]
        owner = next((name for name in by_depth if _is_in(name, bare)), None)
        owner = owner or next((name for name in by_depth if _is_in(name, scopes)), None)
        if owner is not None:
            name = "/".join(owner)
            found[name] = found.get(name, 0) + _count(count)
    return found


def _is_in(name: tuple[str, ...], scopes: list[str]) -> bool:
    size = len(name)
    return any(tuple(scopes[n : n + size]) == name for n in range(len(scopes) - size + 1))


def section(subject: Subject) -> Markup | None:
    """The table; None where the record has no layers."""
    first, last = subject.baseline, subject.last
    if first is None or last is None:
        return None
    before, after = of_entry(subject, first), of_entry(subject, last)
    # What has no part in the file, as the range of a quantizer, is one line at the end.
    names = [n for n in dict.fromkeys([*before, *after]) if n in before or after[n].dtype]
    others = [after[name] for name in after if name not in names]
    if not names:
        return None
    has_macs = any(layer.macs is not None for layer in after.values())
    rows = [_row(name, before.get(name), after.get(name), has_macs=has_macs) for name in names]
    if others:
        params = sum(layer.params for layer in others)
        rows.append([f"{len(others)} more, not in the file as weights", "", f"{params:,}",
                     "", "", "", "", ""])  # fmt: skip
    told = (
        f"From {first.name} to {last.name}. A layer that is in one of the two alone has a dash for "
        f"the other. Bits are those of its weights in the file. {of_seed(subject)}"
    )
    return joined(element("p", told, class_="note"), table(_HEADER, rows, words=(0, 1)))


def _row(name: str, before: Layer | None, after: Layer | None, *, has_macs: bool) -> list[str]:
    def change(text: Any) -> str:
        texts = ["–" if layer is None else text(layer) for layer in (before, after)]
        return texts[0] if texts[0] == texts[1] else " → ".join(texts)

    def macs(layer: Layer) -> str:
        # Those of segments with exits are on the record of the whole network alone.
        unknown = "?" if layer is after and not has_macs else "–"
        return unknown if layer.macs is None else count_text(layer.macs)

    return [
        name,
        change(lambda layer: layer.shape),
        change(lambda layer: f"{layer.params:,}"),
        change(lambda layer: f"{100 * layer.zeros:.1f} %"),
        change(macs),
        change(lambda layer: "/".join(_BITS.get(d, d) for d in layer.dtype.split("/")) or "–"),
        _bar(before.nonzero if before else None, after.nonzero if after else 0),
        _bar(before.macs if before else None, after.macs if after else 0),
    ]


def _bar(before: int | None, after: int | None) -> Markup | str:
    """The part that is left, as a bar."""
    if not before or after is None:
        return ""
    part = after / before
    inner = element("span", style=f"width:{min(100 * part, 100):.1f}%")
    return joined(element("span", inner, class_="bar"), f" {100 * part:.0f} %")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
