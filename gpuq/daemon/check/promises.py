"""What gpuq promises of its jobs, as rules: from the rows of a database to a sentence for each promise
that is broken. Pure; what the machine has to say to it is in `scene`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpuq.core.units import count, format_ranges
from gpuq.daemon.store.audit import AttemptRow, Dossier, JobRow, LeaseRow
from gpuq.daemon.store.audit_numbers import Misnumbered

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
        yield about(job, f"{which} of job {job.id} is missing", "attempt_missing")
    if beyond := sorted(set(numbers) - set(wanted)):
        which = _numbered("attempt", beyond)
        sentence = f"job {job.id} counts {job.attempt}, and there is {which} of it"
        yield about(job, sentence, "attempt_uncounted")


def _judge_state(job: JobRow, attempts: Sequence[AttemptRow]) -> Iterator[Breach]:
    """The last attempt of an active job lives, and no other of any job."""
    is_active = job.state in ("starting", "running")
    for attempt in attempts:
        is_last = attempt.attempt == job.attempt
        has_ended = attempt.ended_at is not None
        if is_active and is_last and has_ended:
            sentence = f"job {job.id} is {job.state}, and its attempt {attempt.attempt} has ended"
            yield about(attempt, sentence, "attempt_ended_too_early")
        if not has_ended and not (is_active and is_last):
            is_what = "has ended" if job.state == "ended" else f"is {job.state}"
            which = f"its attempt {attempt.attempt} has not ended"
            yield about(attempt, f"job {job.id} {is_what}, and {which}", "attempt_unended")


def _judge_retries(job: JobRow, attempts: Sequence[AttemptRow]) -> Iterator[Breach]:
    tried = len(attempts) - job.uncounted
    if tried > job.retries + 1:
        sentence = f"job {job.id} may be tried {job.retries + 1} times, and was {tried} times"
        yield about(job, sentence, "tried_too_often")


def _judge_end(dossier: Dossier) -> Iterator[Breach]:
    job = dossier.job
    ends, returns = (_times(dossier, kind) for kind in ("ended", "requeued"))
    if ends > returns + 1:
        yield about(job, f"job {job.id} ended {ends} times, by its events", "ended_twice")
    elif job.state == "ended" and not ends:
        yield about(job, f"job {job.id} has ended, and no event says so", "end_untold")
    elif job.state != "ended" and ends > returns:
        sentence = f"job {job.id} is {job.state}, and an event says that it ended"
        yield about(job, sentence, "ended_and_back")


def _times(dossier: Dossier, wanted: str) -> int:
    return sum(count for (kind, _), count in dossier.told.items() if kind == wanted)


def _judge_starts(dossier: Dossier, attempt: AttemptRow) -> Iterator[Breach]:
    """Nothing runs twice unless an event says why: an attempt is started once, but for those times
    that it came back without having run, and the next one comes after it has ended."""
    told, number = dossier.told, attempt.attempt
    which = f"attempt {number} of job {dossier.job.id}"
    starts = told["starting", number] - told["returned", number]
    if starts != 1:
        said = f"{told['starting', number]} starts and {told['returned', number]} returns"
        yield about(attempt, f"{which} has {said} among its events", "started_twice")
    is_followed = any(later.attempt == number + 1 for later in dossier.attempts)
    backs = ("backoff", "given_back", "requeued")
    has_ended = told["attempt_ended", number] or told["ended", number]
    if is_followed and not (has_ended and any(told[kind, number] for kind in backs)):
        sentence = f"job {dossier.job.id} was tried again after {which}, and no event says why"
        yield about(attempt, sentence, "retry_untold")


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
    for one, other in pairwise(rows):
        if other[0] <= one[1]:
            sentence = f"job {other[0]} is in two rows, of which one begins with job {one[0]}"
            yield Breach(rule="job_twice", sentence=sentence, span=other)
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


def judge_groups(strangers: Iterable[Span]) -> Iterator[Breach]:
    """`strangers`: jobs that say of what group they are, which does not know them."""
    for first, last in strangers:
        which = f"job {first} is" if first == last else f"jobs {first} to {last} are"
        sentence = f"{which} of a group that does not have them"
        yield Breach(rule="job_without_group", sentence=sentence, span=(first, last))


def judge_numbers(found: Iterable[Misnumbered]) -> Iterator[Breach]:
    """What is said to people of how many there are goes by these."""
    for one in found:
        sentence = f"{count(one.said, 'job')} said to be {one.what}, and there are {one.there}"
        yield Breach(rule="misnumbered", sentence=sentence, table=one.what)


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


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """Neighbours made one; in order, as they come."""
    joined: list[Span] = []
    for first, last in spans:
        if joined and first == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def about(
    what: JobRow | AttemptRow, sentence: str, rule: str, process: tuple[int, int] | None = None
) -> Breach:
    if isinstance(what, JobRow):
        return Breach(rule=rule, sentence=sentence, job=what.id)
    return Breach(rule=rule, sentence=sentence, job=what.job, attempt=what.attempt, process=process)


def _numbered(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' if len(numbers) > 1 else ''} {format_ranges(list(numbers))}"
