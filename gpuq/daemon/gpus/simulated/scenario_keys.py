"""What the file of a scenario may say: `KEYS` by table, and how each value is read.

docs/scenarios.md says what each key means. What is wrong is a ValueError that says what was wanted.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpuq.core.gpus.gpu import Closeness
from gpuq.core.units import format_bytes, parse_bytes, parse_ranges, parse_seconds
from gpuq.daemon.gpus.backend import MAX_GPUS
from gpuq.daemon.gpus.simulated.scenario import Behaviour, Curve, FaultKind, Moment, Tells

LONGEST_S = 366 * 86400.0
LARGEST_BYTES = 2**50


@dataclass(frozen=True, slots=True)
class Key:
    """How a value is read, its default, and, where a table cannot do without it, what is wanted."""

    read: Callable[[Any], Any]
    default: Any = None
    wanted: str | None = None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{_shown(value)} is no text: write it in quotes, in one line")
    if len(value) > 500:
        raise ValueError(f"{_shown(value)} is longer than 500 letters")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{_shown(value)} is no number")
        if not low <= value <= high:  # nan is not
            raise ValueError(f"{_shown(value)} is not from {low:g} to {high:g}")
        return float(value)

    return read


def _whole_number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{_shown(value)} is not a whole number from {low} to {high}")
        return value

    return read


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            near = difflib.get_close_matches(str(value), words, n=1)
            hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(words)}"
            raise ValueError(f"{_shown(value)} is not known; {hint}")
        return str(value)

    return read


def _size(value: Any) -> int:
    size = parse_bytes(_text(value))
    if size > LARGEST_BYTES:
        raise ValueError(f"{value!r} is more than {format_bytes(LARGEST_BYTES)}")
    return size


def _memory(value: Any) -> int | None:
    if value == "none":
        return None
    return _some_memory(value)


def _some_memory(value: Any) -> int:
    size = _size(value)
    if not size:
        raise ValueError(f"{value!r} is nothing: write a size like 24G")
    return size


def _duration(value: Any) -> float:
    seconds = parse_seconds(_text(value))
    if seconds > LONGEST_S:
        raise ValueError(f"{_shown(value)} is longer than a year")
    return float(seconds)


def _round(value: Any) -> float:
    seconds = _duration(value)
    if seconds < 1:
        raise ValueError(f"{_shown(value)} is shorter than a second")
    return seconds


def _release(value: Any) -> float | None:
    return None if value == "never" else _duration(value)


def _moment(value: Any) -> Moment:
    if not isinstance(value, dict):
        return _duration(value)
    if list(value) != ["file"]:
        raise ValueError(f'{_shown(value)} is no moment: write "30s" or {{ file = "name" }}')
    name = _text(value["file"])
    if "/" in name or name in (".", "..") or len(name.encode()) > 255:
        raise ValueError(f"{_shown(name)} is not the name of a file beside this one")
    return name


def _indices(value: Any) -> frozenset[int]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = str(value)
    spans = parse_ranges(_text(value))
    if any(span.stop > MAX_GPUS for span in spans):
        raise ValueError(f"{_shown(value)}: GPUs go up to {MAX_GPUS - 1}")
    return frozenset(index for span in spans for index in span)


def _codes(value: Any) -> tuple[int, ...]:
    read = _whole_number(1, 9999)
    codes = value if isinstance(value, list) else [value]
    if not 1 <= len(codes) <= 100:
        raise ValueError("write one number, or a list like [13, 79]")
    return tuple(read(code) for code in codes)


def _parts(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise ValueError('write a list like [{ name = "3g.40gb", memory = "40G" }]')
    return value


def _percent(value: Any) -> Curve:
    """A number, or points in time."""
    read = _number(0, 100)
    if not isinstance(value, list):
        return Curve(points=((0.0, read(value)),))
    if not 1 <= len(value) <= 1000 or not all(
        isinstance(point, list) and len(point) == 2 for point in value
    ):
        raise ValueError('write a number, or points like [["0s", 0], ["1m", 95]]')
    points = tuple((_duration(when), read(percent)) for when, percent in value)
    if any(later[0] < point[0] for point, later in pairwise(points)):
        raise ValueError("the points run backwards in time")
    return Curve(points=points)


_NOTHING = Curve(points=((0.0, 0.0),))
_WHICH = Key(_indices, wanted='the GPUs that it is about, as in gpus = "0-3,5"')
_ALL = Key(_indices)
_WHEN = {"from": Key(_moment, 0.0), "until": Key(_moment)}
_TAKES = {"memory": Key(_size, 0), "utilization": Key(_percent, _NOTHING)}
_JOBS = Behaviour(gpus=frozenset())

KEYS: dict[str, dict[str, Key]] = {
    "story": {"about": Key(_text), "repeat": Key(_round)},
    "gpu": {
        "count": Key(_whole_number(1, MAX_GPUS), 1),
        "model": Key(_text),
        "memory": Key(_memory, wanted='a size, as in memory = "80G", or "none"'),
        "reserved": Key(_size, 0),
        "idle_memory": Key(_size, 0),
        "power_limit": Key(_number(1, 10_000)),
        "mode": Key(_one_of("default", "exclusive_process", "prohibited"), "default"),
        "processes": Key(_one_of(*Tells), Tells.ALL),
        "mig": Key(_parts, ()),
    },
    "mig": {
        "name": Key(_text, wanted='what the instance is called, as in name = "3g.40gb"'),
        "memory": Key(_some_memory, wanted='a size, as in memory = "40G"'),
    },
    "link": {
        "gpus": _WHICH,
        "by": Key(
            _one_of(*(one.name.lower() for one in Closeness if one is not Closeness.UNKNOWN)),
            wanted='what joins them, as in by = "nvlink"',
        ),
    },
    "jobs": {
        "gpus": _ALL,
        **_WHEN,
        "uses": Key(_number(0, 100), _JOBS.uses),
        "undeclared": Key(_size, _JOBS.undeclared_bytes),
        "ramp": Key(_duration, _JOBS.ramp_s),
        "utilization": Key(_percent, _JOBS.utilization),
        "release": Key(_release, _JOBS.release_s),
    },
    "process": {
        "gpus": _WHICH,
        **_WHEN,
        "pid": Key(_whole_number(1, 2**31 - 1)),
        "user": Key(_text),
        "command": Key(_text),
        "unit": Key(_text),
        **_TAKES,
    },
    "load": {"gpus": _WHICH, **_WHEN, **_TAKES},
    "fault": {
        "gpus": _WHICH,
        **_WHEN,
        "kind": Key(_one_of(*FaultKind), wanted='what it is, as in kind = "lost"'),
        "says": Key(_text),
        "lasting": Key(_yes_or_no),
    },
    "xid": {
        "gpus": _WHICH,
        "at": Key(_moment, wanted='when it is told, as in at = "2m"'),
        "codes": Key(_codes, wanted="its number, as in codes = 79"),
    },
    "driver": {**_WHEN, "unavailable": Key(_text), "hangs": Key(_yes_or_no, False)},
    "test": {
        "gpus": _ALL,
        **_WHEN,
        "fails": Key(_text),
        "tflops": Key(_number(0, 10**6)),
        "memory_gb_s": Key(_number(0, 10**6)),
    },
}
TABLES = [kind for kind in KEYS if kind not in ("story", "mig")]
