"""Which of several GPUs that would all do to take: the closest together, those whose loss breaks the
least apart what is left, those that the admin would have given first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from gpuq.core.gpus.gpu import Closeness, Gpu

Distance = Callable[[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A GPU that would do, and what speaks against it; less is better, and earlier counts more."""

    uuid: str
    reluctance: int  # for the sake of others who wait
    load: float  # the share of its memory that is taken
    misfit: int  # bytes, or another kind of GPU, that the job has no use for
    rank: int  # its place in the admin's order
    index: int

    @property
    def merits(self) -> tuple[int, float, int, int, int]:
        return self.reluctance, self.load, self.misfit, self.rank, self.index


def distances(gpus: Sequence[Gpu]) -> Distance | None:
    """How far two GPUs are from each other, as the driver tells, UNKNOWN where it does not; None where
    it tells of none."""
    if not any(gpu.links for gpu in gpus):
        return None
    links = {gpu.uuid: dict(gpu.links) for gpu in gpus}

    def far(one: str, other: str) -> int:
        told = links[one].get(other, Closeness.UNKNOWN)
        return min(told, links[other].get(one, Closeness.UNKNOWN))

    return far


# Each set takes some 25 µs to look at, and a turn of the loop is to take less than 10 ms.
MOST_SETS = 300


def choose(candidates: Sequence[Candidate], number: int, far: Distance | None) -> tuple[str, ...]:
    """The uuids of the best `number` of the candidates, of which there are as many at least."""
    if far is None:
        return _named(sorted(candidates, key=lambda one: one.merits)[:number])
    if number == 1:
        broken = {one.uuid: _broken([one], candidates, far) for one in candidates}
        return _named([min(candidates, key=lambda one: _alone(one, broken[one.uuid]))])
    sets: Iterable[Sequence[Candidate]]
    if comb(len(candidates), number) <= MOST_SETS:
        sets = combinations(candidates, number)
    else:
        # Closeness comes in nested islands: the best that grows around one of them is nearly the
        # best there is, and nobody looks at millions of sets.
        sets = (_grow(seed, candidates, number, far) for seed in candidates)
    return _named(min(sets, key=lambda island: _together(island, candidates, far)))


def _named(chosen: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(one.uuid for one in sorted(chosen, key=lambda one: (one.reluctance, one.index)))


def _alone(one: Candidate, broken: int) -> tuple[int, float, int, int, int, int]:
    return one.reluctance, one.load, one.misfit, broken, one.rank, one.index


def _grow(
    seed: Candidate, candidates: Sequence[Candidate], number: int, far: Distance
) -> list[Candidate]:
    island = [seed]
    left = {one.uuid: one for one in candidates if one is not seed}
    widest = dict.fromkeys(left, 0)
    total = dict.fromkeys(left, 0)
    while len(island) < number:
        for uuid in left:
            step = far(island[-1].uuid, uuid)
            widest[uuid] = max(widest[uuid], step)
            total[uuid] += step
        nearest = min(
            left.values(),
            key=lambda one: (one.reluctance, widest[one.uuid], total[one.uuid], one.merits),
        )
        island.append(left.pop(nearest.uuid))
    return island


def _together(
    island: Sequence[Candidate], candidates: Sequence[Candidate], far: Distance
) -> tuple[object, ...]:
    ways = [
        far(one.uuid, other.uuid) for place, one in enumerate(island) for other in island[:place]
    ]
    return (
        sum(one.reluctance for one in island),
        max(ways),
        sum(ways),
        sum(one.load for one in island),
        sum(one.misfit for one in island),
        _broken(island, candidates, far),
        sorted(one.rank for one in island),
        sorted(one.index for one in island),
    )


def _broken(island: Sequence[Candidate], candidates: Sequence[Candidate], far: Distance) -> int:
    """How close what is taken was to what is left: of islands, the one that is broken already."""
    taken = {one.uuid for one in island}
    left = [one.uuid for one in candidates if one.uuid not in taken]
    return sum(Closeness.UNKNOWN - far(uuid, other) for uuid in taken for other in left)
