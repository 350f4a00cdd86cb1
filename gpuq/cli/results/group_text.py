"""A group of jobs as text: what became of it, its best, its end, its errors, and its table."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.cli.expected_text import clock_at
from gpuq.cli.job_text import LETTERS, elapsed, metric_word, parameters_of
from gpuq.cli.render import (
    DIM,
    Cell,
    Column,
    Look,
    bar,
    clip,
    paint,
    plain,
    printable,
    rfc3339,
    tabbed,
    table,
)
from gpuq.core.units import format_seconds

Group = Mapping[str, Any]
Row = Mapping[str, Any]

PARTS = ("unstarted", "running", "succeeded", "failed", "cancelled", "skipped")
USUALLY_NONE = ("cancelled", "skipped")
SHOWN_ERRORS = 5
BAR_CELLS = 20
SURE = {"rough": "a rough guess", "fair": "fairly sure", "good": "sure"}


def summary(group: Group, look: Look) -> list[str]:
    lines = [_title(group), _parts(group), *_best(group), *_end(group, look.now)]
    lines += _errors(group) + _given_up(group)
    return [clip(plain(line, look), look.width) for line in lines]


def _title(group: Group) -> str:
    gone = f", {group['forgotten']} more are forgotten" if group["forgotten"] else ""
    rule = group["on_failure"]
    rule = "" if rule in (None, "continue") else f", on failure {rule}"
    return f"{printable(group['name'])}: {_jobs(group['total'])}{gone}{rule}"


def _jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"


def _parts(group: Group) -> str:
    said = [f"{group[part]} {part}" for part in PARTS if group[part] or part not in USUALLY_NONE]
    if group["held"]:
        said[0] += f" ({group['held']} held)"
    done = group["total"] - group["unstarted"] - group["running"]
    return f"{bar(done, group['total'], BAR_CELLS)}  {', '.join(said)}"


def _best(group: Group) -> list[str]:
    best = group["best"]
    if best is None:
        return []
    parameters = printable(parameters_of(best))
    state = best["outcome"] or best["state"]
    about = ", ".join(part for part in (parameters, state.replace("_", " ")) if part)
    value = metric_word(best["value"])
    return [
        f"best {printable(best['metric'])} {value} ({best['direction']}): job {best['job']}, {about}"
    ]


def _end(group: Group, now: float) -> list[str]:
    """When it will have ended and how sure that is, or why nobody knows."""
    end = group["estimated_end"]
    if end is None:
        return _no_end(group)
    between = ""
    if end["earliest_at"] is not None:
        first, last = (clock_at(max(end[name], now), now) for name in ("earliest_at", "latest_at"))
        between = f", between {first} and {last}" if first != last else ""
    left, mean = format_seconds(max(round(end["at"] - now), 0)), format_seconds(end["mean_s"])
    runs = "1 run took" if end["runs"] == 1 else f"{end['runs']} runs took"
    held = f", without the {group['held']} held" if group["held"] else ""
    return [
        f"ends about {clock_at(end['at'], now)} (in {left}){between}",
        f"  {SURE[end['sureness']]}: {runs} {mean} on average, {end['at_once']} at once{held}",
    ]


def _no_end(group: Group) -> list[str]:
    if not group["unstarted"] and not group["running"]:
        return []
    if not group["running"]:
        return ["its end is not known: nothing of it runs now"]
    return ["its end is not known: nothing of it has ended by itself yet"]


def _errors(group: Group) -> list[str]:
    errors = group["errors"]
    lines = [
        f"×{error['count']} {printable(error['what'])}  (gpuq logs {error['job']})"
        for error in errors[:SHOWN_ERRORS]
    ]
    if more := len(errors) - SHOWN_ERRORS:
        lines += [f"and {more} other kinds of errors"] if more > 0 else []
    return lines


def _given_up(group: Group) -> list[str]:
    why = group["why_cancelled"]
    return [f"cancelled: {printable(why)}"] if why else []


def summary_row(group: Group) -> str:
    """For a pipe: counts, the best value and the estimated end."""
    best, end = group["best"], group["estimated_end"]
    return tabbed(
        [
            *(group["name"], group["total"], *(group[part] for part in PARTS)),
            None if best is None else best["value"],
            None if end is None else rfc3339(end["at"]),
        ]
    )


# ── its jobs ──


def job_table(rows: Sequence[Row], look: Look) -> list[str]:
    """Parameters beside metrics; columns that do not fit are cut off at the right."""
    columns = [
        Column("ID", _ids, right=True),
        Column("INDEX", lambda row: _text(row["array_index"]), right=True),
        Column("ST", _letter),
        Column("NAME", _name(rows)),
        *(_column("parameters", name) for name in names_in(rows, "parameters")),
        *(_column("metrics", name) for name in sorted(names_in(rows, "metrics"))),
        Column("DONE", _done, right=True),
        Column("TIME", lambda row: _time(row, look.now), right=True),
    ]
    lines = table(columns, rows, look._replace(width=10**6))
    return [clip(line, look.width) for line in lines]


def names_in(rows: Sequence[Row], what: str) -> list[str]:
    """Of parameters or metrics, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row[what]))


def _column(what: str, name: str) -> Column:
    def text(row: Row) -> str:
        return printable(metric_word(row[what][name])) if name in row[what] else ""

    return Column(printable(name), text, right=True)


def _name(rows: Sequence[Row]) -> Any:
    """Where they are of one array, their indices tell them apart."""
    is_array = all(row["array_index"] is not None or row["last_id"] > row["id"] for row in rows)
    is_one = is_array and len({row["group"] for row in rows}) == 1
    return lambda row: "" if is_one else printable(row["name"])


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


def foot(group: Group, rows: Sequence[Row], look: Look) -> list[str]:
    """How many jobs the table leaves out."""
    shown = sum(row["last_id"] - row["id"] + 1 for row in rows)
    left = group["total"] - shown
    if left <= 0:
        return []
    return [paint(plain(f"{left} more: --limit 0 shows all", look), DIM, look)]


def job_row(row: Row) -> str:
    """For a pipe: always the same columns."""
    import json

    return tabbed(
        [
            *(row["id"], row["array_index"], row["state"], row["outcome"], row["exit_code"]),
            *(row["name"], rfc3339(row["started_at"]), rfc3339(row["ended_at"]), row["progress"]),
            *(json.dumps(row[what], ensure_ascii=False) for what in ("parameters", "metrics")),
        ]
    )


# ── exports ──


def exported(row: Row) -> dict[str, Any]:
    """A job as a row of a file, without what changes while nothing happens."""
    kept = (
        "id name user group array_index state outcome exit_code signal attempt started_at ended_at "
        "progress parameters metrics"
    )
    return {name: row[name] for name in kept.split()} | {"run_s": _run_s(row)}


def _run_s(row: Row) -> float | None:
    if row["started_at"] is None or row["ended_at"] is None:
        return None
    seconds: float = row["ended_at"] - row["started_at"] - row["paused_s"]
    return max(round(seconds, 3), 0.0)


def flat(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For a table of plain values: a column for each parameter and each metric, whatever else is called
    so. All rows have all of them, in one order."""
    parameters, metrics = names_in(rows, "parameters"), sorted(names_in(rows, "metrics"))
    return [_flat(row, parameters, metrics) for row in rows]


def _flat(row: Row, parameters: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    plainly = {name: value for name, value in row.items() if name not in ("parameters", "metrics")}
    plainly |= {f"parameters.{name}": row["parameters"].get(name) for name in parameters}
    return plainly | {f"metrics.{name}": row["metrics"].get(name) for name in metrics}


def exported_about(group: Group) -> dict[str, Any]:
    """Of the group what does not change while nothing happens: its estimated end does."""
    return {name: value for name, value in group.items() if name not in ("estimated_end", "jobs")}
