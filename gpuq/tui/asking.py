"""Threads that ask the daemon: some for looks and others for deeds, so that a look that hangs keeps no
deed waiting. They end with the process, whatever they wait for."""

import threading
from collections import deque
from collections.abc import Callable

LOOKERS, DOERS = 4, 4

Work = Callable[[], None]


class Crew:
    """Threads up to a number, made when there is work for them. Work raises nothing."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._threads = self._idle = 0
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()

    def add(self, work: Work) -> None:
        with self._changed:
            self._waiting.append(work)
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._threads < self._most:
                self._threads += 1
                name = f"{self._name} {self._threads}"
                threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Of what waits nothing is begun any more."""
        with self._changed:
            self._waiting.clear()
            self._most = 0
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if not self._most:
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                work = self._waiting.popleft()
            work()


class Looks:
    """Of each group one at a time, and of those that wait for it only the last."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._latest: dict[str, Work] = {}
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def add(self, group: str, work: Work) -> None:
        with self._lock:
            self._latest[group] = work
            if group in self._under_way:
                return
            self._under_way.add(group)
        self._crew.add(lambda: self._run(group))

    def is_latest(self, group: str, work: Work) -> bool:
        """Nothing else of the group was asked for since."""
        with self._lock:
            return self._latest.get(group) is work

    def _run(self, group: str) -> None:
        with self._lock:
            work = self._latest[group]
        work()
        with self._lock:
            if self._latest[group] is work:
                self._under_way.discard(group)
                return
        self._crew.add(lambda: self._run(group))
