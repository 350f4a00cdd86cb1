"""What has been, asked of the daemon: for `Client.history`, `stats`, `errors` and `usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

from gpuq.typed import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[..., dict[str, Any]]

ANSWER_S = 600.0  # a million jobs are looked at in a minute, and others may be looking, too


class PastFilters(TypedDict, total=False):
    """Which jobs: without one of them, whichever."""

    since: float  # ended since then, s since the epoch; of stats and errors also what has not ended
    mine: bool
    user: str
    name: str  # * and ? stand for any letters
    tag: str
    queue: str


class HistoryFilters(PastFilters, total=False):
    until: float  # ended before that, s since the epoch
    states: list[str]  # "failed", "timed_out", ...
    idle: bool  # only those that held a GPU and did not use it


class PastJob(Job):
    """A job that has ended."""

    held_idle: bool


class Quantity(TypedDict):
    """A point is [number, mean, max, count]: what was measured, so many times, in that stretch."""

    min: float
    mean: float
    max: float
    points: list[tuple[int, float, float, int]]


class JobSeries(TypedDict):
    """How an attempt went; `why` says in words why there are no quantities."""

    job: int
    attempt: int  # 0: it has not begun
    simulated: bool
    why: str | None
    started_at: float | None
    ended_at: float | None
    width_s: float
    quantities: dict[str, Quantity]


class Fared(TypedDict):
    """How the jobs fared that have `key` in common; None: others', of which no more is told."""

    key: str | None
    jobs: int
    queued: int
    running: int
    succeeded: int
    failed: int  # or timed out, out of memory, lost
    fell_back: int  # to the CPU
    attempts: int
    simulated: int  # of the attempts: on simulated GPUs
    wait_p50_s: float | None
    wait_p95_s: float | None
    run_p50_s: float | None
    run_p95_s: float | None
    memory_peak_bytes: int | None
    gpu_peak_bytes: int | None


class Stats(TypedDict):
    stats: list[Fared]
    more: int  # of them, that are not told
    by: str
    since: float | None


class Failed(TypedDict):
    """Attempts that ended badly and have `key` in common: a signature, an outcome, the UUID of a GPU,
    the start of an hour (s since the epoch). None: others', or no GPU."""

    key: str | int | None
    errors: int
    ended: int | None  # how many ended there in all; by GPU and by hour
    jobs: int
    users: int
    last_at: float
    last_job: int


class Errors(TypedDict):
    errors: list[Failed]  # by GPU each with its "index", too
    more: int
    by: str
    since: float | None


class Had(TypedDict):
    """GPU time in s. `gpu_s` counts a shared GPU whole for each who shares it, `leased_gpu_s` divides
    it; busy, idle and unmeasured are the parts of that."""

    attempts: int
    gpu_s: float
    leased_gpu_s: float
    busy_gpu_s: float | None
    idle_gpu_s: float | None
    unmeasured_gpu_s: float
    simulated_gpu_s: float
    energy_j: float | None
    cost: float | None  # None: no price was named


class UserHad(Had):
    user: str
    uid: int
    running: int
    gpus: int  # that they hold now
    share_gpu_s: float  # what fair share goes by: it fades
    share_percent: float


class GroupHad(Had):
    group: str | None
    name: str | None


class GpuHad(Had):
    gpu: str  # its UUID
    index: int
    model: str
    simulated: bool
    seconds: float  # in which it could have been used


class _Usage(TypedDict):
    by: str
    since: float
    until: float
    price: str | None
    total: Had
    more: int
    fair_share: bool
    half_life_s: float


class Usage(_Usage, total=False):
    """One of the three lists, by what was asked for."""

    users: list[UserHad]
    groups: list[GroupHad]
    gpus: list[GpuHad]


StatsBy = Literal["state", "user", "name", "group", "queue"]
ErrorsBy = Literal["signature", "outcome", "gpu", "hour"]
UsageBy = Literal["user", "group", "gpu"]


def pages(call: Call, asked: dict[str, Any], limit: int | None) -> Iterator[list[Any]]:
    """The last that ended first; a page at a time: of a long history no more need be here at once."""
    after, left = None, limit
    while left is None or left > 0:
        answer = call("history", answer_s=ANSWER_S, after=after, limit=left, **asked)
        if not answer["jobs"]:
            return
        yield answer["jobs"]
        after = answer["after"]
        left = None if left is None else left - len(answer["jobs"])
