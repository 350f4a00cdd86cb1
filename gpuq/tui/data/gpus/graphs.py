"""Graphs of what GPUs read: which reading, how far back, on which scale. And the same as rows, for who
wants to go on with the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gpuq.core.gpus.ring import READINGS
from gpuq.core.units import format_bytes
from gpuq.tui.data.picture import Gpu

History = Mapping[str, Any]  # an answer to `gpu_history`
WINDOWS_S = (300.0, 3600.0, 6 * 3600.0, 86400.0)
LEAST_PACE_S = 2.0  # between two looks, however fine the graph is
HOTTEST_C = 100.0


class What(NamedTuple):
    """A reading, what it is called, and where its scale ends where the GPU does not say."""

    reading: str
    title: str
    full: float


WHAT = (
    What("utilization_percent", "utilisation", 100.0),
    What("memory_used_bytes", "memory", 0.0),
    What("power_w", "power", 0.0),
    What("temperature_c", "temperature", HOTTEST_C),
)
_LIMITS = {"memory_used_bytes": "memory_total_bytes", "power_w": "power_limit_w"}


def top_of_scale(gpu: Gpu, what: What, values: Sequence[float | None]) -> float:
    """What the GPU has at the most, or the most that was read if that is more or nothing is known."""
    most = max((value for value in values if value is not None), default=0.0)
    limit = gpu[_LIMITS[what.reading]] if what.reading in _LIMITS else what.full
    return float(max(most, limit or 0.0)) or 1.0


def scale_label(what: What, value: float) -> str:
    """ "100%", "80G", "400W", "100C"."""
    if what.reading == "memory_used_bytes":
        return format_bytes(round(value))
    unit = {"utilization_percent": "%", "power_w": "W", "temperature_c": "C"}[what.reading]
    return f"{value:.0f}{unit}"


def title(what: What, window_s: float, step_s: float | None) -> str:
    words = f"{what.title}, last {_span(window_s)}"
    return words if step_s is None else f"{words}, {_span(step_s)} a step"


def _span(seconds: float) -> str:
    """ "12 s", "5 min", "6 h": the largest unit that it is a whole number of."""
    units = ((3600, "h"), (60, "min"), (1, "s"))
    each, unit = next(one for one in units if seconds % one[0] == 0 or one[0] == 1)
    return f"{seconds / each:.0f} {unit}"


def pace_s(window_s: float, dots: int) -> float:
    """How often there is something new to be seen."""
    return max(window_s / max(dots, 1), LEAST_PACE_S)


def rows(history: History, gpus: Sequence[Gpu]) -> Iterator[dict[str, Any]]:
    """One for each GPU and step in which anything was read, with all readings."""
    here = {gpu["uuid"]: gpu for gpu in gpus}
    for uuid, readings in history["gpus"].items():
        gpu = here.get(uuid)
        about = {
            "gpu": None if gpu is None else gpu["index"],
            "uuid": uuid,
            "simulated": None if gpu is None else gpu["simulated"],
        }
        columns = [readings[name] for name in READINGS]
        for number, values in enumerate(zip(*columns, strict=True)):
            if any(value is not None for value in values):
                at = history["begin_at"] + number * history["step_s"]
                yield {"at": at, **about, **dict(zip(READINGS, values, strict=True))}
