"""A scenario: GPUs that do not exist, and the story of what happens on them.

Frozen values, and what of the story is in force at a moment. `scenario_file.py` reads them from a
file, `scripted.py` plays them. Of the world this asks one thing only: which of the files that drive
the story lie beside it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpuq.core.gpus.gpu import Closeness
from gpuq.daemon.gpus.simulated.plain import simulated_uuid

# A moment of the story: seconds since it began, or the name of a file that lies beside it.
Moment = float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """Where the story stands: s since the daemon started, s since this round of it began, and the
    files that lie there, each with the s since the daemon started at which it was first seen."""

    elapsed_s: float
    phase_s: float
    files: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time in which a part of the story is in force. Without an end: until the round ends."""

    begin: Moment = 0.0
    end: Moment | None = None

    def is_open(self, now: Now) -> bool:
        return _has_come(self.begin, now) and not (
            self.end is not None and _has_come(self.end, now)
        )

    def age_s(self, now: Now) -> float:
        """How long it has been open, where it is."""
        if isinstance(self.begin, str):
            return now.elapsed_s - now.files[self.begin]
        return now.phase_s - self.begin


def _has_come(moment: Moment, now: Now) -> bool:
    return moment in now.files if isinstance(moment, str) else now.phase_s >= moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points (s, value), linear between them; level before the first and after the last."""

    points: tuple[tuple[float, float], ...]

    def at(self, age_s: float) -> float:
        before_s, before = self.points[0]
        for point_s, value in self.points:
            if age_s < point_s:
                if point_s == before_s:
                    return value
                return before + (value - before) * (age_s - before_s) / (point_s - before_s)
            before_s, before = point_s, value
        return before


class Tells(StrEnum):
    """What the driver says of the processes on a GPU."""

    ALL = "all"
    NO_SIZES = "no sizes"  # as from within a container
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedGpu:
    """A whole card, or one of the instances that MIG divides a card into."""

    card: int
    instance: int | None = None
    model: str
    memory_bytes: int | None  # None: it shares the memory of the host
    reserved_bytes: int = 0
    idle_bytes: int = 0
    power_limit_w: float
    one_process_only: bool = False
    is_prohibited: bool = False
    tells: Tells = Tells.ALL

    @property
    def uuid(self) -> str:
        """Of a shape that every reader of uuids accepts, and of no device."""
        if self.instance is None:
            return simulated_uuid(self.card)
        return f"MIG-51750000-0000-4000-8000-{self.instance:06x}{self.card:06x}"

    @property
    def parent(self) -> str | None:
        return None if self.instance is None else simulated_uuid(self.card)

    @property
    def room_bytes(self) -> int | None:
        """What is left for all who use it; None where nobody counts."""
        if self.memory_bytes is None:
            return None
        return self.memory_bytes - self.reserved_bytes - self.idle_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    gpus: frozenset[int]
    closeness: Closeness


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How gpuq's own jobs behave on these GPUs. The curve runs from the start of each job."""

    gpus: frozenset[int]
    window: Window = Window()
    uses: float = 1.0  # of what a job declared
    undeclared_bytes: int = 2**30
    ramp_s: float = 0.0
    utilization: Curve = Curve(points=((0.0, 90.0),))
    release_s: float | None = 0.0  # None: its memory stays for as long as the window is open


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A process that gpuq did not start."""

    pid: int
    user: str | None
    command: str | None
    unit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What somebody outside gpuq takes of each of these GPUs; `process` is None where none is to be
    seen. The curve runs from the moment at which the window opened."""

    gpus: frozenset[int]
    window: Window
    memory_bytes: int
    utilization: Curve
    process: Stranger | None


class FaultKind(StrEnum):
    LOST = "lost"
    RESET = "reset"
    UNREADABLE = "unreadable"
    MISSING = "missing"  # not in the driver's list at all
    DEFECT = "defect"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    gpus: frozenset[int]
    window: Window
    kind: FaultKind
    says: str
    is_lasting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """Errors that the driver tells of once, at a moment; in a story that repeats once a round."""

    gpus: frozenset[int]
    at: Moment
    codes: tuple[int, ...]

    def times(self, after_s: float, now: Now, repeat_s: float | None) -> int:
        """How often the moment came later than `after_s` (s since the daemon started)."""
        if isinstance(self.at, str):
            return int(now.files.get(self.at, after_s) > after_s)
        if repeat_s is None:
            return int(after_s < self.at <= now.elapsed_s)
        return _rounds(now.elapsed_s, self.at, repeat_s) - _rounds(after_s, self.at, repeat_s)


def _rounds(elapsed_s: float, at_s: float, repeat_s: float) -> int:
    return max(0, int((elapsed_s - at_s) // repeat_s) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverTrouble:
    """The driver as a whole: `unavailable` says why there is no GPU to be read; None: it hangs."""

    window: Window
    unavailable: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How the thorough test of these GPUs goes: why it fails, or how fast they are."""

    gpus: frozenset[int]
    window: Window
    fails: str | None
    tflops: float | None  # of a matrix product, 10^12 operations/s
    memory_gb_s: float | None  # of a copy within its memory, 10^9 bytes/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Its GPUs by their index, and all that happens, in the order of the file."""

    folder: str  # where the files lie that drive it
    about: str | None = None
    repeat_s: float | None = None
    gpus: tuple[ScriptedGpu, ...]
    links: tuple[Link, ...] = ()
    jobs: tuple[Behaviour, ...] = ()
    uses: tuple[Use, ...] = ()
    faults: tuple[Fault, ...] = ()
    xids: tuple[Xid, ...] = ()
    driver: tuple[DriverTrouble, ...] = ()
    trials: tuple[Trial, ...] = ()
    files: frozenset[str] = frozenset()

    def moment(self, elapsed_s: float, known: Mapping[str, float] | None = None) -> Now:
        """Where the story stands `elapsed_s` after the daemon started. `known` are the files that
        lay there when somebody last looked."""
        known = known or {}
        there = [name for name in self.files if os.path.exists(os.path.join(self.folder, name))]
        return Now(
            elapsed_s=elapsed_s,
            phase_s=elapsed_s if self.repeat_s is None else elapsed_s % self.repeat_s,
            files={name: known.get(name, elapsed_s) for name in there},
        )

    def unavailable(self, now: Now) -> str | None:
        """Why there is no GPU to be read at all."""
        told = (one.unavailable for one in self.driver if one.window.is_open(now))
        return next((why for why in told if why is not None), None)

    def hangs(self, now: Now) -> bool:
        return any(one.unavailable is None and one.window.is_open(now) for one in self.driver)

    def behaviour(self, index: int, now: Now) -> Behaviour:
        """Of several in force the one that stands last in the file."""
        for one in reversed(self.jobs):
            if index in one.gpus and one.window.is_open(now):
                return one
        return Behaviour(gpus=frozenset((index,)))

    def uses_of(self, index: int, now: Now) -> list[Use]:
        return [one for one in self.uses if index in one.gpus and one.window.is_open(now)]

    def faults_of(self, index: int, now: Now) -> dict[FaultKind, list[Fault]]:
        """Those in force by their kind, in the order of the file."""
        found: dict[FaultKind, list[Fault]] = {}
        for one in self.faults:
            if index in one.gpus and one.window.is_open(now):
                found.setdefault(one.kind, []).append(one)
        return found

    def links_of(self, index: int) -> dict[int, Closeness]:
        """How close other GPUs are; those that no link joins to it are not in there."""
        near: dict[int, Closeness] = {}
        for link in self.links:
            if index in link.gpus:
                for other in link.gpus - {index}:
                    near[other] = min(link.closeness, near.get(other, Closeness.UNKNOWN))
        return near


def test_failure(scenario: Scenario, index: int, elapsed_s: float) -> str | None:
    """Why the thorough test of this GPU fails, `elapsed_s` after the daemon started, or None."""
    trials = _trials(scenario, index, elapsed_s)
    return next((one.fails for one in trials if one.fails is not None), None)


def test_speeds(
    scenario: Scenario, index: int, elapsed_s: float
) -> tuple[float | None, float | None]:
    """What the test measures: (10^12 operations/s, 10^9 bytes/s), each None where nothing is said."""
    trials = _trials(scenario, index, elapsed_s)
    return (
        next((one.tflops for one in trials if one.tflops is not None), None),
        next((one.memory_gb_s for one in trials if one.memory_gb_s is not None), None),
    )


def _trials(scenario: Scenario, index: int, elapsed_s: float) -> list[Trial]:
    """Those in force, the last of the file first."""
    now = scenario.moment(elapsed_s)
    return [
        one for one in reversed(scenario.trials) if index in one.gpus and one.window.is_open(now)
    ]
