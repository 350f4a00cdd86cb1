"""What the daemon tells, read in a thread: a subscription, and another one wherever that breaks off."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gpuq.client import Client
from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.link import Stream

AGAIN_S, LONGEST_AGAIN_S = 0.5, 15.0  # the daemon is being restarted, most likely
PACE_S, UNSEEN_PACE_S = 0.25, 5.0
MOST_UNTAKEN = 4  # parts that were told and not looked at yet


class Place(NamedTuple):
    """Where to go on from, and of which queue that is."""

    number: int | None = None
    mark: str | None = None


class Feed:
    """Calls, all in its own thread: `tell` with each part, `lose` with why there is nothing more just
    now. `place` is asked for where to go on from, and `finished_since` for the moment (s since the
    epoch) from which on jobs that ended are told: when that is another, all is told anew."""

    def __init__(
        self,
        client: Client,
        *,
        tell: Callable[[dict[str, Any]], None],
        lose: Callable[[GpuqError], None],
        place: Callable[[], Place],
        finished_since: Callable[[], float],
    ) -> None:
        self._client = client
        self._tell = tell
        self._lose = lose
        self._place = place
        self._finished_since = finished_since
        self._asked_since = finished_since()
        self._pace_s = PACE_S
        self._again_s = AGAIN_S
        self._stream: Stream | None = None
        self._room = threading.Semaphore(MOST_UNTAKEN)
        self._is_over = threading.Event()
        self._is_renewed = False
        self._is_anew = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def taken(self, *, is_understood: bool = True) -> None:
        """A part that was told has been looked at. Who does not come to that is told no more: it stays
        with the daemon, which makes one part of it all. Where it was not understood, all is told anew,
        after ever longer pauses."""
        if is_understood:
            self._again_s = AGAIN_S
        else:
            self._is_anew = True
            self._hang_up()
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
                self._pause(error)
            except Exception as error:  # whatever it is, nobody else goes on from here
                self._pause(GpuqError(f"what the daemon told cannot be read: {error!r}"))
            else:
                # Its end is ours, or was asked for: by another pace, or by the last word.
                if self._is_anew:
                    self._wait()
                elif not self._is_renewed:
                    self._pause(DaemonUnreachable("the daemon closed the connection"))

    def _pause(self, error: GpuqError) -> None:
        if not self._is_over.is_set():
            self._lose(error)
            self._wait()

    def _wait(self) -> None:
        self._is_over.wait(self._again_s)
        self._again_s = min(2 * self._again_s, LONGEST_AGAIN_S)

    def _read(self) -> None:
        self._is_renewed = False
        place, since = self._place(), self._finished_since()
        if self._is_anew or since != self._asked_since:
            place = place._replace(number=None)
        self._is_anew, self._asked_since = False, since
        stream = self._client.subscribe(
            since=place.number, mark=place.mark, finished_since=since, pace_s=self._pace_s
        )
        self._stream = stream
        for part in stream:
            self._room.acquire()
            if self._is_over.is_set() or self._is_anew:
                stream.close()
                return
            self._tell(part)
            if self._finished_since() != since:
                self._is_renewed = True
                stream.close()
                return


def midnight(now: float) -> float:
    """When today began, by the clock on the wall."""
    year, month, day, *_ = time.localtime(now)
    return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
