"""What a job's own code may import: it reports how it gets on, and learns what it was given.

    from gpuq import job

    job.seed()
    for step in range(first, 1000):
        loss = train(step)
        job.report(progress=step / 1000, loss=loss)
        job.heartbeat()
    save(model, os.path.join(job.output_dir, "model.pt"))

Outside gpuq everything here does nothing, so that the same script runs by hand. The file needs
the standard library of Python 3.8 and nothing else: copied alone into another environment it works
as well. Whatever befalls the queue (a full disk, a directory that is gone, no permission), nothing
here raises, waits or prints: a report may be lost, a training run may not.

A report is one line of JSON at the end of the file that GPUQ_REPORT names, written in one piece:

    {"by": "9f2c61d04b7a35e8", "n": 3, "pid": 4242, "at": 1754041234.567, "v": {"loss": 0.25}}

`by` names the writer, drawn anew in each process, and `n` counts its lines from 1: the two together
know a line that is read twice, and a gap in `n` is a line that could not be written. `at` is the
wall clock. Values in `v` are true, false, null, numbers and texts; a float that JSON cannot say
is {"float": "nan"}, "inf" or "-inf". `cut` is true where values were left out to keep the line
within 4 KiB. Where the job tells that it ran out of GPU memory, `event` is "out_of_memory" and
`message` what it said. A heartbeat is an empty object: that the file changed says it all. An empty
line means nothing, and what is no JSON is what a full disk has left of a line.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

LONGEST_LINE = 4096  # bytes, with the newline
FRAME = 160  # bytes of it for all that is not values: the longest of each come to 119
LONGEST_TEXT = 200  # signs of the text for a value that is neither number nor text
LONGEST_MESSAGE = 300  # signs; twelve bytes for each at the most
BEAT_S = 1.0


def report(values: Any = None, /, **more: Any) -> bool:
    """Metrics by any name, and `progress` from 0 to 1. → True if the line stands in the file.

    Names that are no identifiers go in a mapping: `report({"val/loss": 0.25})`. Numbers of numpy,
    torch and the like are taken by their `item()`; what is no number is told by its text. Where a
    line would be over 4 KiB, the largest values are left out.
    """
    said = values if isinstance(values, Mapping) else {} if values is None else {"value": values}
    return _write(lambda: _pack({**_encode_all(said), **_encode_all(more)}))


def heartbeat() -> None:
    """The job is alive. Cheap in a hot loop: it writes once a second at most."""
    global _beat_due
    if time.monotonic() >= _beat_due:
        _beat_due = time.monotonic() + BEAT_S
        _append(b"{}\n")


def out_of_memory(message: object = "") -> bool:
    """The job itself tells that it ran out of GPU memory, by the exception say, before it ends."""
    text = _encode(_text(message)[:LONGEST_MESSAGE])
    return _write(lambda: f', "event": "out_of_memory", "message": {text}')


def is_job() -> bool:
    return job_id() is not None


def job_id() -> int | None:
    return _number("GPUQ_JOB_ID")


def attempt() -> int:
    """1 the first time, and outside gpuq: `if job.attempt() > 1` asks whether to resume."""
    return _number("GPUQ_ATTEMPT") or 1


class _Directory(str):
    """A path, which is also given where it is called. It is copied and pickled as the plain text."""

    __slots__ = ()

    def __call__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


if TYPE_CHECKING:
    output_dir: _Directory


def __getattr__(name: str) -> _Directory:
    """`output_dir`: the directory of this attempt alone; outside gpuq the current one. It is looked up
    each time, so that who is given another environment, as a test does, is told of that."""
    if name != "output_dir":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _Directory(os.environ.get("GPUQ_OUTPUT_DIR") or ".")


def __dir__() -> list[str]:
    return sorted([*globals(), "output_dir"])


def seed() -> int | None:
    """Seeds `random`, and numpy and torch where they are imported by now; → the number, the same
    on every attempt. Outside gpuq nothing is seeded and there is None.

    numpy and torch are never imported for it, which takes seconds: import them first. A generator
    of one's own takes the number: `numpy.random.default_rng(job.seed())`.
    """
    number = _number("GPUQ_SEED")
    if number is None:
        return None
    import random  # half of what all of this file costs to import, and few need it

    random.seed(number)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(number % 2**32)  # it takes no larger one
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)
    return number


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


# ── values as JSON ──


def _encode_all(values: Mapping[Any, Any]) -> dict[str, str]:
    try:
        return {_encode(_text(name)): _encode(value) for name, value in values.items()}
    except Exception:  # a mapping that changes while it is read, or of somebody's own make
        return {}


def _encode(value: Any) -> str:
    """JSON for any value. Code of others runs here (`item`, `__str__`) and may raise anything."""
    try:
        return json.dumps(_plain(value))
    except Exception:  # `item` of more than one number, a whole number of 5,000 digits
        return json.dumps(_text(value))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value[:LONGEST_LINE]  # as good as all of it: either is left out
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite(float(value))
    if hasattr(value, "item"):
        item = value.item()
        return _text(item) if hasattr(item, "item") else _plain(item)
    if hasattr(value, "__float__"):
        return _finite(float(value))
    return _text(value)


def _finite(number: float) -> Any:
    return number if math.isfinite(number) else {"float": str(number)}


def _text(value: object) -> str:
    try:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            return reprlib.repr(value)[:LONGEST_TEXT]  # looks at the first few of millions
        return str(value)[:LONGEST_TEXT]
    except Exception:
        return f"<{type(value).__name__}>"


def _pack(fields: dict[str, str]) -> str:
    """The values as the end of a line, the largest left out until they fit."""
    sizes = {name: len(name) + len(text) + len(": , ") for name, text in fields.items()}
    taken, cut = sum(sizes.values()), ""
    for name in sorted(sizes, key=lambda name: _weight(name, sizes[name]), reverse=True):
        if taken <= LONGEST_LINE - FRAME:
            break
        taken -= sizes[name]
        del fields[name]
        cut = ', "cut": true'
    pairs = ", ".join(f"{name}: {text}" for name, text in fields.items())
    return f'{cut}, "v": {{{pairs}}}'


def _weight(name: str, size: int) -> int:
    """Progress is a short word, and what people look at first: it goes last."""
    return 0 if name == '"progress"' and size < 64 else size


# ── lines in the file ──


class _Writer:
    """One process as the author of lines. A forked one gets another, with a lock of its own: it
    may have been forked while a thread of its parent held this one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.name = os.urandom(8).hex()
        self.lines = 0
        # A signal handler may report while the code that it interrupted is reporting.
        self.lock = threading.RLock()


_writer = _Writer()
_beat_due = 0.0  # time.monotonic()


def _write(rest: Callable[[], str]) -> bool:
    """One numbered line, of which `rest` gives what is more than the head."""
    global _writer, _beat_due
    if not os.environ.get("GPUQ_REPORT"):
        return False
    writer = _writer
    if writer.pid != os.getpid():
        _writer = writer = _Writer()
    text = rest()
    with writer.lock:
        writer.lines += 1
        head = f'"by": "{writer.name}", "n": {writer.lines}, "pid": {writer.pid}'
        line = f'{{{head}, "at": {time.time():.3f}{text}}}\n'
        _beat_due = time.monotonic() + BEAT_S
        return _append(line.encode())


def _append(line: bytes) -> bool:
    """One write at the end of the file: lines of many processes stand whole, one after another.

    The file is opened each time. A descriptor that is kept would be closed by a job that makes
    itself a daemon, and its number would soon be that of another file of the job.
    """
    path = os.environ.get("GPUQ_REPORT")
    if not path:
        return False
    try:
        # Should the name be that of a pipe: rather lose the report than wait for its reader.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(path, flags, 0o600)
        try:
            line = _seam(file) + line
            return os.write(file, line) == len(line)
        finally:
            os.close(file)
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return False


def _seam(file: int) -> bytes:
    """A line that a full disk has cut off is closed, so that it spoils no other. One that another
    process is just writing may look the same; an empty line comes of it."""
    end = os.fstat(file).st_size
    return b"" if end == 0 or os.pread(file, 1, end - 1) == b"\n" else b"\n"
