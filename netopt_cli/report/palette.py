"""The colours of a report, by what they are for; those of series can be told apart by people who
do not see red and green (after Okabe and Ito, 2008)."""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff", "panel": "#f6f7f9", "ink": "#1b2430", "muted": "#667080",
    "faint": "#dfe3e8", "good": "#0b7a4b", "bad": "#b3372a",
    "series-0": "#0067b0", "series-1": "#c85a00", "series-2": "#008a64", "series-3": "#a8508a",
    "series-4": "#8a6d00", "series-5": "#2f8fc4", "series-6": "#7a4bb3", "series-7": "#5c6b2f",
}  # fmt: skip
DARK = {
    "paper": "#12161c", "panel": "#1b212a", "ink": "#e8ecf1", "muted": "#98a3b3",
    "faint": "#313a46", "good": "#4fc38a", "bad": "#f0806f",
    "series-0": "#56b4e9", "series-1": "#f2a04a", "series-2": "#3cc79b", "series-3": "#dd93c4",
    "series-4": "#e3cf4d", "series-5": "#8ccbf0", "series-6": "#b79af0", "series-7": "#b3c47a",
}  # fmt: skip

BASELINE = "ink"
CONTROL = "muted"


def series(number: int) -> str:
    """The colour of the stage, or run, of that number from 0."""
    return f"series-{number % 8}"


def css() -> str:
    """The colours as CSS variables: light, dark where the reader prefers it, light on paper."""

    def variables(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}\n"
    )
