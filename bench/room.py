"""Where all that is measured lives: a folder of its own, an environment of its own, and the promise
that nothing of it is left behind. Nobody's own queue is ever asked."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from bench import proc
from bench.figures import Samples
from bench.scale import Scale
from bench.stamp import Stamp

T = TypeVar("T")
N = TypeVar("N")

# What would lead a program of the bench to somebody's own queue.
OTHERS = ("GPUQ_", "XDG_", "TS_", "SLURM", "HQ_", "GFLOW", "TMUX")
# With which Python compiles gpuq anew at each start, as it never does where it is installed.
UNUSUAL = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class Room:
    """`folder` is on a file system that keeps what is synced, as a queue's is."""

    def __init__(self, folder: Path, scale: Scale, peers: Path) -> None:
        self.folder = folder
        self.scale = scale
        self.peers = peers
        self.stamp = Stamp(folder)
        self._made = 0

    def new_folder(self, name: str) -> Path:
        self._made += 1
        folder = self.folder / f"{self._made}-{name}"
        folder.mkdir()
        return folder

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS + UNUSUAL)}
        return kept | {"HOME": str(home), "TMPDIR": str(home), "GPUQ_AUTOSTART": "0"} | more

    def interleaved(
        self,
        deeds: Mapping[N, Callable[[], T]],
        rounds: int | None = None,
        once: Collection[N] = (),
    ) -> dict[N, "Rounds[T]"]:
        """Each in turn, round by round, so that what else the machine does meets all of them alike.
        Who fails is out, and the table says why. `once`: they are slow, and one round has to do."""
        lived: dict[N, Rounds[T]] = {name: Rounds() for name in deeds}
        ends = time.monotonic() + self.scale.share_s
        for number in range(rounds or self.scale.rounds):
            if number and time.monotonic() > ends:
                break
            for name, deed in deeds.items():
                if not (number and name in once):
                    lived[name].add(str(name), deed)
        return lived


class Rounds(Generic[T]):
    """What one contender came to in each round."""

    def __init__(self) -> None:
        self.each: list[T] = []
        self.why_none: str | None = None

    def add(self, name: str, deed: Callable[[], T]) -> None:
        if self.why_none is None:
            try:
                self.each.append(deed())
            except Exception as error:
                self.why_none = told(error)
                loudly(f"{name}: {self.why_none}")

    def samples(self, figure: Callable[[T], float]) -> Samples:
        """One figure for each round."""
        if self.why_none is not None:
            return Samples(why_none=self.why_none)
        return Samples(values=tuple(figure(one) for one in self.each))


@contextmanager
def room(scale: Scale, peers: Path, where: str | None = None) -> Iterator[Room]:
    """/var/tmp unless said, as /tmp is memory on many machines, and a commit costs nothing there."""
    proc.become_subreaper()
    folder = Path(tempfile.mkdtemp(prefix="gpuq-bench-", dir=where or "/var/tmp"))
    before = set(proc.descendants(os.getpid()))
    try:
        yield Room(folder, scale, peers)
    finally:
        left = set(proc.descendants(os.getpid())) - before
        if left:
            named = ", ".join(f"{pid} ({proc.command_line(pid)})" for pid in sorted(left))
            loudly(f"still there and ended now: {named}")
        proc.end_all(left)
        proc.reap()
        shutil.rmtree(folder, ignore_errors=True)


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def loudly(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)
