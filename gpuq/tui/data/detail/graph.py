"""How an attempt went, as plots of braille with their axes, and as rows of a table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpuq.cli.render import DIM, moment
from gpuq.core.units import format_bytes, format_seconds
from gpuq.tui.data.braille import plot
from gpuq.tui.data.pieces import BOLD, Pieces, facts, sentences

Answer = Mapping[str, Any]
TITLES = {
    "gpu_memory_bytes": "GPU memory",
    "gpu_utilization_percent": "GPU utilisation",
    "memory_bytes": "host memory",
}
LEAST_ROWS, MOST_ROWS = 2, 8  # of one plot
AXIS = 7  # cells at the left of a plot
LEAST_CELLS = 8


def graph_lines(
    found: Answer, now: float, room: int, height: int, *, unicode: bool = True
) -> list[Pieces]:
    """As high as there is room in `height` lines, and higher where that is too little."""
    shown = [name for name in TITLES if name in found["quantities"]]
    if not shown:
        return sentences([f"No graph: {found['why'] or 'nothing was measured'}."], room)
    rows = min(max((height - 2) // len(shown) - 1, LEAST_ROWS), MOST_ROWS)
    cells = max(room - AXIS, LEAST_CELLS)
    until_s = _until(found, now)
    lines: list[Pieces] = []
    for name in shown:
        lines += _titled(name, found, room)
        lines += _plotted(found, name, until_s, cells, rows, unicode)
    lines.append(_time_axis(found, until_s, now, cells))
    lines += sentences(_notes(found, until_s), room, DIM)
    return lines


def graph_rows(found: Answer) -> list[dict[str, Any]]:
    """A row for each stretch in which something was measured; what was not is None."""
    width_s, began = found["width_s"], found["started_at"]
    points = {
        name: {number: (mean, most) for number, mean, most, _ in quantity["points"]}
        for name, quantity in found["quantities"].items()
    }
    numbers = sorted({number for known in points.values() for number in known})
    return [
        {
            "job": found["job"],
            "attempt": found["attempt"],
            "simulated": found["simulated"],
            "at": None if began is None else began + number * width_s,
            "from_s": number * width_s,
            "until_s": (number + 1) * width_s,
        }
        | dict(_columns(points, number))
        for number in numbers
    ]


def _columns(
    points: Mapping[str, Mapping[int, tuple[float, float]]], number: int
) -> Iterator[tuple[str, float | None]]:
    for name in TITLES:
        mean, most = points.get(name, {}).get(number, (None, None))
        yield f"{name}_mean", mean
        yield f"{name}_max", most


def _until(found: Answer, now: float) -> float:
    """How long it has been so far (s), and at least as far as was measured."""
    latest = max(quantity["points"][-1][0] + 1 for quantity in found["quantities"].values())
    measured_s: float = latest * found["width_s"]
    if found["started_at"] is None:
        return measured_s
    lasted_s: float = (found["ended_at"] or now) - found["started_at"]
    return max(lasted_s, measured_s)


def _titled(name: str, found: Answer, room: int) -> list[Pieces]:
    quantity = found["quantities"][name]
    of = " (simulated)" if found["simulated"] and name != "memory_bytes" else ""
    told = [f"{what} {_value(name, quantity[what])}" for what in ("min", "mean", "max")]
    return facts([(TITLES[name] + of, BOLD), *((one, "") for one in told)], room)


def _value(name: str, value: float) -> str:
    return f"{value:.0f}%" if name.endswith("_percent") else format_bytes(round(value))


def _plotted(
    found: Answer, name: str, until_s: float, cells: int, rows: int, unicode: bool
) -> list[Pieces]:
    quantity = found["quantities"][name]
    high = 100.0 if name.endswith("_percent") else float(quantity["max"]) or 1.0
    values = held(quantity["points"], found["width_s"], until_s)
    drawn = plot(values, cells, rows, 0.0, high, unicode=unicode)
    marks = [_value(name, high), *[""] * (rows - 2), "0"] if rows > 1 else [_value(name, high)]
    return [
        [(f"{mark:>{AXIS - 2}} ", DIM), ("┤" if mark else "│", DIM), (line, "")]
        for mark, line in zip(marks, drawn, strict=True)
    ]


def held(
    points: Sequence[tuple[int, float, float, int]], width_s: float, until_s: float
) -> list[float | None]:
    """The mean of each stretch. A measurement holds until the next one, where that comes soon: after a
    longer silence nobody knows."""
    from gpuq.core.gpus.usage import LONGEST_STRETCH_S  # the first picture does not wait for it

    values: list[float | None] = [None] * max(int(-(-until_s // width_s)), 1)
    for (number, mean, *_), following in zip(points, [*points[1:], None], strict=True):
        holds = max(int(LONGEST_STRETCH_S // width_s), 1)
        end = number + holds if following is None else min(following[0], number + holds)
        end = max(end, number + 1)
        for at in range(number, min(end, len(values))):
            values[at] = mean
    return values


def _has_gap(
    points: Sequence[tuple[int, float, float, int]], found: Answer, until_s: float
) -> bool:
    """After the first that was measured."""
    return None in held(points, found["width_s"], until_s)[points[0][0] :]


def _time_axis(found: Answer, until_s: float, now: float, cells: int) -> Pieces:
    """When it began, and how long it has been."""
    began = "0" if found["started_at"] is None else moment(found["started_at"], now)
    last = format_seconds(until_s)
    line = f"{began} {'─' * max(cells - len(began) - len(last) - 2, 1)} {last}"
    return [(" " * AXIS, ""), (line, DIM)]


def _notes(found: Answer, until_s: float) -> list[str]:
    """What the plots cannot say."""
    notes = []
    if any(_has_gap(one["points"], found, until_s) for one in found["quantities"].values()):
        notes.append("Empty stretches: nothing was read, as while the daemon was away.")
    if "memory_bytes" not in found["quantities"]:
        notes.append("Host memory is measured of jobs with a --mem that gpuq watches itself.")
    return notes
