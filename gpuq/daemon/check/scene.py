"""What is promised of a machine with a daemon on it: from what `evidence` saw there, and the attempts
of the database, to a sentence for each promise that is broken. Pure, as `promises` is.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gpuq.core.units import format_ranges
from gpuq.daemon.check.promises import Breach, Span, about
from gpuq.daemon.store.audit import AttemptRow, JobRow

LONGEST_DELAY_S = 366 * 86400.0  # the longest backoff that is taken is a year
OVERDUE_S = 60.0
SPANS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A living process with the mark of an attempt in its environment."""

    pid: int
    start: int  # ticks after boot
    uid: int
    name: str
    job: int
    attempt: int
    nonce: str
    is_of_this_daemon: bool  # it was given this daemon's socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The machine, as it was seen."""

    state_dir: str
    boot_id: str
    boottime: float
    lock_pid: int | None = None  # who holds the lock of the state directory; 0: does not say
    answers: bool = False  # somebody answers for this state directory
    answering_pid: int | None = None
    alive: Mapping[int, int] = field(default_factory=dict)  # pid → start
    parents: Collection[int] = ()  # who has living children
    names: Mapping[int, str] = field(default_factory=dict)  # of those in groups
    marked: Sequence[Marked] = ()
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # path → pids in it
    job_folders: Sequence[int] = ()
    record_folders: Sequence[tuple[int, int]] = ()

    @property
    def has_daemon(self) -> bool:
        return self.lock_pid is not None

    def is_alive(self, pid: int, start: int) -> bool:
        return self.alive.get(pid) == start


@dataclass(slots=True, kw_only=True)
class Attempts:
    """What there is to know of attempts to judge processes by: those that live, and of the ended ones
    those that something alive points to."""

    scene: Scene
    active: list[AttemptRow] = field(default_factory=list)
    old_runners: list[AttemptRow] = field(default_factory=list)
    by_mark: dict[tuple[int, int, str], AttemptRow] = field(default_factory=dict)
    by_group: dict[str, AttemptRow] = field(default_factory=dict)
    _marks: set[tuple[int, int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._marks = {(one.job, one.attempt, one.nonce) for one in self.scene.marked}

    def take(self, attempt: AttemptRow) -> None:
        mark = (attempt.job, attempt.attempt, attempt.nonce)
        if mark in self._marks:
            self.by_mark[mark] = attempt
        if attempt.cgroup is not None and attempt.cgroup in self.scene.groups:
            self.by_group[attempt.cgroup] = attempt
        if attempt.ended_at is None:
            self.active.append(attempt)
        elif attempt.boot_id == self.scene.boot_id and self.scene.is_alive(
            attempt.runner_pid, attempt.runner_start
        ):
            self.old_runners.append(attempt)


def judge_delay(job: JobRow, scene: Scene) -> Iterator[Breach]:
    if job.delayed_until_boottime is None:
        return
    left_s = job.delayed_until_boottime - scene.boottime
    is_of_this_boot = job.delayed_boot == scene.boot_id
    if scene.has_daemon and not is_of_this_boot:
        sentence = f"job {job.id} waits for a moment of an earlier boot, and nobody has noticed"
        yield about(job, sentence, "delay_of_earlier_boot")
    elif is_of_this_boot and left_s > LONGEST_DELAY_S and job.delayed_for == "backoff":
        days = left_s / 86400
        sentence = f"job {job.id} waits {days:.0f} days for its next attempt: no backoff is so long"
        yield about(job, sentence, "delay_too_long")
    elif scene.has_daemon and left_s < -OVERDUE_S:
        what = "begin" if job.delayed_for == "begin" else "be tried again"
        sentence = f"job {job.id} was to {what} {-left_s:.0f} s ago, and nobody has noticed"
        yield about(job, sentence, "delay_overdue")


def judge_runners(active: Iterable[AttemptRow], scene: Scene) -> Iterator[Breach]:
    """Beside a daemon, an attempt that has not ended has a runner, or leftovers that are being ended.
    Without one, the next finds the truth about it."""
    if not scene.has_daemon:
        return
    for attempt in active:
        runner = f"runner (pid {attempt.runner_pid})"
        if attempt.boot_id != scene.boot_id:
            why = "it was started before the machine was"
        elif scene.is_alive(attempt.runner_pid, attempt.runner_start) or attempt.main_ended:
            continue
        else:
            why = f"its {runner} is gone"
        sentence = f"job {attempt.job} is held to run, and {why}, which nobody has noticed"
        yield about(attempt, sentence, "attempt_without_runner")


def judge_processes(attempts: Attempts, scene: Scene) -> Iterator[Breach]:
    """No process of what has ended, and none that no attempt knows."""
    told: set[int] = set()
    for breach in (
        *_judge_old_runners(attempts, scene),
        *_judge_groups(attempts, scene),
        *_judge_marks(attempts, scene),
    ):
        assert breach.process is not None
        if breach.process[0] not in told:
            told.add(breach.process[0])
            yield breach


def _judge_old_runners(attempts: Attempts, scene: Scene) -> Iterator[Breach]:
    """Beside a daemon, one that has nobody below it waits at its gate for another attempt. Of those
    that it had, the last one counts: one that is busy has another last one at the next look."""
    in_use = {(attempt.runner_pid, attempt.runner_start) for attempt in attempts.active}
    by_age = sorted(attempts.old_runners, key=lambda attempt: attempt.committed_at)
    last = {(attempt.runner_pid, attempt.runner_start): attempt for attempt in by_age}
    for process, attempt in last.items():
        waits = scene.has_daemon and process[0] not in scene.parents
        if process not in in_use and not waits:
            which = f"attempt {attempt.attempt} of job {attempt.job}"
            sentence = f"process {process[0]} is the runner of {which}, which has ended"
            yield about(attempt, sentence, "process_after_end", process)


def _judge_groups(attempts: Attempts, scene: Scene) -> Iterator[Breach]:
    in_use = {attempt.cgroup for attempt in attempts.active}
    for path, pids in scene.groups.items():
        if path in in_use:
            continue
        for pid in pids:
            start = scene.alive.get(pid)
            if start is None or (scene.has_daemon and path.endswith(f"/{pid}-{start}")):
                continue  # gone, or a runner that waits at its gate
            owner = attempts.by_group.get(path)
            which = (
                f"of attempt {owner.attempt} of job {owner.job}, which has ended"
                if owner is not None
                else "that no attempt has"
            )
            sentence = (
                f"process {pid}{_named(scene.names.get(pid))} lives in the control group {which}"
            )
            yield Breach(
                rule="process_after_end" if owner is not None else "process_without_attempt",
                sentence=sentence,
                job=None if owner is None else owner.job,
                attempt=None if owner is None else owner.attempt,
                process=(pid, start),
            )


def _judge_marks(attempts: Attempts, scene: Scene) -> Iterator[Breach]:
    """A mark is a hint: it counts where uid and start agree with the attempt that it names."""
    for one in scene.marked:
        process = (one.pid, one.start)
        attempt = attempts.by_mark.get((one.job, one.attempt, one.nonce))
        which = f"attempt {one.attempt} of job {one.job}"
        who = f"process {one.pid}{_named(one.name)}"
        if attempt is None:
            if one.is_of_this_daemon:
                sentence = f"{who} carries the mark of {which}, of which nothing is known here"
                yield Breach(
                    rule="process_without_attempt",
                    sentence=sentence,
                    job=one.job,
                    attempt=one.attempt,
                    process=process,
                )
        elif (
            attempt.ended_at is not None
            and one.uid == attempt.uid
            and one.start >= attempt.runner_start
        ):
            sentence = f"{who} of {which} is alive, and that has ended"
            yield about(attempt, sentence, "process_after_end", process)


def judge_daemon(scene: Scene) -> Iterator[Breach]:
    where = scene.state_dir
    if scene.lock_pid is None:
        if scene.answers:
            who = f"a daemon (pid {scene.answering_pid}) answers"
            sentence = f"{who} for {where}, and does not hold its lock"
            yield Breach(rule="daemon_without_lock", sentence=sentence)
    elif not scene.answers:
        who = f"a daemon (pid {scene.lock_pid})" if scene.lock_pid else "somebody"
        sentence = f"{who} holds the lock of {where}, and does not answer"
        yield Breach(rule="daemon_silent", sentence=sentence)
    elif scene.lock_pid and scene.answering_pid != scene.lock_pid:
        who = f"pid {scene.lock_pid} holds the lock of {where}"
        sentence = f"{who}, and pid {scene.answering_pid} answers for it"
        yield Breach(rule="two_daemons", sentence=sentence)


# ── what is no breach, and worth a word ──


def find_orphans(scene: Scene, rows: Sequence[Span], pruned: Sequence[Span]) -> Iterator[str]:
    """Folders that no job has. An output directory that was to stay is nobody's orphan."""
    known = sorted([*rows, *pruned])
    jobs = [job for job in scene.job_folders if not _covers(known, job)]
    if jobs:
        yield f"there is no job to what lies in jobs/{_listed(jobs)}"
    records = [record for record in scene.record_folders if not _covers(rows, record[0])]
    if records:
        names = ", ".join(f"{job}.{attempt}" for job, attempt in records[:SPANS_SHOWN])
        more = f" and {len(records) - SPANS_SHOWN} more" if len(records) > SPANS_SHOWN else ""
        yield f"there is no attempt to what lies in attempts/{names}{more}"


def _covers(spans: Sequence[Span], number: int) -> bool:
    place = bisect_right(spans, (number, float("inf")))
    return place > 0 and spans[place - 1][1] >= number


def _listed(numbers: Sequence[int]) -> str:
    shown = format_ranges(list(numbers)).split(",")
    more = f" and {len(shown) - SPANS_SHOWN} more" if len(shown) > SPANS_SHOWN else ""
    return ",".join(shown[:SPANS_SHOWN]) + more


def _named(name: str | None) -> str:
    return f" ({name})" if name else ""
