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
    """End a job that has not started, or (`last`) all from that one to there, which are alike."""

    job: int
    actor: str
    last: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to everything the job is, or only to its main process. `ends` is the cause where
    the signal is a step towards its end, and None where it is only a message. A job that gives way
    does so for another one, which `for_whom` names in words: "190 (priority 10)"."""

    job: int
    attempt: int
    signal: int
    ends: EndCause | None = None
    only_main: bool = False
    gives_way_to: int | None = None
    for_whom: str | None = None


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
class CountWait:
    """The jobs of this row have begun to wait for a GPU, and how long they do counts."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FallBack:
    """It has waited long enough for a GPU: let it ask for the CPU alone. `version` is that of the
    wishes that this was decided by; `why` says what it waited for."""

    job: int
    version: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Put a job that has ended back into the queue; one that waits there waits for nothing that its
    last attempt has left behind."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """What these jobs wait for has come."""

    need: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """What these jobs wait for cannot come: they end without having started."""

    need: int
    broken_by: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """What these jobs wait for is still to come, or again: who was skipped for it waits anew."""

    need: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divide:
    """Elements wait for elements that did not all fare alike: they are told apart."""

    need: int


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


# What becomes of that which jobs wait for.
Settling = Meet | Skip | Await | Divide

Decision = (
    Start
    | Cancel
    | Undelay
    | CountWait
    | FallBack
    | Requeue
    | Settling
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
    wall_at: float | None = None  # the same by the clock on the wall, s since the epoch
    standstill: str | None = None  # why nothing at all is started
