"""What a job waits for, above, and what waits for it, below: two trees that meet in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.cli.fold_text import run_of
from gpuq.cli.job_text import letter, words
from gpuq.cli.render import DIM, cut, printable, width
from gpuq.core.units import parse_ranges
from gpuq.tui.data.pieces import BOLD, Pieces

Job = Mapping[str, Any]
DEEPEST = 3
MOST_JOBS = 40  # in one direction
MOST_OF_ONE = 8  # of what one job waits for, or of those that wait for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A job, or a run of them, and how it is bound to the one it hangs on: "ok, met". `more`: so many
    beside it are not shown."""

    job: Job
    bond: str
    below: tuple["Branch", ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    job: Job
    waits_for: tuple[Branch, ...]
    waited_for_by: tuple[Branch, ...]


Find = Callable[[str], Sequence[Job]]  # the jobs "12-18,20", in runs
Show = Callable[[int], Job]  # all about one


def needs_around(job: Job, find: Find, show: Show) -> Needs:
    """Asks for as many as can be read, and goes as far as `DEEPEST`."""
    grower = _Grower(find, show)
    return Needs(job=job, waits_for=grower.before(job, 1), waited_for_by=grower.behind(job, 1))


class _Grower:
    def __init__(self, find: Find, show: Show) -> None:
        self._find = find
        self._show = show
        self._left = {"before": MOST_JOBS, "behind": MOST_JOBS}

    def before(self, job: Job, depth: int) -> tuple[Branch, ...]:
        branches: list[Branch] = []
        for need in job.get("after") or () if depth <= DEEPEST else ():
            bond = need["when"] + ("" if need["state"] == "open" else f", {need['state']}")
            for one, more in self._some("before", need["jobs"]):
                below = self.before(one, depth + 1)
                branches.append(Branch(job=one, bond=bond, below=below, more=more))
        return tuple(branches)

    def behind(self, job: Job, depth: int) -> tuple[Branch, ...]:
        branches: list[Branch] = []
        jobs = job.get("needed_by") if depth <= DEEPEST else None
        for one, more in self._some("behind", jobs) if jobs else ():
            needed_by = self._show(one["id"]).get("needed_by") if depth < DEEPEST else None
            below = self.behind({**one, "needed_by": needed_by}, depth + 1)
            bond = _bond(one, job["id"])
            branches.append(Branch(job=one, bond=bond, below=below, more=more))
        return tuple(branches)

    def _some(self, direction: str, jobs: str) -> Iterable[tuple[Job, int]]:
        """The first of them; with the last of those so many are told that are left out."""
        room = min(MOST_OF_ONE, self._left[direction])
        if room <= 0:
            return []
        found = sorted(self._find(jobs), key=lambda one: int(one["id"]))
        some = found[:room]
        self._left[direction] -= len(some)
        return [(one, len(found) - room if one is some[-1] else 0) for one in some]


def _bond(job: Job, needed: int) -> str:
    """How it waits for that one."""
    for need in job.get("after") or ():
        if any(needed in span for span in parse_ranges(need["jobs"])):
            return str(need["when"])
    return ""


def need_lines(needs: Needs, room: int) -> list[Pieces]:
    job = needs.job
    if not needs.waits_for and not needs.waited_for_by:
        return [[(f"{job['id']} waits for no job, and none for it.", DIM)]]
    above = [("waits for", DIM)] if needs.waits_for else [("waits for no job", DIM)]
    below = [("waited for by", DIM)] if needs.waited_for_by else [("no job waits for it", DIM)]
    return [
        above,
        *_grown(needs.waits_for, room, ""),
        _line("", job, "", room, BOLD),
        below,
        *_grown(needs.waited_for_by, room, ""),
    ]


def _grown(branches: Sequence[Branch], room: int, trunk: str) -> list[Pieces]:
    lines: list[Pieces] = []
    for number, branch in enumerate(branches):
        is_last = number == len(branches) - 1 and branch.more <= 0
        lines.append(_line(trunk + ("└ " if is_last else "├ "), branch.job, branch.bond, room))
        lines += _grown(branch.below, room, trunk + ("  " if is_last else "│ "))
        if branch.more > 0:
            lines.append([(f"{trunk}└ ", DIM), (f"and {branch.more} more", DIM)])
    return lines


def _line(front: str, job: Job, bond: str, room: int, code: str = "") -> Pieces:
    cell = letter(dict(job))
    colour = cell[1] if isinstance(cell, tuple) else ""
    state = words(job["substate"] or job["outcome"] or job["state"])
    named = f"{run_of(dict(job))} {printable(job['name'])}".rstrip()
    bond = f"  {bond}" if bond else ""
    left = max(room - width(front) - width(state) - width(bond) - 2, 8)
    named = cut(named, left)
    gap = " " * (left - width(named))
    return [(front, DIM), (named + gap, code), (f"  {state}", colour), (bond, DIM)]
