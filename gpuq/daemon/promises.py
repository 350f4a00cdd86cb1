"""What gpuq promises of its jobs, as rules: from rows, and from what was seen of the machine, to a
sentence for each promise that is broken. Pure: `evidence` looks, `check` asks.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gpuq.core.units import format_ranges
from gpuq.daemon.store.audit import AttemptRow, Dossier, JobRow, LeaseRow

LONGEST_DELAY_S = 366 * 86400.0  # the longest backoff that is taken is a year
OVERDUE_S = 60.0
SPANS_SHOWN = 20

Span = tuple[int, int]  # first and last


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A promise that is broken, and by what. Two looks that find the same have found one breach."""

    rule: str
    sentence: str
    job: int | None = None
    attempt: int | None = None
    gpu: str | None = None
    process: tuple[int, int] | None = None  # (pid, start)
    span: Span | None = None
    table: str | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        return (
            *(self.rule, self.job, self.attempt, self.gpu),
            *(self.process, self.span, self.table),
        )


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

    boot_id: str
    boottime: float
    lock_pid: int | None = None  # who holds the lock of the state directory; 0: does not say
    answers: bool = False  # somebody answers for this state directory
    answering_pid: int | None = None
    alive: Mapping[int, int] = field(default_factory=dict)  # pid → start
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


# ── what the rows alone say ──


def judge_job(dossier: Dossier, events_from: float) -> Iterator[Breach]:
    """`events_from`: what happened later than that is told by events that are still there."""
    job, attempts = dossier.job, dossier.attempts
    yield from _judge_numbers(job, attempts)
    yield from _judge_state(job, attempts)
    if job.submitted_at > events_from:
        yield from _judge_retries(job, attempts)
        yield from _judge_end(dossier)
    for attempt in attempts:
        if attempt.committed_at > events_from:
            yield from _judge_starts(dossier, attempt)


def _judge_numbers(job: JobRow, attempts: Sequence[AttemptRow]) -> Iterator[Breach]:
    numbers = [attempt.attempt for attempt in attempts]
    wanted = list(range(1, job.attempt + 1))
    if missing := sorted(set(wanted) - set(numbers)):
        which = _numbered("attempt", missing)
        yield _about(job, f"{which} of job {job.id} is missing", "attempt_missing")
    if beyond := sorted(set(numbers) - set(wanted)):
        which = _numbered("attempt", beyond)
        sentence = f"job {job.id} counts {job.attempt}, and there is {which} of it"
        yield _about(job, sentence, "attempt_uncounted")


def _judge_state(job: JobRow, attempts: Sequence[AttemptRow]) -> Iterator[Breach]:
    """The last attempt of an active job lives, and no other of any job."""
    is_active = job.state in ("starting", "running")
    for attempt in attempts:
        is_last = attempt.attempt == job.attempt
        has_ended = attempt.ended_at is not None
        if is_active and is_last and has_ended:
            sentence = f"job {job.id} is {job.state}, and its attempt {attempt.attempt} has ended"
            yield _about(attempt, sentence, "attempt_ended_too_early")
        if not has_ended and not (is_active and is_last):
            is_what = "has ended" if job.state == "ended" else f"is {job.state}"
            which = f"its attempt {attempt.attempt} has not ended"
            yield _about(attempt, f"job {job.id} {is_what}, and {which}", "attempt_unended")


def _judge_retries(job: JobRow, attempts: Sequence[AttemptRow]) -> Iterator[Breach]:
    if len(attempts) > job.retries + 1:
        sentence = (
            f"job {job.id} may be tried {job.retries + 1} times, and was {len(attempts)} times"
        )
        yield _about(job, sentence, "tried_too_often")


def _judge_end(dossier: Dossier) -> Iterator[Breach]:
    job = dossier.job
    ends = sum(count for (kind, _), count in dossier.told.items() if kind == "ended")
    if ends > 1:
        yield _about(job, f"job {job.id} ended {ends} times, by its events", "ended_twice")
    elif job.state == "ended" and not ends:
        yield _about(job, f"job {job.id} has ended, and no event says so", "end_untold")
    elif job.state != "ended" and ends:
        sentence = f"job {job.id} is {job.state}, and an event says that it ended"
        yield _about(job, sentence, "ended_and_back")


def _judge_starts(dossier: Dossier, attempt: AttemptRow) -> Iterator[Breach]:
    """Nothing runs twice unless an event says why: an attempt is started once, but for those times
    that it came back without having run, and the next one comes after it has ended."""
    told, number = dossier.told, attempt.attempt
    which = f"attempt {number} of job {dossier.job.id}"
    starts = told["starting", number] - told["returned", number]
    if starts != 1:
        said = f"{told['starting', number]} starts and {told['returned', number]} returns"
        yield _about(attempt, f"{which} has {said} among its events", "started_twice")
    is_followed = any(later.attempt == number + 1 for later in dossier.attempts)
    if is_followed and not (told["attempt_ended", number] and told["backoff", number]):
        sentence = f"job {dossier.job.id} was tried again after {which}, and no event says why"
        yield _about(attempt, sentence, "retry_untold")


def judge_ids(
    rows: Sequence[Span], pruned: Sequence[Span], submitted: Sequence[Span], last_given: int
) -> Iterator[Breach]:
    """Every id that was given out has its job, or was pruned. `rows` and `pruned` are in order."""
    highest = max((span[1] for span in (*rows, *pruned, *submitted)), default=0)
    if highest > last_given:
        sentence = f"job {highest} exists, and ids are given out from {last_given + 1} on: again"
        yield Breach(rule="ids_again", sentence=sentence)
    for first, last in _gaps(sorted([*rows, *pruned]), max(highest, last_given)):
        if last > first:
            sentence = f"jobs {first} to {last} were accepted and are not there any more"
        else:
            sentence = f"job {first} was accepted and is not there any more"
        yield Breach(rule="job_lost", sentence=sentence, span=(first, last))
    for one, other in _overlaps(rows, pruned):
        sentence = f"job {max(one[0], other[0])} was forgotten, and is there"
        yield Breach(rule="job_pruned_and_there", sentence=sentence, span=one)


def _gaps(spans: Sequence[Span], up_to: int) -> Iterator[Span]:
    expected = 1
    for first, last in spans:
        if first > expected:
            yield expected, first - 1
        expected = max(expected, last + 1)
    if expected <= up_to:
        yield expected, up_to


def _overlaps(ones: Sequence[Span], others: Sequence[Span]) -> Iterator[tuple[Span, Span]]:
    """Of two sorted lists of spans."""
    place = 0
    for one in ones:
        while place < len(others) and others[place][1] < one[0]:
            place += 1
        if place < len(others) and others[place][0] <= one[1]:
            yield one, others[place]


def judge_leases(leases: Sequence[LeaseRow], active: Iterable[AttemptRow]) -> Iterator[Breach]:
    """`active`: the attempts that have not ended."""
    by_gpu: dict[str, list[LeaseRow]] = {}
    for lease in leases:
        by_gpu.setdefault(lease.gpu, []).append(lease)
        yield from _judge_lease(lease)
    for gpu, held in by_gpu.items():
        if len(held) > 1 and any(lease.exclusive for lease in held):
            jobs = ", ".join(f"job {lease.job}" for lease in held)
            sentence = f"GPU {gpu} was given twice: {jobs}, not all of them to share it"
            yield Breach(rule="gpu_given_twice", sentence=sentence, gpu=gpu)
    held_by = {(lease.job, lease.attempt, lease.gpu) for lease in leases if lease.state == "active"}
    for attempt in active:
        for gpu in attempt.gpus:
            if (attempt.job, attempt.attempt, gpu) not in held_by:
                sentence = f"job {attempt.job} has GPU {gpu} and holds no lease of it"
                yield Breach(
                    rule="gpu_without_lease",
                    sentence=sentence,
                    job=attempt.job,
                    attempt=attempt.attempt,
                    gpu=gpu,
                )


def _judge_lease(lease: LeaseRow) -> Iterator[Breach]:
    def broken(why: str) -> Breach:
        whose = f"job {lease.job}, attempt {lease.attempt}"
        return Breach(
            rule="lease_without_attempt",
            sentence=f"GPU {lease.gpu} is leased to {whose}, {why}",
            job=lease.job,
            attempt=lease.attempt,
            gpu=lease.gpu,
        )

    if lease.attempt_ended is None:
        yield broken("which does not exist")
    elif lease.state != "active":
        if not lease.attempt_ended:
            yield broken(f"as {lease.state}, and that has not ended")
    elif lease.job_state not in ("starting", "running") or lease.attempt_ended:
        yield broken("which has ended")
    elif lease.attempt != lease.job_attempt:
        yield broken(f"and the job is at attempt {lease.job_attempt}")


def judge_events(runs: Sequence[Span], pruned_to: int, last_given: int) -> Iterator[Breach]:
    """After those that were removed for their age, no event is missing."""
    if runs and runs[0][0] <= pruned_to:
        sentence = f"event {runs[0][0]} is there, and was removed with all up to {pruned_to}"
        yield Breach(rule="event_pruned_and_there", sentence=sentence)
    spans = [(1, pruned_to), *runs] if pruned_to else list(runs)
    for first, last in _gaps(spans, last_given):
        what = f"events {first} to {last} are" if last > first else f"event {first} is"
        yield Breach(rule="event_missing", sentence=f"{what} missing", span=(first, last))


# ── what the machine says to it ──


def judge_delay(job: JobRow, scene: Scene) -> Iterator[Breach]:
    if job.delayed_until_boottime is None:
        return
    left_s = job.delayed_until_boottime - scene.boottime
    is_of_this_boot = job.delayed_boot == scene.boot_id
    if scene.has_daemon and not is_of_this_boot:
        sentence = f"job {job.id} waits for a moment of an earlier boot, and nobody has noticed"
        yield _about(job, sentence, "delay_of_earlier_boot")
    elif is_of_this_boot and left_s > LONGEST_DELAY_S:
        days = left_s / 86400
        sentence = f"job {job.id} waits {days:.0f} days for its next attempt: no backoff is so long"
        yield _about(job, sentence, "delay_too_long")
    elif scene.has_daemon and left_s < -OVERDUE_S:
        sentence = f"job {job.id} was to be tried again {-left_s:.0f} s ago, and nobody has noticed"
        yield _about(job, sentence, "delay_overdue")


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
        yield _about(attempt, sentence, "attempt_without_runner")


def judge_processes(attempts: "Attempts", scene: Scene) -> Iterator[Breach]:
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


def _judge_old_runners(attempts: "Attempts", scene: Scene) -> Iterator[Breach]:
    in_use = {(attempt.runner_pid, attempt.runner_start) for attempt in attempts.active}
    for attempt in attempts.old_runners:
        process = (attempt.runner_pid, attempt.runner_start)
        if process not in in_use:
            which = f"attempt {attempt.attempt} of job {attempt.job}"
            sentence = f"process {process[0]} is the runner of {which}, which has ended"
            yield _about(attempt, sentence, "process_after_end", process)


def _judge_groups(attempts: "Attempts", scene: Scene) -> Iterator[Breach]:
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


def _judge_marks(attempts: "Attempts", scene: Scene) -> Iterator[Breach]:
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
            yield _about(attempt, sentence, "process_after_end", process)


def judge_daemon(scene: Scene, state_dir: str) -> Iterator[Breach]:
    if scene.lock_pid is None:
        if scene.answers:
            who = f"a daemon (pid {scene.answering_pid}) answers"
            sentence = f"{who} for {state_dir}, and does not hold its lock"
            yield Breach(rule="daemon_without_lock", sentence=sentence)
    elif not scene.answers:
        who = f"a daemon (pid {scene.lock_pid})" if scene.lock_pid else "somebody"
        yield Breach(
            rule="daemon_silent",
            sentence=f"{who} holds the lock of {state_dir}, and does not answer",
        )
    elif scene.lock_pid and scene.answering_pid != scene.lock_pid:
        sentence = (
            f"pid {scene.lock_pid} holds the lock of {state_dir}, and pid {scene.answering_pid} "
            "answers for it"
        )
        yield Breach(rule="two_daemons", sentence=sentence)


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


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """Neighbours made one; in order, as they come."""
    joined: list[Span] = []
    for first, last in spans:
        if joined and first == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _covers(spans: Sequence[Span], number: int) -> bool:
    place = bisect_right(spans, (number, float("inf")))
    return place > 0 and spans[place - 1][1] >= number


def _listed(numbers: Sequence[int]) -> str:
    shown = format_ranges(list(numbers)).split(",")
    more = f" and {len(shown) - SPANS_SHOWN} more" if len(shown) > SPANS_SHOWN else ""
    return ",".join(shown[:SPANS_SHOWN]) + more


def _numbered(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' if len(numbers) > 1 else ''} {format_ranges(list(numbers))}"


def _named(name: str | None) -> str:
    return f" ({name})" if name else ""


def _about(
    what: JobRow | AttemptRow, sentence: str, rule: str, process: tuple[int, int] | None = None
) -> Breach:
    if isinstance(what, JobRow):
        return Breach(rule=rule, sentence=sentence, job=what.id)
    return Breach(rule=rule, sentence=sentence, job=what.job, attempt=what.attempt, process=process)
