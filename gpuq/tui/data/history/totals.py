"""How much each user ended and had in a time: two answers of the daemon put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.cli.render import Column, Look, cut, fitting, printable, table, width
from gpuq.cli.results.past_text import hours_of, simulated_hours
from gpuq.core.units import count

Answer = Mapping[str, Any]
ALL = "all"
OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """`rows` have user, ended, failed and leased_gpu_s each (s), who had most first; `total` is all of
    them. `at` is when it was asked for, s since the epoch."""

    rows: Sequence[dict[str, Any]]
    total: dict[str, Any]
    simulated: str
    at: float


def totals_of(stats: Answer, usage: Answer, at: float) -> Totals:
    """Of answers to `stats` and `usage`, both by user."""
    had = {one["user"]: one["leased_gpu_s"] for one in usage["users"]}
    rows = {}
    for one in stats["stats"]:
        ended = one["jobs"] - one["queued"] - one["running"]
        user = OTHERS if one["key"] is None else one["key"]
        rows[user] = _row(user, ended, one["failed"], had.get(user, 0.0))
    for user, gpu_s in had.items():
        if gpu_s and user not in rows:
            rows[user] = _row(user, 0, 0, gpu_s)
    shown = [row for row in rows.values() if row["ended"] or row["leased_gpu_s"]]
    shown.sort(key=lambda row: (-row["leased_gpu_s"], -row["ended"], row["user"]))
    ended, failed = (sum(row[name] for row in shown) for name in ("ended", "failed"))
    total = _row(ALL, ended, failed, usage["total"]["leased_gpu_s"])
    total["simulated_gpu_s"] = usage["total"]["simulated_gpu_s"]
    return Totals(rows=shown, total=total, simulated=simulated_hours(usage["total"]), at=at)


def _row(user: str, ended: int, failed: int, gpu_s: float) -> dict[str, Any]:
    return {"user": user, "ended": ended, "failed": failed, "leased_gpu_s": gpu_s}


def as_table(totals: Totals, look: Look) -> list[str]:
    """A line for each user, and for all of them where they are several."""
    hours = hours_of([*totals.rows, totals.total])
    rows = [*totals.rows, totals.total] if len(totals.rows) > 1 else list(totals.rows)
    columns = [
        Column("USER", lambda row: printable(row["user"]), least=8),
        Column("ENDED", lambda row: str(row["ended"]), right=True),
        Column("FAILED", lambda row: str(row["failed"]), right=True, unused=None),
        Column("GPU HOURS", lambda row: hours(row["leased_gpu_s"]), right=True),
    ]
    return table(fitting(columns, rows, look), rows, look)


def _simulated_words(total: Mapping[str, Any]) -> str:
    if not total["simulated_gpu_s"]:
        return ""
    is_all = total["simulated_gpu_s"] >= total["leased_gpu_s"]
    return " (simulated)" if is_all else " (some simulated)"


def as_line(totals: Totals, room: int) -> str:
    """As many users as there is room for: "41 ended, 3 failed, 12.50 GPU hours; alice 30, 10.20 h"."""
    hours = hours_of([*totals.rows, totals.total])
    total = totals.total
    told = f"{total['ended']} ended, {total['failed']} failed"
    told += f", {hours(total['leased_gpu_s'])} GPU hours{_simulated_words(total)}"
    for number, row in enumerate(totals.rows if len(totals.rows) > 1 else ()):
        more = f"{'; ' if not number else ', '}{printable(row['user'])} {row['ended']}"
        more += f" ({hours(row['leased_gpu_s'])})"
        if width(told + more) > room:
            left = count(len(totals.rows) - number, "user")
            return cut(f"{told}{', ' if number else '; '}+{left}", room)
        told += more
    return told
