"""What a job wants done when gpuq ends it: a command for a shell, run once, by its runner. Standard
library only, single-threaded.

Before its first signal for an end the daemon leaves a mark in the attempt's own directory, with how
long the job has until KILL. So it does not matter which of them dies in between: the runner looks for
the mark about once a second, and when the main process has ended.
"""

from __future__ import annotations

import os
import time

from gpuq.daemon.attempt import record
from gpuq.daemon.attempt.beside import spawn_beside
from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

SHELL = "/bin/sh"


class OnKill:
    """`output` gives the descriptor of the log that the command writes to, where it is a file."""

    def __init__(self, order: Message, tmp_dir: bytes, output: Callable[[], int | None]) -> None:
        self._order = order
        self._command: str | None = order.get("on_kill")
        self._tmp_dir = tmp_dir
        self._output = output
        self._pid: int | None = None  # while it runs
        self._until = 0.0  # CLOCK_MONOTONIC
        self._findings: Message = {}

    def look(self) -> None:
        """Starts it once the daemon has begun to end the job."""
        if self._command is None or self._pid is not None or self._findings:
            return
        left_s = record.ends_within(self._order["attempt_dir"], self._order["nonce"])
        if left_s is None:
            return
        if left_s <= 0:
            self._findings = {"on_kill_trouble": "there was no time for it: KILL came at once"}
            return
        self._until = time.monotonic() + left_s
        try:
            self._start(self._command)
        except OSError as error:
            why = f"it could not be started: {error.strerror}"
            self._findings = {"on_kill_trouble": why}

    def heard(self, pid: int, code: int) -> None:
        """A child of the runner has ended: with that code, or minus the signal that ended it."""
        if pid == self._pid:
            self._pid = None
            self._findings = {"on_kill_code": code}

    def finish(self, look: Callable[[], float]) -> Message:
        """The main process has ended: waits for the command until the grace is over. `look` is done
        meanwhile, and says in how many seconds again. What is to be told of it, for the record."""
        self.look()
        while self._pid is not None:
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                self._end()
                break
            signals.sigtimedwait({signals.SIGCHLD}, min(look(), left_s))
            self._ask(os.WNOHANG)
        return self._findings

    def _start(self, command: str) -> None:
        argv = [SHELL, "-c", command]
        self._pid = spawn_beside(self._order, argv, tmp_dir=self._tmp_dir, output=self._output())

    def _end(self) -> None:
        assert self._pid is not None
        for send in (os.killpg, os.kill):  # it may not have come as far as to have a group
            try:
                send(self._pid, signals.SIGKILL)
            except OSError:
                pass
        self._ask(0)
        self._findings["on_kill_trouble"] = "it was ended, since the grace was over"

    def _ask(self, how: int) -> None:
        assert self._pid is not None
        pid, status = os.waitpid(self._pid, how)
        if pid:
            self.heard(pid, os.waitstatus_to_exitcode(status))
