"""The columns of the list of jobs: which of them there is room for, and what stands in each."""

from dataclasses import dataclass
from functools import lru_cache

from gpuq.cli.expected_text import WEEK_S, starts_at
from gpuq.cli.fold_text import is_folded, name_of, reason_of
from gpuq.cli.job_text import (
    command_or_reason,
    elapsed,
    gpus_of,
    left,
    letter,
    progress_of,
    signal_name,
)
from gpuq.cli.render import bar, clock, printable
from gpuq.core.units import format_seconds, parse_ranges
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import BOLD, BY_CODE, DIM, PLAIN_STYLE, Line

HOUR_S = 3600
GLYPHS = dict.fromkeys("RS", "▶") | dict.fromkeys("FTOLU", "✗")
GLYPHS |= {"Q": "·", "D": "·", "B": "·", "N": "○", "X": "○", "C": "✓", "H": "‖", "P": "‖", "K": "▼"}
BAR = 6

# From which width on there is room for a column, and how wide it is.
NAMES = ((40, 10), (60, 12), (80, 13), (92, 16), (110, 20), (140, 28))
USERS = ((66, 6), (92, 8), (140, 12))
GPUS = ((48, 4), (92, 5), (110, 9))
PRIORITIES = ((70, 3), (110, 4))
LEFTS = ((56, 8),)
PROGRESSES = ((90, 4), (110, BAR + 5))
ID_MOST = ((0, 8), (70, 9), (92, 15))


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths in cells; 0: no room for it."""

    id: int
    name: int
    user: int
    gpu: int
    priority: int
    left: int
    progress: int


@lru_cache(maxsize=16)
def columns(room: int, digits: int, has_runs: bool, has_progress: bool) -> Columns:
    """For a table of that width, whose largest id has so many digits. They hang on nothing that comes
    and goes, so no column jumps."""
    wanted = max(2 * digits + 1 if has_runs else digits, 4)
    return Columns(
        id=min(wanted, _at(ID_MOST, room)),
        name=_at(NAMES, room) or 8,
        user=_at(USERS, room),
        gpu=_at(GPUS, room),
        priority=_at(PRIORITIES, room),
        left=_at(LEFTS, room),
        progress=_at(PROGRESSES, room) if has_progress else 0,
    )


def _at(steps: tuple[tuple[int, int], ...], room: int) -> int:
    return max((width for least, width in steps if room >= least), default=0)


def write_head(line: Line, columns: Columns) -> None:
    line.add("  ").add("ID", DIM, wide=columns.id + 1).add("ST ", DIM)
    line.add("NAME", DIM, wide=columns.name + 1)
    if columns.user:
        line.add("USER", DIM, wide=columns.user + 1)
    if columns.gpu:
        line.add("GPU", DIM, wide=columns.gpu + 1)
    if columns.priority:
        line.add("PRI", DIM, wide=columns.priority, right=True)
    line.add("TIME", DIM, wide=7, right=True)
    if columns.left:
        line.add("LEFT", DIM, wide=columns.left + 1, right=True)
    if columns.progress:
        line.add(" ").add("DONE", DIM, wide=columns.progress)
    line.add("  COMMAND / REASON", DIM)


def write_row(
    line: Line,
    row: Row,
    columns: Columns,
    now: float,
    *,
    user: str,
    sign: str,
    is_below: bool = False,
) -> None:
    """`sign` says in two cells whether the cursor is there, and a mark; `user` is who looks. What is
    below its group is indented."""
    has_ended = row["state"] == "ended"
    style = DIM if has_ended else PLAIN_STYLE
    word, code = _letter(row)
    line.add(sign, wide=2).add(ids_words(row, columns.id), style, wide=columns.id).add(" ")
    line.add(f"{GLYPHS.get(word, ' ')}{word}", BY_CODE[code]).add(" ")
    name = printable(name_of(row))
    line.add(f"  {name}" if is_below else name, style, wide=columns.name).add(" ")
    if columns.user:
        own = BOLD if row["user"] == user and not has_ended else style
        line.add(printable(row["user"]), own, wide=columns.user).add(" ")
    if columns.gpu:
        line.add(_dash(gpus_of(row)), style, wide=columns.gpu).add(" ")
    if columns.priority:
        line.add(str(row["priority"]), style, wide=columns.priority, right=True)
    line.add(" ").add(time_words(elapsed(row, now)), style, wide=6, right=True)
    if columns.left:
        has_column = columns.progress > 0
        text = left_words(row, now) or ("" if has_column else progress_of(row)) or "–"
        line.add(" ").add(text, style, wide=columns.left, right=True)
    if columns.progress:
        line.add(" ").add(_progress(row, columns.progress), style, wide=columns.progress)
    line.add("  ").add(_last(row), style)


def ids_words(row: Row, room: int) -> str:
    """ "187", and of several "187…196", as long as there is room for both ends."""
    if not is_folded(row):
        return str(row["id"])
    spans = parse_ranges(row["jobs"])
    first, last = str(spans[0].start), str(spans[-1].stop - 1)
    both = f"{first}…{last}"
    return both if len(both) <= room else f"{first[: room - 1]}…"


def time_words(seconds: float | None) -> str:
    """ "0:04", from an hour on "2:13h", from two days on "3d02h": never more than six cells."""
    if seconds is None:
        return "–"
    whole = int(seconds)
    if whole < HOUR_S:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 48 * HOUR_S:
        return f"{whole // HOUR_S}:{whole % HOUR_S // 60:02}h"
    return format_seconds(seconds)


def left_words(row: Row, now: float) -> str:
    """What is left of its time; when it is expected to start; how it ended."""
    if row["state"] == "ended":
        return _ending(row)
    if row["substate"] == "delayed" and not is_folded(row):
        return f">{_at_words(float(row['delayed_until']), now)}"
    if starts_at(row, now) is not None:
        return f"~{_at_words(max(float(row['expected_start']), now), now)}"
    seconds = None if is_folded(row) else left(row, now)
    return "" if seconds is None else time_words(seconds)


def _ending(row: Row) -> str:
    if is_folded(row):
        return ""
    if row["signal"] is not None:
        return signal_name(row["signal"])
    code = row["exit_code"]
    return "" if code is None else f"exit {code}" if code else "0"


def _at_words(at: float, now: float) -> str:
    """ "14:20" today, "Tue 14h" within a week, else "12-03"."""
    import time

    then = clock(at)
    if then[:10] == clock(now)[:10]:
        return then[11:16]
    return time.strftime("%a %Hh", time.localtime(at)) if at - now < WEEK_S else then[5:10]


def ticks(row: Row) -> bool:
    """Whether it says something else as time goes by."""
    runs = row["state"] in ("starting", "running") and row["started_at"] is not None
    return runs or row["substate"] == "backoff"


def _letter(row: Row) -> tuple[str, str]:
    cell = letter(row)
    return (cell, "") if isinstance(cell, str) else cell


def _progress(row: Row, room: int) -> str:
    said = progress_of(row)
    if not said or room < BAR:
        return said.rjust(4) if said else ""
    return f"{bar(row['progress'], 1.0, BAR)} {said:>4}"


def _last(row: Row) -> str:
    """Of a group also how many are done that it does not show."""
    if not is_folded(row) or not row["done"]:
        return command_or_reason(row)
    done = {word: number for word, number in row["done"].items() if number}
    if not done:
        return command_or_reason(row)
    counts = row["counts"] | {word: row["counts"].get(word, 0) + n for word, n in done.items()}
    return printable(reason_of(row | {"counts": counts}) or "")


def _dash(text: str) -> str:
    return "–" if text == "-" else text
