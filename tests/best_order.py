"""The best that anybody could have done who knew beforehand who comes and how long each one runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from tests.worlds import Task, World


def best_makespan_s(world: World, most_steps: int = 50_000) -> float | None:
    """The least time in which all of it can be done by one who knows everything before: branch and
    bound over the orders in which jobs are put into the earliest gap (one of these schedules is the
    best, Kolisch 1996, doi:10.1016/0377-2217(95)00357-6). Whole GPUs only; None where it takes too
    long."""
    tasks = sorted(world.tasks, key=lambda task: -task.gpus * task.holds_s)
    search = _Search(world.gpus, most_steps)
    search.go((), tuple(tasks), 0.0, least_makespan_s(world))
    return None if search.steps > most_steps else search.best_s


def least_makespan_s(world: World) -> float:
    """No schedule is shorter: for each moment, all that comes from then on has to be done after it."""
    tasks = world.tasks
    longest = max((task.comes_at + task.holds_s for task in tasks), default=0.0)
    by_area = (
        since + sum(one.gpus * one.holds_s for one in tasks if one.comes_at >= since) / world.gpus
        for since in {task.comes_at for task in tasks}
    )
    return max([longest, *by_area])


Block = tuple[float, float, int]  # from, to, GPUs


@dataclass(slots=True)
class _Search:
    gpus: int
    most_steps: int
    best_s: float = inf
    steps: int = 0

    def go(
        self, placed: tuple[Block, ...], left: tuple[Task, ...], end_s: float, least_s: float
    ) -> None:
        self.steps += 1
        if not left:
            self.best_s = min(self.best_s, end_s)
        if not left or self.steps > self.most_steps or self.best_s <= least_s:
            return
        tried: set[tuple[float, int, float]] = set()
        for place, task in enumerate(left):
            alike = task.comes_at, task.gpus, task.holds_s
            if alike in tried:
                continue
            tried.add(alike)
            start_s = _earliest(placed, task, self.gpus)
            ends_s = max(end_s, start_s + task.holds_s)
            if ends_s < self.best_s:
                block = (start_s, start_s + task.holds_s, task.gpus)
                rest = left[:place] + left[place + 1 :]
                self.go((*placed, block), rest, ends_s, least_s)


def _earliest(placed: Sequence[Block], task: Task, gpus: int) -> float:
    moments = sorted({task.comes_at, *(end for _, end, _ in placed if end > task.comes_at)})
    return next(at for at in moments if _has_room(placed, at, task, gpus))


def _has_room(placed: Sequence[Block], at: float, task: Task, gpus: int) -> bool:
    end = at + task.holds_s
    beside = [block for block in placed if block[0] < end and block[1] > at]
    edges = [at, *(begin for begin, _, _ in beside if begin > at)]
    return all(
        sum(n for begin, over, n in beside if begin <= edge < over) + task.gpus <= gpus
        for edge in edges
    )
