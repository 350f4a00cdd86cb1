"""What a runner looks after while its job runs: the log, a progress bar in it, and signs of life.
Standard library only.

It looks about once a second, and never at the job itself.
"""

from __future__ import annotations

import os
import time

from gpuq.daemon.attempt import record
from gpuq.daemon.attempt.joblog import JobLog
from gpuq.daemon.attempt.progress import BarWatch
from gpuq.daemon.attempt.report import told_out_of_memory
from gpuq.daemon.attempt.steps import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

LOOK_S = 1.0
FIRST_LOOK_S = 0.005  # after the start: most of what is over by then has written little
LAST_OUTPUT_BYTES = 16 * 1024  # a traceback of torchrun with four workers


class Watch:
    """Made ahead, perhaps for an attempt that never begins, and told to `begin` before the job is
    there, so that it knows where the job's own part of a log begins."""

    def __init__(self, order: Message, files: Files) -> None:
        self._files = files
        self._report = os.path.basename(order.get("report") or "")
        self._log = JobLog(
            files.log,
            files.log_index if files.log_index >= 0 else None,
            files.log_reader if files.log_reader >= 0 else None,
            cap_bytes=order.get("log_cap_bytes"),
            keep_free_bytes=order.get("keep_free_bytes", 0),
        )
        self._errors = self._log
        if files.stderr >= 0:
            reader = files.stderr_reader if files.stderr_reader >= 0 else None
            self._errors = JobLog(files.stderr, None, reader, cap_bytes=None, keep_free_bytes=0)
        # Errors first: bars are drawn there.
        self._bar = BarWatch(
            (files.stderr_reader, files.log_reader), order["attempt_dir"], every_s=_pause_s(order)
        )
        self._heartbeat = _Heartbeat(order, files.folder) if order.get("heartbeat_s") else None
        self._next_at = 0.0

    def begin(self) -> None:
        """What stands in a log by now is not the job's: others may write there too."""
        for log in {self._log, self._errors}:
            log.begin()
        self._bar.begin()
        if self._heartbeat is not None:
            self._heartbeat.begin()
        # A fast writer is not to be alone for its first second.
        self._next_at = time.monotonic() + FIRST_LOOK_S

    def look(self) -> float:
        """Looks where that is due; returns in how many seconds it is again."""
        now = time.monotonic()
        if now >= self._next_at:
            pause_s = self._log.tick(time.time())
            has_moved = self._bar.look(now)
            if self._heartbeat is not None:
                pause_s = min(pause_s, self._heartbeat.look(now, has_moved=has_moved))
            self._next_at = time.monotonic() + pause_s
        return max(self._next_at - time.monotonic(), 0.0)

    def output(self) -> int | None:
        """Where others may write what they have to say; None where the log is no file."""
        return self._log.fd

    def findings(self, *, succeeded: bool) -> Message:
        """For the record: what was dropped of the log, and for a job that did not succeed what it
        said in the end."""
        self._log.finish(time.time())
        self._bar.look_at_once()
        found: Message = {
            "log_dropped_bytes": self._log.dropped_bytes,
            "nothing_reported": not self._bar.has_noted and self._is_report_empty(),
        }
        if not succeeded:
            said = self._errors.tail(LAST_OUTPUT_BYTES)
            found["last_output"] = said.decode("utf-8", "replace")
            found["told_out_of_memory"] = told_out_of_memory(self._files.report)
        return found

    def _is_report_empty(self) -> bool:
        """Most are, and nobody has to open them once more. What a job has put in place of the file that
        it got is not looked at here."""
        try:
            given = os.fstat(self._files.report)
            found = os.stat(self._report, dir_fd=self._files.folder, follow_symlinks=False)
        except OSError:
            return False
        is_given = (found.st_dev, found.st_ino) == (given.st_dev, given.st_ino)
        return is_given and not given.st_size

    def close(self) -> None:
        for log in {self._log, self._errors}:
            log.close()
        self._bar.close()
        if self._heartbeat is not None:
            self._heartbeat.close()


def _pause_s(order: Message) -> float:
    """Between two looks: a sign of life has to be known of in time."""
    return min(LOOK_S, (order.get("heartbeat_s") or float("inf")) / 4)


class _Heartbeat:
    """Any change of the report is a sign of life, and so is a progress bar in the log that moves. They
    are stamped on the clock that no one can set."""

    def __init__(self, order: Message, folder: int) -> None:
        self._folder = folder
        self._name = os.path.basename(order["report"])
        self._attempt_dir = order["attempt_dir"]
        self._pause_s = _pause_s(order)

    def begin(self) -> None:
        self._seen = self._measure()
        self._beat = record.open_beat(self._attempt_dir)

    def look(self, now: float, *, has_moved: bool) -> float:
        measure = self._measure()
        if has_moved or measure != self._seen:
            self._seen = measure
            record.note_beat(self._beat, now)
        return self._pause_s

    def close(self) -> None:
        os.close(self._beat)

    def _measure(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
