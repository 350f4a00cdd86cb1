"""A GPU as a line: how full and how busy it is, and whose, or why it is nobody's."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gpuq.cli.gpu_text import BARRED, COLOURS, census, foreign_processes, reserved_words
from gpuq.cli.render import DIM, RED, YELLOW, bar, memory, printable
from gpuq.tui.data.braille import mean, sparkline
from gpuq.tui.data.gpus.forms import (
    INDEX_CELLS,
    MARK_CELLS,
    MINUTE_S,
    UTIL_CELLS,
    Form,
    short_model,
)
from gpuq.tui.data.picture import Gpu, Picture
from gpuq.tui.data.spans import Row

MARKS = {"leased": "▌", "free": "", "cooling": "~", "drained": "-"}  # all others: !
# Cells for whose it is, from which on words are written out and names stand in columns.
ROOMY, VERY_ROOMY = 30, 38


class Piece(NamedTuple):
    """A text in the colour of that code; `wide`: in so many cells, at their right end if `right`."""

    text: str
    code: str = ""
    wide: int | None = None
    right: bool = False


Pieces = list[Piece]


def head(form: Form) -> Pieces:
    span = "60 s" if form.window_s == MINUTE_S else "last 5 min"
    columns = [
        (form.model, "MODEL"),
        (form.bar, "MEM"),
        (form.memory, "" if form.bar else "MEM"),
    ]
    pieces = [Piece("GPU", DIM, INDEX_CELLS + MARK_CELLS)]
    pieces += _apart([Piece(title, DIM, cells) for cells, title in columns if cells])
    pieces.append(Piece("UTIL", DIM, UTIL_CELLS, right=True))
    if form.history:
        pieces += [Piece(" "), Piece(span, DIM, form.history)]
    if form.temperature:
        pieces.append(Piece("TEMP", DIM, form.temperature, right=True))
        pieces.append(Piece("W/limit" if form.with_limit else "W", DIM, form.watts, right=True))
    return [*pieces, Piece("  "), Piece("JOB", DIM)]


def gpu_line(
    gpu: Gpu, form: Form, tenants: Sequence[Row | None], past: Sequence[float | None], now: float
) -> Pieces:
    """`tenants` are the jobs on it as far as they are known, `past` how busy it was."""
    used, total = gpu["memory_used_bytes"], gpu["memory_total_bytes"]
    pieces = [
        Piece(str(gpu["index"]), "", INDEX_CELLS),
        _mark(gpu),
    ]
    columns, model = [], printable(short_model(gpu["model"]))
    if form.model:
        columns.append(Piece(model[: form.model], "", form.model))
    if form.bar:
        columns.append(Piece(bar(used, total, form.bar), "", form.bar))
    pieces += _apart([*columns, Piece(memory(used, total), "", form.memory)])
    pieces.append(_number(gpu["utilization_percent"], "%", UTIL_CELLS))
    if form.history:
        pieces += [Piece(" "), Piece(sparkline(past), "", form.history)]
    if form.temperature:
        pieces.append(_number(gpu["temperature_c"], "C", form.temperature))
        pieces.append(_watts(gpu, form))
    is_said = "simulated" in model[: form.model].lower()
    whose = occupation(gpu, tenants, form.occupation, now, is_said=is_said)
    return [*pieces, Piece("  "), *whose]


def _mark(gpu: Gpu) -> Piece:
    state = gpu["state"]
    if state == "leased" and foreign_processes(gpu):
        return Piece("!", RED, MARK_CELLS)
    return Piece(MARKS.get(state, "!"), COLOURS.get(state, ""), MARK_CELLS)


def _apart(pieces: Iterable[Piece]) -> Pieces:
    """With a gap between them."""
    return [part for piece in pieces for part in (Piece(" "), piece)][1:]


def _number(value: float | None, unit: str, cells: int) -> Piece:
    return Piece("–" if value is None else f"{value:.0f}{unit}", "", cells, right=True)


def _watts(gpu: Gpu, form: Form) -> Piece:
    if not form.with_limit or gpu["power_limit_w"] is None:
        return _number(gpu["power_w"], "", form.watts)
    watts = "–" if gpu["power_w"] is None else f"{gpu['power_w']:.0f}"
    return Piece(f"{watts}/{gpu['power_limit_w']:.0f}", "", form.watts, right=True)


# ── whose it is ──


def occupation(
    gpu: Gpu, tenants: Sequence[Row | None], room: int, now: float, *, is_said: bool = False
) -> Pieces:
    """In so many cells whose it is, or why it is nobody's, and for whom it is reserved. `is_said`: that
    it is simulated stands beside it already."""
    pieces = []
    if gpu["simulated"] and not is_said:
        pieces.append(Piece("simulated ", DIM))
        room -= len("simulated ")
    pieces += _tenant(gpu, tenants, room) if gpu["jobs"] else []
    pieces += _speaking_against(gpu, is_roomy=room >= ROOMY)
    reserved = ", ".join(reserved_words(gpu, now))
    if reserved:
        pieces.append(Piece(f", {reserved}", YELLOW))
    return pieces


def _tenant(gpu: Gpu, tenants: Sequence[Row | None], room: int) -> Pieces:
    """The first, and how many there are."""
    number, job = gpu["jobs"][0], tenants[0] if tenants else None
    others = len(gpu["jobs"])
    shared = f"shared 1/{others}" if others > 1 else "" if gpu["exclusive"] else "shared"
    if job is None:
        return [Piece(f"{number} {shared}".rstrip())]
    first = f"{number} {printable(job['name'] or '')}".rstrip()
    user = printable(job["user"])
    held = job.get("gpus") or []
    if len(held) > 1 and held[0] == gpu["index"]:
        shared = f"{len(held)}/{job['gpu_count']} GPUs {shared}".rstrip()
    if room < ROOMY:
        return [Piece(" ".join(part for part in (first, user, shared) if part))]
    return [
        Piece(first, "", 16 if room >= VERY_ROOMY else 13),
        Piece(" "),
        Piece(user, "", 7 if shared or foreign_processes(gpu) else None),
        Piece(f" {shared}" if shared else ""),
    ]


def _speaking_against(gpu: Gpu, *, is_roomy: bool) -> Pieces:
    """What keeps others off it, or who is on it beside us."""
    state, colour, reason = gpu["state"], COLOURS.get(gpu["state"], ""), gpu["reason"] or ""
    comma = "" if not gpu["jobs"] else " " if is_roomy else ", "
    pieces = []
    if foreign := foreign_processes(gpu):
        pieces.append(Piece(comma + _intruders(foreign, is_roomy), RED if gpu["jobs"] else YELLOW))
    elif state == "foreign":
        pieces.append(Piece(f"{comma}! {printable(reason or state)}", colour))
    if state in BARRED:
        pieces.append(Piece(comma + printable(reason or state), colour))
    elif state not in ("leased", "foreign"):
        pieces.append(Piece(comma + (f"{state}: {printable(reason)}" if reason else state), colour))
    return pieces


def _intruders(foreign: Sequence[Gpu], is_roomy: bool) -> str:
    first = foreign[0]
    who = f"{printable(first['command'] or 'process')} {first['pid']}"
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    mark = "! outside gpuq" if is_roomy else "not gpuq"
    return f"{mark}: {who} {printable(first['user'] or '')}".rstrip() + more


def tenants_of(gpu: Gpu, picture: Picture) -> tuple[Row | None, ...]:
    return tuple(picture.rows.holding(job) for job in gpu["jobs"])


# ── many in one line ──


def folded_of(picture: Picture) -> Pieces:
    if not picture.is_begun:
        return [Piece(" GPUs –", DIM)]
    return folded(picture.gpus, picture.gpu_trouble)


def folded(gpus: Sequence[Gpu], trouble: str | None = None) -> Pieces:
    """How many there are, in which states, and what they read together."""
    if not gpus:
        return [Piece(f" no GPUs: {printable(trouble)}" if trouble else " no GPUs", YELLOW)]
    return [Piece(f" {census(gpus)}"), *_states(gpus), *_together(gpus)]


def hidden(gpus: Sequence[Gpu]) -> Pieces:
    """Those that there is no row for."""
    return [Piece(f"… and {len(gpus)} more", DIM), *_states(gpus), Piece("  (2: all)", DIM)]


def _states(gpus: Sequence[Gpu]) -> Pieces:
    counts = Counter(gpu["state"] for gpu in gpus)
    order = ["leased", "free", *(state for state in reversed(COLOURS) if state != "free")]
    return [
        Piece(f"  {counts[state]} {state}", COLOURS.get(state, ""))
        for state in order
        if counts[state]
    ]


def _together(gpus: Sequence[Gpu]) -> Pieces:
    read = [gpu for gpu in gpus if gpu["memory_used_bytes"] is not None]
    used = sum(gpu["memory_used_bytes"] for gpu in read)
    total = sum(gpu["memory_total_bytes"] or 0 for gpu in read)
    busy = mean([gpu["utilization_percent"] for gpu in gpus])
    pieces = [Piece(f"  {memory(used, total)}")] if read else []
    return pieces if busy is None else [*pieces, Piece(f"  {busy:.0f}%")]
