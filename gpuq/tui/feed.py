"""What the daemon tells, read in a thread: a subscription, and another one wherever that breaks off."""

import threading
import time
from collections.abc import Callable
from typing import Any

from gpuq.client import Client
from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.link import Stream

AGAIN_S = 0.5  # the daemon is being restarted, most likely
PACE_S, UNSEEN_PACE_S = 0.25, 5.0
MOST_UNTAKEN = 4  # parts that were told and not looked at yet


class Feed:
    """Calls, all in its own thread: `tell` with each part, `lose` with why there is nothing more just
    now. `since` is asked for where to go on from."""

    def __init__(
        self,
        client: Client,
        *,
        tell: Callable[[dict[str, Any]], None],
        lose: Callable[[GpuqError], None],
        since: Callable[[], int | None],
        finished_since: float,
    ) -> None:
        self._client = client
        self._tell = tell
        self._lose = lose
        self._since = since
        self._finished_since = finished_since
        self._pace_s = PACE_S
        self._stream: Stream | None = None
        self._room = threading.Semaphore(MOST_UNTAKEN)
        self._is_over = threading.Event()
        self._is_renewed = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def taken(self) -> None:
        """A part that was told has been looked at. Who does not come to that is told no more: it stays
        with the daemon, which makes one part of it all."""
        self._room.release()

    def stop(self) -> None:
        self._is_over.set()
        self._room.release()
        self._hang_up()

    def set_seen(self, is_seen: bool) -> None:
        """Whether anybody looks at the terminal: if not, news may be late."""
        pace_s = PACE_S if is_seen else UNSEEN_PACE_S
        if pace_s != self._pace_s:
            self._pace_s, self._is_renewed = pace_s, True
            self._hang_up()

    def _hang_up(self) -> None:
        if (stream := self._stream) is not None:
            stream.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._read()
            except GpuqError as error:
                if self._is_over.is_set():
                    return
                self._lose(error)
                self._is_over.wait(AGAIN_S)
            else:
                # Its end is ours, or was asked for: by another pace, or by the last word.
                if not self._is_renewed and not self._is_over.is_set():
                    self._lose(DaemonUnreachable("the daemon closed the connection"))
                    self._is_over.wait(AGAIN_S)

    def _read(self) -> None:
        self._is_renewed = False
        stream = self._client.subscribe(
            since=self._since(), finished_since=self._finished_since, pace_s=self._pace_s
        )
        self._stream = stream
        for part in stream:
            self._room.acquire()
            if self._is_over.is_set():
                return
            self._tell(part)


def midnight(now: float) -> float:
    """When today began, by the clock on the wall."""
    year, month, day, *_ = time.localtime(now)
    return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
