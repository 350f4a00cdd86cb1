"""The queue as people number it: all that may start, in the order in which it is considered.

Runs of jobs that are alike stay runs: a million elements of an array are one step here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRun:
    """Jobs `first` to `last` of one user; they hold the places from `place` on."""

    first: int
    last: int
    uid: int
    priority: int
    rank: int
    place: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def considered_in_order(runs: Iterable[WaitingRun]) -> list[range]:
    """The ids, the first first: by priority, then by place; a user's own order (`rank`) counts among
    the places that the user's jobs of the same priority hold."""
    own: defaultdict[tuple[int, int], list[WaitingRun]] = defaultdict(list)
    for run in runs:
        own[run.uid, run.priority].append(run)
    placed = [
        (-priority, place, ids.start, ids)
        for (_, priority), runs_of_one in own.items()
        for place, ids in _placed(runs_of_one)
    ]
    return [ids for *_, ids in sorted(placed, key=lambda piece: piece[:3])]


def _placed(runs: list[WaitingRun]) -> Iterator[tuple[int, range]]:
    """Each place from which on some of these jobs stand, with their ids: those that go first get the
    first of the places that all of them hold."""
    held = iter(sorted((run.place, run.length) for run in runs))
    place, room = next(held)
    for run in sorted(runs, key=lambda run: (run.rank, run.place, run.first)):
        start = run.first
        while start <= run.last:
            if not room:
                place, room = next(held)
            taken = min(room, run.last - start + 1)
            yield place, range(start, start + taken)
            start, place, room = start + taken, place + taken, room - taken
