"""A group of jobs as text: what became of it, its best, its end, its errors, and its table."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpuq.cli.expected_text import clock_at
from gpuq.cli.job_text import metric_word, parameters_of
from gpuq.cli.render import DIM, RED, Look, clip, paint, plain, printable, rfc3339, tabbed, width
from gpuq.core.units import format_seconds

Group = Mapping[str, Any]
Row = Mapping[str, Any]

PARTS = ("unstarted", "running", "succeeded", "failed", "cancelled", "skipped")
USUALLY_NONE = ("cancelled", "skipped")
BAD = ("failed", "cancelled", "skipped")
BAD_CELL = "▓"
SHOWN_ERRORS = 5
BAR_CELLS = 20
SURE = {"rough": "a rough guess", "fair": "fairly sure", "good": "sure"}


def summary(group: Group, look: Look) -> list[str]:
    lines = [_title(group), *_parts(group, look), *_best(group), *_end(group, look.now)]
    lines += _errors(group) + _given_up(group)
    return [clip(plain(line, look), look.width) for line in lines]


def _title(group: Group) -> str:
    gone = f", {group['forgotten']} more are forgotten" if group["forgotten"] else ""
    rule = group["on_failure"]
    rule = "" if rule in (None, "continue") else f", on failure {rule}"
    simulated = group["simulated"]
    where = f", {simulated} on simulated GPUs" if simulated else ""
    return f"{printable(group['name'])}: {_jobs(group['total'])}{where}{gone}{rule}"


def _jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"


def _parts(group: Group, look: Look) -> list[str]:
    """The bar with its parts beside it, or below where they have no room there."""
    said = [_part(group, part) for part in PARTS if group[part] or part not in USUALLY_NONE]
    if group["held"]:
        said[0] += f" ({group['held']} held)"
    bar, words = _bar(group, look), ", ".join(said)
    if BAR_CELLS + 2 + width(words) <= look.width:
        return [f"{bar}  {words}"]
    lines = [bar, said[0]]
    for part in said[1:]:
        if width(lines[-1]) + width(part) + 3 > look.width:
            lines.append(part)
        else:
            lines[-1] += f", {part}"
    return lines


def _part(group: Group, part: str) -> str:
    mark = f"{BAD_CELL} " if part in BAD and group[part] else ""
    return f"{mark}{group[part]} {part}"


def _bar(group: Group, look: Look) -> str:
    """What succeeded, and of another shade what ended otherwise; never nothing of what there is."""
    bad = sum(group[part] for part in BAD)
    bad_cells = max(round(bad / group["total"] * BAR_CELLS), 1) if bad else 0
    done = round((group["succeeded"] + bad) / group["total"] * BAR_CELLS)
    good_cells = max(done - bad_cells, 1 if group["succeeded"] else 0)
    bad_cells = min(bad_cells, BAR_CELLS - good_cells)
    good, rest = "█" * good_cells, "░" * (BAR_CELLS - good_cells - bad_cells)
    return f"{good}{paint(BAD_CELL * bad_cells, RED if bad_cells else '', look)}{rest}"


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


def foot(group: Group, rows: Sequence[Row], look: Look) -> list[str]:
    """How many jobs the table leaves out, and whose reports were not all taken."""
    shown = sum(row["last_id"] - row["id"] + 1 for row in rows)
    left = group["total"] - shown
    said = [f"{left} more: --limit 0 shows all"] if left > 0 else []
    said += _not_taken(rows)
    return [paint(clip(plain(line, look), look.width), DIM, look) for line in said]


def _not_taken(rows: Sequence[Row]) -> list[str]:
    troubled = sorted(row["id"] for row in rows if row.get("report_trouble"))
    if not troubled:
        return []
    more = f" and {len(troubled) - 1} more" if len(troubled) > 1 else ""
    return [f"not all was taken that job {troubled[0]}{more} reported: gpuq show {troubled[0]}"]


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
        "id name user group array_index state outcome exit_code signal attempt gpus_simulated "
        "started_at ended_at progress parameters metrics"
    )
    return {name: row[name] for name in kept.split()} | {"run_s": _run_s(row)}


def _run_s(row: Row) -> float | None:
    if row["started_at"] is None or row["ended_at"] is None:
        return None
    seconds: float = row["ended_at"] - row["started_at"] - row["paused_s"]
    return max(round(seconds, 3), 0.0)


def exported_about(group: Group) -> dict[str, Any]:
    """Of the group what does not change while nothing happens: its estimated end does."""
    return {name: value for name, value in group.items() if name not in ("estimated_end", "jobs")}
