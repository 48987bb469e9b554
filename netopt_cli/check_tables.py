"""The outcome of a check: a table, JUnit XML, and Markdown for the summary of a CI job."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from netopt_cli import text_table
from netopt_cli.checking import Check

LEFT = ("row", "column", "verdict")


def columns(checks: Sequence[Check]) -> dict[str, list[str]]:
    return {
        "row": [each.row for each in checks],
        "column": [each.column for each in checks],
        "baseline": [each.baseline for each in checks],
        "this run": [each.received for each in checks],
        "change": [each.change for each in checks],
        "allowed": [each.allowed for each in checks],
        "verdict": [each.verdict for each in checks],
    }


def conclusion(checks: Sequence[Check]) -> str:
    failed = [each for each in checks if not each.passed]
    better = [each for each in checks if each.verdict == "better"]
    if not checks:
        return "nothing was checked: the baseline has no rows with rules"
    text = f"{len(failed)} of {len(checks)} checks failed" if failed else f"{len(checks)} checks ok"
    if better and not failed:
        text += f", {len(better)} better than the baseline: --update takes it"
    return text


def junit(checks: Sequence[Check], run: str) -> str:
    """One test case a figure, in the form that CI servers read."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"netopt check {text_table.plain(run)}",
        tests=str(len(checks)),
        failures=str(sum(not each.passed for each in checks)),
        errors="0",
    )
    for each in checks:
        name, row = text_table.plain(each.column), text_table.plain(each.row)
        case = ElementTree.SubElement(suite, "testcase", classname=row, name=name)
        if not each.passed:
            message = text_table.plain(each.message)
            ElementTree.SubElement(case, "failure", message=message).text = message
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def summary(checks: Sequence[Check], run: str, remarks: Sequence[str]) -> str:
    """Markdown: what failed first, then everything."""
    failed = [each for each in checks if not each.passed]
    head = f"### netopt check {text_table.plain(run)}: {conclusion(checks)}"
    parts = [head, *(f"- {text_table.plain(each.message)}" for each in failed)]
    parts += [f"- {text_table.plain(remark)}" for remark in remarks]
    return "\n".join(parts) + "\n\n" + text_table.markdown(columns(checks)) + "\n"
