"""Whether what the daemon said can be shown at all: it may be another version than this screen, and
what is drawn of it much later is not to fail then. Raises KeyError, TypeError or ValueError where
not."""

from collections.abc import Mapping
from typing import Any

from gpuq.errors import GpuqError

NOT_UNDERSTOOD = (
    "the daemon said something that this screen does not understand; it may be another version: leave "
    "and start it again"
)
_TEXTS = ("name", "user", "queue", "state", "group")
_OF_ROW = """
id last_id name user group array_index queue tags state substate outcome exit_code signal attempt
retries delayed_until gpu_count gpus priority submitted_at started_at ended_at reason command
expected_start time_limit_s paused_s
"""
_NEEDED_OF_ROW = frozenset(_OF_ROW.split())
_OF_GPU = """
uuid index model simulated state reason memory_total_bytes memory_used_bytes utilization_percent
temperature_c power_w jobs warnings
"""
_NEEDED_OF_GPU = frozenset(_OF_GPU.split())
_NEEDED_FOR_LOG = frozenset(
    ("id", "user", "state", "attempt", "attempts", "log", "stderr", "reason")
)
_NEEDED_OF_ATTEMPT = frozenset(("attempt", "log"))
_MOST = 1e18  # of anything that is counted or measured
_LATEST_S = 2.5e11  # what a calendar can name, in seconds since the epoch
_TIMES = ("delayed_until", "expected_start")


def check_part(part: Any) -> None:
    """A part of a subscription."""
    if not isinstance(part["number"], int):
        raise TypeError("number")
    if part.get("is_picture") and not isinstance(part["more"], bool):
        raise TypeError("more")
    for row in part["jobs"] if part.get("is_picture") else part.get("jobs", ()):
        _check_row(row)
    for gpu in part.get("gpus", ()):
        _check_numbers(gpu)
        _check_has(gpu, _NEEDED_OF_GPU)
    for name in ("counts", "finished", "heads", "you"):
        if not isinstance(part.get(name, {}), dict):
            raise TypeError(name)


def check_history(history: Any) -> Any:
    """The readings of GPUs over time, which it returns."""
    _check_numbers(history)
    if not history["step_s"] > 0 or not isinstance(history["begin_at"], int | float):
        raise ValueError("step_s")
    for readings in history["gpus"].values():
        for values in readings.values():
            if any(not isinstance(value, int | float | None) for value in values):
                raise TypeError("a reading that is no number")
            _check_numbers(dict(enumerate(values)))
    return history


def with_log(job: Any) -> Any:
    """All about a job, which it returns where its log can be found with it; else GpuqError."""
    try:
        _check_has(job, _NEEDED_FOR_LOG)
        for attempt in job["attempts"]:
            _check_has(attempt, _NEEDED_OF_ATTEMPT)
        if not isinstance(job["attempt"], int):
            raise TypeError("attempt")
    except (LookupError, TypeError, AttributeError) as error:
        raise GpuqError(NOT_UNDERSTOOD) from error
    return job


def _check_row(row: Any) -> None:
    _check_has(row, _NEEDED_OF_ROW)
    _check_numbers(row)
    if not (isinstance(row["id"], int) and row["id"] <= row["last_id"]):
        raise ValueError("id")
    for name in _TEXTS:
        if not isinstance(row[name], str | None):
            raise TypeError(name)


def _check_has(one: Mapping[str, Any], needed: frozenset[str]) -> None:
    if not needed <= one.keys():
        raise KeyError(*sorted(needed - one.keys()))


def _check_numbers(one: Mapping[Any, Any]) -> None:
    for name, value in one.items():
        if isinstance(value, int | float) and abs(value) > _most(name):
            raise ValueError(f"{name}: {value}")
        if isinstance(value, str) and str(name).endswith(_OF_NUMBERS):
            raise TypeError(name)


_OF_NUMBERS = ("_at", "_s", "_bytes", "_percent", "_w", "_c", "priority", *_TIMES)


def _most(name: Any) -> float:
    return _LATEST_S if str(name).endswith(("_at", *_TIMES)) else _MOST
