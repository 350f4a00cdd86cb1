"""How a value is written: read from a flag, a variable or TOML, and shown as people write it.

The readers raise ValueError or TypeError with what is wrong; whoever calls them says where it stands.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from gpuq.core.asked.hooks import read_hook
from gpuq.core.asked.spec import catchable_signal
from gpuq.core.hours import parse_hours
from gpuq.core.policy import Rate, WeekSpan
from gpuq.core.results.giving_up import format_on_failure, parse_on_failure
from gpuq.core.scheduling.rate import parse_rate
from gpuq.core.states import signal_name
from gpuq.core.units import parse_bytes, parse_seconds

NOTHING = "–"
LONGEST_LIST_ITEM = 200


def read_path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no path")
    return os.path.abspath(os.path.expanduser(value))


def whole_number(low: int, high: int) -> Callable[[Any], int]:
    return partial(_read_whole, low, high)


def _read_whole(low: int, high: int, value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return number


def read_size(value: Any) -> int:
    return parse_bytes(str(value))


def read_time(value: Any) -> float:
    seconds = parse_seconds(str(value))
    if seconds > 10**9:
        raise ValueError(f"{str(value)[:20]!r} is longer than gpuq will live")
    return seconds


def read_half_life(value: Any) -> float:
    seconds = read_time(value)
    if seconds < 1.0:
        raise ValueError(f"{value!r} is no half-life: it takes a second at least")
    return seconds


def read_interval(value: Any) -> float:
    seconds = read_time(value)
    if seconds < 1.0:
        raise ValueError(f"{value!r} is too often: once a second at most")
    return seconds


def read_textfile(value: Any) -> str:
    path = read_path(value)
    if not path.endswith(".prom"):
        raise ValueError(f"{value!r} does not end in .prom, and node_exporter reads no other files")
    return path


def show_time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def show_size(size: int) -> str:
    """In the largest unit in which it can be written and read back as the same."""
    for unit, scale in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        text = f"{size / scale:.9f}".rstrip("0").rstrip(".") + unit
        if size >= scale and parse_bytes(text) == size:
            return text
    return f"{size / 2**10:.10f}".rstrip("0").rstrip(".") + "K"


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def read_on_failure(value: Any) -> str:
    return format_on_failure(parse_on_failure(read_text(value)))


def read_hook_setting(value: Any) -> str | None:
    """Nothing, or what nothing is shown as: nobody is told."""
    return None if value in (None, "", NOTHING) else read_hook(value)


def read_signal(value: Any) -> int:
    """Of a program that is to do something about it, by name or number."""
    return catchable_signal(value if isinstance(value, int) else read_text(value))


def show_signal(number: int) -> str:
    return signal_name(number).removeprefix("SIG")


def read_list(value: Any) -> tuple[str, ...]:
    """A list in the file; on a command line its parts are joined by commas."""
    if isinstance(value, str):
        value = [] if value == NOTHING else [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise ValueError(f'{value!r} is no list like [0, "GPU-8f2c"]')
    return tuple(map(_list_item, value))


def _list_item(value: Any) -> str:
    """A text or a number, such that a list of them can be shown with commas between."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or "," in text:
        raise ValueError(f"{value!r} is neither a number nor a printable text without a comma")
    if len(text) > LONGEST_LIST_ITEM:
        raise ValueError(f"{text[:20]}… is longer than {LONGEST_LIST_ITEM} signs")
    return text.strip()


def show_list(texts: tuple[str, ...]) -> str:
    return ", ".join(texts) or NOTHING


def one_of(*words: str) -> Callable[[Any], str]:
    return partial(_read_one_of, words)


def _read_one_of(words: tuple[str, ...], value: Any) -> str:
    if value not in words:
        raise ValueError(f"{value!r} is none of {', '.join(words)}")
    return str(value)


def read_bool(value: Any) -> bool:
    known = {"true": True, "false": False, "yes": True, "no": False}
    flag = known.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return flag


def show_bool(flag: bool) -> str:
    return "true" if flag else "false"


def read_hours(value: Any) -> tuple[WeekSpan, ...]:
    """A text, or in the file a list of such texts."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    return () if value in ("", NOTHING) else parse_hours(value)


def read_rate(value: Any) -> Rate | None:
    """ "5/s"; nothing, or what nothing is shown as: as fast as there is room."""
    if value in (None, "", NOTHING):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no rate: write it like 5/s, 30/m or 2/10s")
    return parse_rate(value)


def whole_gpus(gpus: str, folder: str = "") -> str:
    """The same GPUs with the whole path of their scenario, where a file in `folder` is meant and not
    one that is shipped. An empty folder is where we are."""
    kind, _, name = gpus.strip().partition(":")
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(name)))
    is_file = "/" in name or name.endswith(".toml") or os.path.isfile(path)
    return f"scenario:{path}" if kind == "scenario" and is_file else gpus


def word_of(read: Callable[..., Any]) -> str:
    """What kind of value this reads, in a word."""
    return _WORDS[getattr(read, "func", read)]


_WORDS: dict[Callable[..., Any], str] = {
    read_path: "PATH",
    read_textfile: "PATH",
    read_text: "TEXT",
    read_hook_setting: "TEXT",
    read_signal: "SIGNAL",
    read_on_failure: "WORD",
    read_list: "LIST",
    read_size: "SIZE",
    read_time: "TIME",
    read_half_life: "TIME",
    read_interval: "TIME",
    read_hours: "HOURS",
    read_rate: "RATE",
    read_bool: "BOOL",
    _read_whole: "N",
    _read_one_of: "WORD",
}
