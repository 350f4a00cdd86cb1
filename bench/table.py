"""The rows as one table: for a terminal, or as Markdown for a document."""

from collections.abc import Sequence
from typing import Any

from bench.figures import GPUQ, LIMIT, Judged, Row, Samples

PEERS = ("task-spooler", "HyperQueue", "Slurm", "gflow")
HEAD = ("work", "gpuq", "beside it", *PEERS, "target", "reached", "met")
NONE = "–"


def as_text(rows: Sequence[Row]) -> str:
    lines = [HEAD, *(line for row in rows for line in _lines(row, spread=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    drawn = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([drawn[0], "-" * len(drawn[0]), *drawn[1:], "", *_footnotes(rows)])


def as_markdown(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(line for row in rows for line in _lines(row))]
    drawn = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*drawn, "", *(f"- {note}" for note in _footnotes(rows))])


def about(machine: dict[str, Any], versions: dict[str, str], loads: tuple[float, float]) -> str:
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['at']}: {machine['cores']} cores of {machine['processor']}, Linux "
        f"{machine['kernel']}, Python {machine['python']}, {machine['file_system']}; {told}. "
        f"Load average {loads[0]:.2f} at the beginning, {loads[1]:.2f} at the end. "
        "Medians, with the least and the most of the rounds in brackets."
    )


def _lines(row: Row, spread: bool = False) -> list[tuple[str, ...]]:
    """A line for each target, one where there is none."""
    beside = _cell(row.samples.get(LIMIT), spread)
    if row.limit and LIMIT in row.samples:
        beside += f" {row.limit}"
    first = (
        f"{row.work}, {row.unit}",
        _cell(row.samples.get(GPUQ), spread),
        beside,
        *(_cell(row.samples.get(name), spread) for name in PEERS),
    )
    targets = [_judged(row, judged) for judged in row.judged()] or [("", "", "")]
    blank = ("",) * len(first)
    return [(*(blank if number else first), *told) for number, told in enumerate(targets)]


def _cell(samples: Samples | None, spread: bool) -> str:
    if samples is None:
        return NONE
    if samples.median is None or samples.least is None or samples.most is None:
        return "not measured*"
    if not spread or len(samples.values) == 1:
        return number(samples.median)
    return f"{number(samples.median)} ({number(samples.least)}–{number(samples.most)})"


def _judged(row: Row, judged: Judged) -> tuple[str, str, str]:
    target = judged.target
    sign = "≥" if row.more_is_better else "≤"
    bounds = number(target.at_least)
    if target.aim is not None:
        bounds += f", aim {number(target.aim)}"
    against = row.limit if target.against == LIMIT else target.against
    words = f"{sign} {bounds} x {against}" if against else f"{sign} {bounds} {row.unit}"
    reached = NONE if judged.value is None else number(judged.value)
    if judged.is_met is None:
        return words, reached, NONE
    met = "yes" if judged.is_met else "NO"
    return words, reached, f"{met}, the aim too" if judged.is_aim_met else met


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _footnotes(rows: Sequence[Row]) -> list[str]:
    absent = {
        f"* {name}: {samples.why_none}": None
        for row in rows
        for name, samples in row.samples.items()
        if samples.why_none is not None
    }
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            notes.setdefault(note, []).append(row.work)
    return [*absent, *(_of_one(note, works) for note, works in notes.items())]


def _of_one(note: str, works: list[str]) -> str:
    """What is said of several lines stands for itself."""
    return note if len(works) > 1 else f"{works[0]}: {note}"
