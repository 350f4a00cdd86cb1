"""What the GPUs read in the last minutes or hours, as graphs want it. It tells of GPUs and of nobody's
work, so everybody may ask."""

from collections.abc import Callable, Mapping
from typing import Any

from gpuq.core.gpus.ring import BUCKETS, MOST_BUCKETS, WINDOW_S, History
from gpuq.core.units import quoted
from gpuq.errors import UsageError

LEAST_WINDOW_S = 1.0
WHOLE = ("memory_used_bytes",)


def tell_history(
    request: Mapping[str, Any], history: Callable[[float, int], History]
) -> dict[str, Any]:
    """Of the last `window_s` at most so many `buckets`, by uuid and reading."""
    told = history(_window(request), _buckets(request))
    return {
        "begin_at": told.begin,
        "step_s": told.step_s,
        "gpus": {
            uuid: {name: _rounded(name, row) for name, row in readings.items()}
            for uuid, readings in told.gpus.items()
        },
    }


def _rounded(name: str, row: list[float | None]) -> list[float | None]:
    digits = None if name in WHOLE else 1
    return [None if value is None else round(value, digits) for value in row]


def _window(request: Mapping[str, Any]) -> float:
    value = request.get("window_s")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or not is_number or not LEAST_WINDOW_S <= value <= WINDOW_S:
        raise UsageError(
            f"window_s: {quoted(value)} is no length of time from a second to a day, in seconds"
        )
    return float(value)


def _buckets(request: Mapping[str, Any]) -> int:
    value = request.get("buckets")
    if value is None:
        return BUCKETS
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_BUCKETS:
        raise UsageError(f"buckets: {quoted(value)} is no whole number from 1 to {MOST_BUCKETS}")
    return value
