"""What the scheduler decides, as values. Whoever carries them out decides nothing any more."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuq.core.model import EndCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start this attempt on these GPUs; `passed` are the earlier jobs that it overtakes."""

    job: int
    attempt: int
    gpus: tuple[str, ...] = ()
    passed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End a job that has not started."""

    job: int
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to everything the job is. `ends` is the cause where the signal is a step towards
    its end, and None where it is only a message."""

    job: int
    attempt: int
    signal: int
    ends: EndCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Let all of the job stand still."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """It survives KILL: find out what and why, and say so. Its GPUs stay with it."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelay:
    """Its wait between two attempts is over."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A GPU that was cooling is cool: give it on."""

    gpu: str
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDirty:
    """A GPU did not cool in time: it is not given on until it has. `dirt` says who is on it."""

    gpu: str
    slot: int
    dirt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideGpu:
    """Its hardware is not well: give it to nobody. Where that is lasting no good test ends it."""

    gpu: str
    reason: str
    is_lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TestGpu:
    """It is idle: find out whether it computes and remembers right."""

    gpu: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmit:
    """Give a GPU out again that was set aside. `accepts` is the defect that it still has then."""

    gpu: str
    why: str
    accepts: str | None = None


Decision = (
    Start
    | Cancel
    | Undelay
    | Signal
    | Pause
    | Resume
    | SetAside
    | Release
    | MarkDirty
    | SetAsideGpu
    | TestGpu
    | Readmit
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, why the others wait, and when to look again without news."""

    decisions: tuple[Decision, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    heads: Mapping[int, int] = field(default_factory=dict)  # class → its first waiting job
    wake_at: float | None = None  # CLOCK_MONOTONIC, s
    undelay_at: float | None = None  # the same on CLOCK_BOOTTIME, s
    standstill: str | None = None  # why nothing at all is started
