"""What a runner leaves on disk, and what a later daemon reads from it.

    no `began`            the job never ran: the order never came, or came to a runner that died
    `began`, no `record`  it ran, and nobody knows how it ended
    `record`              it ended like that

`began` holds what a daemon that comes later has to know: the job's main process and when it began,
and when that has ended while others of the job live on. `beat` holds when the job last reported,
`progress` how far a bar in its log has come. `ending` is the daemon's: that it ends the job.

Standard library only.
"""

from __future__ import annotations

import os

from gpuq import wire_json
from gpuq.daemon import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

BEGAN, RECORD, BEAT, ENDING = "began", "record", "beat", "ending"
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
LONGEST_RECORD = 128 * 1024  # what the job said in the end is most of it


class Began:
    """An attempt that has begun: its notes, and the room that is kept for its record."""

    def __init__(self, notes: int, record: int) -> None:
        self.notes = notes
        self.record = record


def take_room(attempt_dir: str, nonce: str) -> int:
    """Room on the disk for the record, taken before the job is there: one that fills the disk does not
    lose its own end. Returns the descriptor of the file; raises OSError, and has left none then. Of
    this runner alone: one that was to make ready the same attempt for an earlier daemon may give its
    own back at any time."""
    try:
        os.mkdir(attempt_dir, 0o700)
    except OSError:  # that of an earlier start is there, or the one above it is not
        os.makedirs(attempt_dir, mode=0o700, exist_ok=True)
    room = os.open(_unfinished(attempt_dir, nonce), NEW, 0o600)
    try:
        os.posix_fallocate(room, 0, LONGEST_RECORD)
    except OSError:
        give_room_back(attempt_dir, nonce, room)
        raise
    return room


def give_room_back(attempt_dir: str, nonce: str, room: int) -> None:
    os.close(room)
    try:
        os.unlink(_unfinished(attempt_dir, nonce))
    except FileNotFoundError:  # the attempt has been forgotten meanwhile, with all that it left
        pass


def begin(attempt_dir: str, nonce: str, room: int | None = None) -> Began:
    """Makes `began`: from here on the job has run. `room` has been taken, or is taken now."""
    if room is None:
        room = take_room(attempt_dir, nonce)
    faults.here("runner.room_taken")
    try:
        return Began(os.open(_began(attempt_dir, nonce), NEW, 0o600), room)
    except OSError:
        give_room_back(attempt_dir, nonce, room)
        raise


def take_back(attempt_dir: str, nonce: str, began: Began) -> None:
    """Nothing has begun after all."""
    os.close(began.notes)
    os.unlink(_began(attempt_dir, nonce))
    give_room_back(attempt_dir, nonce, began.record)


def note_main_process(began: Began, pid: int, start: int | None, mono: float) -> None:
    """For a daemon that adopts the attempt; the job does not depend on it."""
    _note(began, f"{pid} {start or 0} {mono:.3f}\n")


def note_main_ended(began: Began, left: int, mono: float) -> None:
    _note(began, f"ended {left} {mono:.3f}\n")


def _note(began: Began, text: str) -> None:
    try:
        os.write(began.notes, text.encode())
    except OSError:
        pass


def write(attempt_dir: str, began: Began, record: Message) -> bool:
    """Puts the record in its place whole, or not at all; False where the disk refuses.

    A rename without fsync survives everything but a power cut, so the daemon, whose commit is the
    durable copy, is told before anybody waits for the disk.
    """
    data = wire_json.dumps(record).encode()
    try:
        os.pwrite(began.record, data, 0)
        os.ftruncate(began.record, len(data))
        faults.here("runner.record_written")
        os.rename(_unfinished(attempt_dir, record["nonce"]), os.path.join(attempt_dir, RECORD))
    except OSError:
        return False
    return True


def sync(attempt_dir: str, began: Began) -> None:
    """For where no daemon is there whose commit would be the durable copy."""
    try:
        os.fsync(began.record)
        folder = os.open(attempt_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)


def close(began: Began) -> None:
    """A runner that takes another attempt keeps nothing of this one open."""
    for fd in (began.notes, began.record):
        os.close(fd)


def read(attempt_dir: str, nonce: str) -> Message | None:
    """The record of that attempt; None where there is none, or an empty, cut or foreign one."""
    try:
        with open(os.path.join(attempt_dir, RECORD), "rb") as file:
            record = wire_json.loads(file.read(LONGEST_RECORD))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("nonce") != nonce:
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Message) -> bool:
    """Does it say how the attempt ended, in values that can be stored? A job that runs as this
    daemon's own user can write there."""
    if (record.get("exit_code") is None) == (record.get("signal") is None):
        return False
    if record.get("stage") is not None and record.get("exit_code") is None:
        return False
    whole = (
        *("exit_code", "signal", "leftovers", "peak_rss_bytes", "log_dropped_bytes"),
        *("oom_kills", "bound_hits", "memory_peak_bytes", "on_kill_code"),
    )
    numbers = ("ended_at", "ended_mono", "told_to_end_mono", "user_s", "system_s")
    texts = (
        *("stage", "error", "leftover_names", "last_output", "told_out_of_memory"),
        *("on_kill_trouble", "container_trouble"),
    )
    return (
        all(_is_number(record.get(name), int) for name in whole)
        and all(_is_number(record.get(name), (int, float)) for name in numbers)
        and all(_is_text(record.get(name)) for name in texts)
    )


def was_told_to_end(record: Message) -> bool:
    """Had its runner got TERM, as everything does when the machine goes down, before it ended?"""
    told, ended = record.get("told_to_end_mono"), record.get("ended_mono")
    return told is not None and ended is not None and told <= ended


def _is_text(value: Any) -> bool:
    """JSON can write half a character, which no database takes."""
    if not isinstance(value, str | None):
        return False
    return value is None or value == value.encode("utf-8", "replace").decode()


def _is_number(value: Any, kind: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 2**62


def _unfinished(attempt_dir: str, nonce: str) -> str:
    return os.path.join(attempt_dir, f"{RECORD}-{nonce}.new")


def _began(attempt_dir: str, nonce: str) -> str:
    return os.path.join(attempt_dir, f"{BEGAN}-{nonce}")


# ── that it is being ended ──


def note_ending(attempt_dir: str, nonce: str, cause: str, within_s: float) -> None:
    """The daemon's word for the runner that it ends the job, and how long that has until KILL. The
    first one counts. An attempt that has no directory yet has not begun either."""
    path = _ending(attempt_dir, nonce)
    if os.path.exists(path):
        return
    try:
        with open(f"{path}.new", "w") as file:
            file.write(f"{cause} {within_s:.3f}\n")
        os.rename(f"{path}.new", path)
    except OSError:  # a full disk keeps no job from being ended
        pass


def ends_within(attempt_dir: str, nonce: str) -> float | None:
    """How many seconds a job had until KILL when it was first told to end; None where it was not."""
    try:
        with open(_ending(attempt_dir, nonce)) as file:
            seconds = float(file.read(100).split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return max(seconds, 0.0) if seconds < 2**40 else None


def _ending(attempt_dir: str, nonce: str) -> str:
    return os.path.join(attempt_dir, f"{ENDING}-{nonce}")


# ── what a later daemon reads ──


def has_begun(attempt_dir: str, nonce: str) -> bool:
    return os.path.exists(_began(attempt_dir, nonce))


def main_process(attempt_dir: str, nonce: str) -> tuple[int, int] | None:
    """(pid, start) of the job, as `note_main_process` left it."""
    words = _noted(attempt_dir, nonce, 0)
    try:
        pid, start = int(words[0]), int(words[1])
    except (ValueError, IndexError):
        return None
    return (pid, start) if 0 < pid < 2**31 and 0 <= start < 2**62 else None


def running_since(attempt_dir: str, nonce: str) -> float | None:
    """When the job began on CLOCK_MONOTONIC; None where a runner did not note it."""
    return _moment(_noted(attempt_dir, nonce, 0))


def main_ended(attempt_dir: str, nonce: str) -> tuple[int, float] | None:
    """(how many it left behind, when) where only leftovers of the job live on."""
    words = _noted(attempt_dir, nonce, 1)
    mono = _moment(words)
    if mono is None or words[0] != "ended" or not words[1].isdigit():
        return None
    return min(int(words[1]), 2**31), mono


def _noted(attempt_dir: str, nonce: str, line: int) -> list[str]:
    """The words of one line of the notes; none where it has not been written."""
    try:
        with open(_began(attempt_dir, nonce), errors="replace") as file:
            lines = file.read(1000).splitlines(keepends=True)
    except OSError:
        return []
    whole = [text.split() for text in lines if text.endswith("\n")]
    return whole[line] if len(whole) > line else []


def _moment(words: list[str]) -> float | None:
    try:
        mono = float(words[2])
    except (ValueError, IndexError):
        return None
    return mono if 0 <= mono < 2**40 else None


def began_at(attempt_dir: str, nonce: str) -> float:
    """When it began (s since the epoch), by when the last note was written."""
    noted = os.stat(_began(attempt_dir, nonce)).st_ctime
    since, ended = running_since(attempt_dir, nonce), main_ended(attempt_dir, nonce)
    if since is None or ended is None:
        return noted
    return max(noted - max(ended[1] - since, 0.0), 0.0)


# ── signs of life ──


def open_beat(attempt_dir: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.open(os.path.join(attempt_dir, BEAT), flags, 0o600)


def note_beat(beat: int, mono: float) -> None:
    """Of one length always, so that a reader never finds a half of it."""
    try:
        os.pwrite(beat, f"{mono:017.3f}\n".encode(), 0)
    except OSError:
        pass


def last_beat(attempt_dir: str) -> float | None:
    """When the job last reported, on CLOCK_MONOTONIC; None where it has not."""
    try:
        with open(os.path.join(attempt_dir, BEAT)) as file:
            return _moment(["", "", file.read(40).strip()])
    except (OSError, ValueError):
        return None
