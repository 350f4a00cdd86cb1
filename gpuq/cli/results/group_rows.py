"""The jobs of a group as a table: what each was given beside what it reported. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from gpuq.cli.job_text import LETTERS, elapsed, metric_word
from gpuq.cli.render import (
    DIM,
    NAME_LEAST,
    Cell,
    Column,
    Look,
    cut,
    fitting,
    printable,
    table,
)
from gpuq.core.results.ranking import as_number, is_number
from gpuq.core.units import count, format_seconds

Row = Any
SIGNS = 16  # of a text: nobody compares by what stands behind them
SHORT = 10  # a number as it was written
FIRST, PARAMETER, METRIC = 1, 2, 3  # what is left out last, and first


def job_table(rows: Sequence[Row], look: Look, first: str | None = None) -> list[str]:
    """What it is sorted by, or best by, stands `first`, parameters stand before other metrics. Columns
    that find no room are left out as a whole, and the last line says how many."""
    columns = [
        Column("ID", _ids, right=True),
        Column("INDEX", lambda row: _text(row["array_index"]), right=True),
        Column("ST", _letter),
        Column("DONE", _done, right=True),
        Column("TIME", lambda row: _time(row, look.now), right=True),
        Column("NAME", _name(rows), least=NAME_LEAST),
        Column("", _mark(rows)),
        *_values(rows, first),
    ]
    kept = fitting(columns, rows, look)
    lines = table(kept, rows, look)
    if left_out := len(columns) - len(kept):
        lines.append(f"+{count(left_out, 'column')}: --export FILE or --json has all")
    return lines


def _values(rows: Sequence[Row], first: str | None) -> list[Column]:
    parameters = names_in(rows, "parameters")
    metrics = sorted(names_in(rows, "metrics"), key=lambda name: (_is_text(rows, name), name))
    known = [("parameters", name) for name in parameters] + [("metrics", name) for name in metrics]
    told = [place for place in reversed(known) if place[1] == first][:1]
    columns = [(place, FIRST) for place in told]
    columns += [
        (place, PARAMETER if place[0] == "parameters" else METRIC)
        for place in known
        if place not in told
    ]
    return [
        _column(what, name, "reported" if name in parameters and what == "metrics" else "", rank)
        for (what, name), rank in columns
    ]


def _is_text(rows: Sequence[Row], metric: str) -> bool:
    """Behind what can be compared."""
    return not any(is_number(row["metrics"].get(metric)) for row in rows)


def names_in(rows: Sequence[Row], what: str) -> list[str]:
    """Of parameters or metrics, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row[what]))


def _column(what: str, name: str, mark: str, rank: int) -> Column:
    word = _parameter_word if what == "parameters" else short_metric

    def text(row: Row) -> str:
        return cut(printable(word(row[what][name])), SIGNS) if name in row[what] else ""

    title = f"{cut(printable(name), SIGNS)} {mark}".rstrip()
    return Column(title, text, right=True, optional=rank)


def short_metric(value: Any) -> str:
    """Four digits, or as many as the whole number before the point has."""
    if not isinstance(value, float):
        return metric_word(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _parameter_word(text: str) -> str:
    """As it was given, but for a long fraction."""
    number = as_number(text) if len(text) > SHORT and not text.lstrip("-").isdigit() else None
    return text if number is None else f"{number:.4g}"


def _name(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Where they are of one array, their indices tell them apart."""
    is_array = all(row["array_index"] is not None or row["last_id"] > row["id"] for row in rows)
    is_one = is_array and len({row["group"] for row in rows}) == 1
    return lambda row: "" if is_one else printable(row["name"])


def _mark(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Where all are simulated the head of it all says so."""
    ran = [row for row in rows if row["attempt"]]
    is_mixed = len({row["gpus_simulated"] for row in ran}) > 1
    return lambda row: "simulated" if is_mixed and row["gpus_simulated"] else ""


def _ids(row: Row) -> str:
    return str(row["id"]) if row["id"] == row["last_id"] else f"{row['id']}-{row['last_id']}"


def _letter(row: Row) -> Cell:
    return LETTERS.get(row["outcome"] or row["state"], ("?", DIM))


def _done(row: Row) -> str:
    progress = row["progress"]
    return "" if progress is None else f"{int(progress * 100)}%"


def _time(row: Row, now: float) -> str:
    seconds = elapsed(row, now)
    return "" if seconds is None else format_seconds(round(seconds, 1 if seconds < 60 else None))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
