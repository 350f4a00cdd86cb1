"""A machine in a few lines, for the core to live in.

`Box` reads its GPUs as the watch does, shows its queue as the store does, and carries out what is
decided as the loop does. What may start, and what is to end, it judges by itself, so that the core
is held against another opinion and not against its own.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from math import inf

from gpuq.core.decisions import (
    Cancel,
    Decision,
    MarkDirty,
    Pause,
    Plan,
    Release,
    Resume,
    SetAside,
    Signal,
    Start,
    Undelay,
)
from gpuq.core.ends.retry import Again, Ending, RetryRule, decide
from gpuq.core.gpus.condition import count_calm
from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.model import (
    ActiveJob,
    Closing,
    DelayedJob,
    Drain,
    EndCause,
    Exit,
    JobState,
    Lease,
    LeaseState,
    Outcome,
    Request,
    Snapshot,
    WaitingJob,
)
from gpuq.core.policy import Policy
from gpuq.core.scheduling.scheduler import plan
from gpuq.core.states import conclude, gpu_memory_ran_out
from gpuq.core.units import parse_bytes
from tests.builders import GIB, carried_out, gpu, lease, ours, uuid, window

POLICY = Policy(cpu_slots=4, max_bypass=3, max_jobs_per_gpu=3, unkillable_s=20.0)
PER_CLASS = 3
GRACE_S = 3.0
TERM = 15
EPSILON_S = 1e-6
DRAIN = Drain(actor="bob", reason="new driver")
RETRIED = (Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.LOST)


def in_line(job: WaitingJob) -> tuple[int, int]:
    return -job.priority, job.id


@dataclass
class Card:
    """A GPU as it truly is; what is known of it is in the last reading."""

    mem: str
    model: str
    strangers: tuple[GpuProcess, ...] = ()
    lingering: int = 0  # bytes of ended jobs that the driver has not given back
    calm: int | None = None  # readings in a row without a stranger, None where that is no matter


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a job asked for its running and its end."""

    time_limit_s: float | None = None
    heartbeat_s: float | None = None
    retries: int = 0


@dataclass
class Body:
    """A job that runs as it truly is; what is known of it is in its ActiveJob."""

    uses: int = 0  # bytes on each of its GPUs
    ran_s: float = 0.0  # awake and not standing still
    silent_s: float = 0.0


class Box:
    def __init__(self, cards: list[tuple[str, str]], simulated: bool) -> None:
        self.now = 1000.0
        self.boottime = 5000.0
        self.cards = [Card(mem, model) for mem, model in cards]
        self.simulated = simulated
        self.gpus: tuple[Gpu, ...] | None = None
        self.read_at: float | None = None
        self.trouble: str | None = None
        self.is_drained = False
        self.closing: Closing | None = None
        self.runners_are_slow = False
        self.submitted = 0
        self.classes: dict[Request, int] = {}
        self.terms: dict[int, Terms] = {}
        self.queue: dict[int, WaitingJob] = {}
        self.delayed: dict[int, float] = {}  # until when, for those of the queue that wait again
        self.active: dict[int, ActiveJob] = {}
        self.bodies: dict[int, Body] = {}
        self.begun: dict[int, WaitingJob] = {}  # as it stood in the queue
        self.attempts: Counter[int] = Counter()  # that may have run
        self.ended: dict[int, Outcome] = {}
        self.leases: list[Lease] = []
        self.overtaken: Counter[int] = Counter()
        self.plan = Plan()

    # ── news ──

    def submit(self, wish: Request, priority: int, terms: Terms) -> int:
        self.submitted += 1
        self.terms[self.submitted] = terms
        self.queue[self.submitted] = WaitingJob(
            id=self.submitted, class_id=self.class_of(wish), request=wish, priority=priority
        )
        return self.submitted

    def class_of(self, wish: Request) -> int:
        return self.classes.setdefault(wish, len(self.classes) + 1)

    def advance(self, seconds: float, *, asleep_s: float = 0.0) -> None:
        """Time passes; while the machine is suspended only one of its clocks goes on."""
        self.now += seconds
        self.boottime += seconds + asleep_s
        for job in self.active.values():
            if self.counts(job):
                self.bodies[job.id].ran_s += seconds
                self.bodies[job.id].silent_s += seconds

    def counts(self, job: ActiveJob) -> bool:
        is_there = job.state is JobState.RUNNING and job.main_ended_at is None
        return is_there and job.paused_since is None

    def begin(self, id: int) -> None:
        """Its process is there."""
        self.active[id] = replace(self.active[id], state=JobState.RUNNING, running_since=self.now)

    def report(self, id: int) -> None:
        self.active[id] = replace(self.active[id], beat_at=self.now)
        self.bodies[id].silent_s = 0.0

    def end(self, id: int, exit: Exit, luck: float = 0.5) -> None:
        """All of it is gone: it has ended for good, or waits for its next attempt."""
        job, body = self.active.pop(id), self.bodies.pop(id)
        had = tuple(one for one in self.gpus or () if id in {h.job for h in self.on(one)})
        self.let_go(id, body.uses)
        outcome = conclude(exit, ending=job.ending)
        rule = RetryRule(retries=self.terms[id].retries)
        ending = Ending(
            outcome=outcome,
            attempt=job.attempt,
            request=job.request,
            exit_code=exit.exit_code,
            wished=job.stop is not None,
            gpu_exhausted=gpu_memory_ran_out(exit) is not None,
            gpus=had,
        )
        verdict = decide(rule, ending, self.gpus or (), POLICY, luck)
        self.check_verdict(job, outcome, exit, again=isinstance(verdict, Again))
        if isinstance(verdict, Again):
            wish = verdict.request or job.request
            self.queue[id] = replace(
                self.begun[id],
                attempt=job.attempt + 1,
                request=wish,
                class_id=self.class_of(wish),
            )
            self.delayed[id] = self.boottime + verdict.delay_s
        else:
            self.ended[id] = outcome

    def let_go(self, id: int, used: int) -> None:
        for held in self.held_by(id):
            self.leases.remove(held)
            if not self.simulated:
                self.cards[int(held.gpu[4:])].lingering += used
                cooling = replace(held, state=LeaseState.COOLING, cooling_since=self.now)
                self.leases.append(cooling)

    def forget(self, id: int) -> None:
        """Its runner died before it began: the attempt never was, and its number is given again."""
        del self.active[id], self.bodies[id]
        self.attempts[id] -= 1
        self.leases = [held for held in self.leases if held.job != id]
        self.queue[id] = self.begun[id]

    def take_reading(self) -> None:
        before = {one.uuid: one for one in self.gpus or ()}
        gpus = []
        for index, card in enumerate(self.cards):
            reading = self.read(index, card)
            leases = self.on(reading)
            calm = count_calm(before.get(reading.uuid), reading, leases, POLICY)
            gpus.append(replace(reading, calm_samples=calm))
            self.count_calm(card, reading, is_new=reading.uuid not in before)
        self.gpus, self.read_at = tuple(gpus), self.now

    def read(self, index: int, card: Card) -> Gpu:
        holders = [held.job for held in self.leases if held.gpu == uuid(index)]
        users = [(job, self.bodies[job].uses) for job in holders if job in self.bodies]
        own = [ours(job, f"{uses // GIB}G") for job, uses in users if uses]
        return gpu(
            index,
            card.mem,
            model=card.model,
            simulated=self.simulated,
            processes=[*card.strangers, *own],
            used=f"{card.lingering // GIB}G",
        )

    def count_calm(self, card: Card, reading: Gpu, *, is_new: bool) -> None:
        if self.has_strangers(reading):
            card.calm = 0
        elif is_new:
            card.calm = None if self.simulated or self.on(reading) else 1
        elif card.calm is not None:
            card.calm += 1

    # ── the world as it is shown ──

    def look(self) -> Snapshot:
        return Snapshot(
            now=self.now,
            boottime=self.boottime,
            gpus=self.gpus,
            leases=tuple(self.leases),
            waiting=tuple(window(self.shown(), PER_CLASS)),
            active=tuple(self.active.values()),
            delayed=self.waiting_again(),
            drain=DRAIN if self.is_drained else None,
            closing=self.closing,
            policy=POLICY,
            jobs_per_class=PER_CLASS,
            gpus_read_at=self.read_at,
            gpu_trouble=self.trouble,
        )

    def shown(self) -> list[WaitingJob]:
        return [job for job in self.queue.values() if job.stop or job.id not in self.delayed]

    def waiting_again(self) -> tuple[DelayedJob, ...]:
        waits = [(until, id) for id, until in self.delayed.items() if not self.queue[id].stop]
        return tuple(DelayedJob(id=id, until=until) for until, id in sorted(waits))

    def on(self, reading: Gpu) -> list[Lease]:
        return [held for held in self.leases if held.gpu == reading.uuid]

    def held_by(self, job: int) -> list[Lease]:
        active = (held for held in self.leases if held.state is LeaseState.ACTIVE)
        return [held for held in active if held.job == job]

    def in_line(self) -> list[WaitingJob]:
        return sorted((job for job in self.shown() if job.stop is None), key=in_line)

    def heads(self) -> dict[int, WaitingJob]:
        return {job.class_id: job for job in reversed(self.in_line())}

    # ── another opinion: what may start ──

    def has_strangers(self, reading: Gpu) -> bool:
        holders = {held.job for held in self.on(reading)}
        if any(one.job is None for one in reading.processes or ()):
            return True
        if not self.simulated and any(one.job not in holders for one in reading.processes or ()):
            return True
        return not holders and not reading.processes and reading.memory_used_bytes > 0  # type: ignore[operator]

    def outside_bytes(self, reading: Gpu) -> int:
        holders = {held.job for held in self.on(reading)}
        own = [
            one.memory_bytes or 0
            for one in reading.processes or ()
            if one.job in holders or (one.job is not None and self.simulated)
        ]
        return (reading.memory_used_bytes or 0) - sum(own)

    def is_free_for(self, wish: Request, reading: Gpu) -> bool:
        held = self.on(reading)
        if not self.is_fit_for(wish, reading):
            return False
        if wish.exclusive:
            calm = self.cards[reading.index].calm
            return not held and not self.has_strangers(reading) and (calm is None or calm >= 3)
        if any(one.exclusive for one in held) or len(held) >= POLICY.max_jobs_per_gpu:
            return False
        own = sum(max(one.memory_bytes or 0, self.measured(one, reading)) for one in held)
        taken = own + self.outside_bytes(reading) + POLICY.headroom_bytes
        return taken + (wish.gpu_mem_bytes or 0) <= (reading.memory_total_bytes or 0)

    def measured(self, held: Lease, reading: Gpu) -> int:
        return sum(one.memory_bytes or 0 for one in reading.processes or () if one.job == held.job)

    def is_fit_for(self, wish: Request, reading: Gpu) -> bool:
        enough = (wish.gpu_mem_bytes or 0) <= (reading.memory_total_bytes or 0)
        return enough and (wish.gpu_model is None or wish.gpu_model == reading.model)

    def is_of_use_to(self, wish: Request, reading: Gpu) -> bool:
        """Once our jobs have ended; a stranger on it is nobody whom patience would move."""
        foreign = [one for one in reading.processes or () if one.job is None]
        if wish.exclusive:
            kept = bool(foreign) or (not self.on(reading) and self.has_strangers(reading))
        else:
            left = (reading.memory_total_bytes or 0) - POLICY.headroom_bytes
            taken = sum(one.memory_bytes or 0 for one in foreign)
            kept = taken + (wish.gpu_mem_bytes or 0) > left
        return self.is_fit_for(wish, reading) and not kept

    def fits_now(self, wish: Request) -> bool:
        if not wish.gpus:
            return wish.cpus <= POLICY.cpu_slots - self.cpus_taken()
        if self.gpus is None or self.trouble:
            return False
        return sum(self.is_free_for(wish, one) for one in self.gpus) >= wish.gpus

    def cpus_taken(self) -> int:
        return sum(job.request.cpus for job in self.active.values() if not job.request.gpus)

    def waits_for_us(self, wish: Request) -> bool:
        """Would it start if our jobs were gone?"""
        if not wish.gpus:
            return wish.cpus <= POLICY.cpu_slots
        if self.gpus is None or self.trouble:
            return False
        return sum(self.is_free_without_us(wish, one) for one in self.gpus) >= wish.gpus

    def is_free_without_us(self, wish: Request, reading: Gpu) -> bool:
        held = self.on(reading)
        if not held or not self.is_fit_for(wish, reading):
            return self.is_free_for(wish, reading)
        if any(one.exclusive or not self.measured(one, reading) for one in held):
            left = sum(one.memory_bytes or 0 for one in reading.foreign_processes)
        else:
            left = self.outside_bytes(reading)
        if wish.exclusive:
            return not left
        taken = left + POLICY.headroom_bytes + (wish.gpu_mem_bytes or 0)
        return taken <= (reading.memory_total_bytes or 0)

    # ── another opinion: what is to end ──

    def causes(self, job: ActiveJob, slack_s: float = 0.0) -> set[EndCause]:
        """What it may be ended for now; with a slack, what it must be ended for."""
        if job.ending is not None:
            return {job.ending}
        if job.stop is not None:
            return {EndCause.ASKED}
        found = set() if self.closing is None else {self.closing.cause}
        if not self.counts(job):
            return found
        body, terms = self.bodies[job.id], self.terms[job.id]
        if terms.time_limit_s is not None and body.ran_s >= terms.time_limit_s + slack_s:
            found.add(EndCause.TIME_LIMIT)
        if terms.heartbeat_s is not None:
            longest_s = terms.heartbeat_s + min(1.0, terms.heartbeat_s / 4)
            if body.silent_s >= longest_s + slack_s:
                found.add(EndCause.HEARTBEAT)
        return found

    # ── the loop ──

    def live(self) -> None:
        """Turns until there is nothing to do, as the loop does, and holds it to its promises."""
        for _ in range(200):
            snapshot = self.look()
            self.plan = plan(snapshot)
            assert plan(snapshot) == self.plan, "the same world gave another plan"
            if not self.plan.decisions:
                break
            self.carry_out_plan()
            self.get_on()
        else:
            raise AssertionError("it never came to rest")
        self.check_rest()

    def get_on(self) -> None:
        for job in list(self.active.values()):
            if job.state is JobState.STARTING and not self.runners_are_slow:
                self.begin(job.id)

    def carry_out_plan(self) -> None:
        starts = [one for one in self.plan.decisions if isinstance(one, Start)]
        others = self.plan.decisions[: len(self.plan.decisions) - len(starts)]
        for decision in others:
            self.carry_out(decision)
        waiting = {job.id for job in self.heads().values() if self.waits_for_us(job.request)}
        for start in starts:
            self.start(start, waiting)
            self.check_nothing_is_given_twice()

    def carry_out(self, decision: Decision) -> None:
        match decision:
            case Cancel():
                assert self.queue.pop(decision.job).stop is not None
                self.delayed.pop(decision.job, None)
                self.ended[decision.job] = Outcome.CANCELLED
            case Undelay():
                assert self.boottime >= self.delayed.pop(decision.job), "its wait is not over"
            case Signal() | Pause() | Resume() | SetAside():
                self.act_on(decision)
            case Release():
                self.release(decision)
            case MarkDirty():
                self.mark_dirty(decision)
            case Start():
                raise AssertionError("starts come last")

    def start(self, decision: Start, waiting: set[int]) -> None:
        assert decision.job in self.queue, "a job was started that is gone"
        job = self.queue[decision.job]
        gpus = [one for one in self.gpus or () if one.uuid in decision.gpus]
        self.check_start(decision, job)
        assert self.closing is None, "a job was started on what goes away"
        assert len(gpus) == len(set(decision.gpus)) == job.request.gpus
        assert not gpus or not self.trouble, "a GPU was given away blindly"
        assert all(self.is_free_for(job.request, one) for one in gpus), "a GPU was not free"
        self.check_order(job)
        self.count_overtaken(job, gpus, waiting)
        self.begun[job.id] = self.queue.pop(job.id)
        for other in decision.passed:
            self.queue[other] = replace(self.queue[other], passes=self.queue[other].passes + 1)
        self.active[job.id] = ActiveJob(
            id=job.id,
            attempt=job.attempt,
            state=JobState.STARTING,
            request=job.request,
            grace_s=GRACE_S,
            time_limit_s=self.terms[job.id].time_limit_s,
            heartbeat_s=self.terms[job.id].heartbeat_s,
        )
        self.bodies[job.id] = Body()
        self.leases += [self.lease(job, one) for one in gpus]

    def lease(self, job: WaitingJob, reading: Gpu) -> Lease:
        taken = {held.slot for held in self.on(reading)}
        slot = min(set(range(len(taken) + 1)) - taken)
        whole = lease(reading.index, job.id, slot=slot, exclusive=job.request.exclusive)
        return replace(whole, memory_bytes=job.request.gpu_mem_bytes, attempt=job.attempt)

    def act_on(self, decision: Signal | Pause | Resume | SetAside) -> None:
        job = self.active[decision.job]
        assert decision.attempt == job.attempt
        match decision:
            case Signal(ends=None):
                assert job.state is JobState.RUNNING, "nobody was there to hear it"
                assert decision.signal == job.signal_wishes[0]
            case Signal():
                self.check_step(job, decision)
            case Pause() | Resume():
                assert isinstance(decision, Pause) == job.pause_wished
                assert job.state is JobState.RUNNING
                assert not self.causes(job, EPSILON_S), "what is to end does not stand still"
            case SetAside():
                self.check_set_aside(job)
        self.active[job.id] = carried_out(job, decision, self.now)
        if isinstance(decision, Resume):
            self.bodies[job.id].silent_s = 0.0

    def release(self, decision: Release) -> None:
        held = self.find(decision)
        assert held.cooling_since is not None
        assert self.read_at is not None
        assert self.read_at > held.cooling_since, "nobody has looked since"
        self.leases.remove(held)
        reading = next(one for one in self.gpus or () if one.uuid == held.gpu)
        seen = sum(process.memory_bytes or 0 for process in reading.processes or ())
        assert reading.memory_used_bytes is not None
        is_shared = any(one.state is LeaseState.ACTIVE for one in self.on(reading))
        assert is_shared or reading.memory_used_bytes - seen <= POLICY.idle_memory_bytes, "warm"

    def mark_dirty(self, decision: MarkDirty) -> None:
        held = self.find(decision)
        assert held.state is LeaseState.COOLING
        assert held.cooling_since is not None
        assert self.now >= held.cooling_since + POLICY.cooling_s, "it had time left"
        assert decision.dirt
        self.leases.remove(held)
        self.leases.append(replace(held, state=LeaseState.DIRTY, dirt=decision.dirt))

    def find(self, decision: Release | MarkDirty) -> Lease:
        place = decision.gpu, decision.slot
        (held,) = [one for one in self.leases if (one.gpu, one.slot) == place]
        assert held.state is not LeaseState.ACTIVE
        return held

    # ── promises about starts ──

    def check_start(self, decision: Start, job: WaitingJob) -> None:
        assert not self.is_drained, "a job was started in a drained queue"
        assert job.stop is None, "a job was started that somebody wanted gone"
        assert job.id not in self.delayed, "a job was started whose wait was not over"
        assert job.id not in self.ended, "a job was started that had ended"
        assert job is self.heads()[job.class_id], "a job overtook one that asks the same"
        self.attempts[job.id] += 1
        assert decision.attempt == job.attempt == self.attempts[job.id], "an attempt was skipped"
        assert job.attempt <= self.terms[job.id].retries + 1, "more attempts than were asked for"

    def check_order(self, job: WaitingJob) -> None:
        """Who came before it could not have started either, seen this turn or not."""
        for other in self.heads().values():
            if in_line(other) < in_line(job) and self.fits_now(other.request):
                reason = self.plan.reasons.get(other.id, "nothing")
                assert "overtaken" in reason or "becoming free" in reason, (
                    f"{job.id} starts before {other.id}: {reason}"
                )

    def count_overtaken(self, job: WaitingJob, gpus: list[Gpu], waiting: set[int]) -> None:
        for other in self.heads().values():
            if in_line(other) < in_line(job) and other.id in waiting:
                wanted = [one for one in self.gpus or () if self.is_of_use_to(other.request, one)]
                both_cpu = not gpus and not other.request.gpus
                if both_cpu or any(one in wanted for one in gpus if other.request.gpus):
                    self.overtaken[other.id] += 1
        worst = max(self.overtaken.values(), default=0)
        assert worst <= POLICY.max_bypass, f"one was overtaken {worst} times"

    def check_nothing_is_given_twice(self) -> None:
        assert self.cpus_taken() <= POLICY.cpu_slots
        for index, card in enumerate(self.cards):
            leases = [held for held in self.leases if held.gpu == uuid(index)]
            assert len(leases) == 1 or not any(held.exclusive for held in leases)
            assert len(leases) <= POLICY.max_jobs_per_gpu
            assert len({held.slot for held in leases}) == len(leases)
            declared = sum(held.memory_bytes or 0 for held in leases if not held.exclusive)
            assert not declared or declared + POLICY.headroom_bytes <= parse_bytes(card.mem)

    # ── promises about ends ──

    def check_step(self, job: ActiveJob, step: Signal) -> None:
        may = self.causes(job, -EPSILON_S)
        assert step.ends in may, f"ended for {step.ends}, and there was {may or 'no cause'}"
        grace_s = job.grace_s if job.stop is None else job.stop.grace_s
        told_at = job.term_sent_at
        if step.signal == TERM:
            assert grace_s > 0
            assert job.kill_sent_at is None
            assert told_at is None or told_at < (job.running_since or 0.0), "told twice"
        elif job.kill_sent_at is None:
            assert not grace_s or told_at is not None, "killed without a word"
            over_at = self.grace_over_at(told_at or 0.0, grace_s)
            assert not grace_s or self.now >= over_at - EPSILON_S
        elif job.last_kill_at is not None:
            pause_s = 10.0 if job.is_unkillable else 1.0
            assert self.now - job.last_kill_at >= pause_s - EPSILON_S

    def grace_over_at(self, told_at: float, grace_s: float) -> float:
        latest = inf if self.closing is None else self.closing.kill_at
        return min(told_at + grace_s, latest)

    def check_set_aside(self, job: ActiveJob) -> None:
        assert not job.is_unkillable, "said twice"
        since = [at for at in self.kills(job) if self.now - at >= POLICY.unkillable_s - EPSILON_S]
        assert since, "nobody has killed it for so long"

    def kills(self, job: ActiveJob) -> list[float]:
        """Since when it is killed, by us, or by its runner that ends what the main process left."""
        by_runner = None if job.main_ended_at is None else job.main_ended_at + job.grace_s
        return [at for at in (job.kill_sent_at, by_runner) if at is not None]

    def check_verdict(self, job: ActiveJob, outcome: Outcome, exit: Exit, *, again: bool) -> None:
        """Whether it is tried again; a request that cannot grow any more may be refused that."""
        left = self.terms[job.id].retries + 1 - job.attempt
        by_itself = job.ending in (None, EndCause.SHUTDOWN)  # or with the machine
        may = left > 0 and job.stop is None and by_itself and outcome in RETRIED
        assert may or not again, f"job {job.id} is tried again: {outcome}, {left} left"
        assert again or not may or exit.told_out_of_memory, f"job {job.id} was to be tried again"

    # ── promises about rest ──

    def check_rest(self) -> None:
        """Nothing more is to be done now: what waits, waits for a reason, and the reason is true."""
        assert self.plan.wake_at is None or self.plan.wake_at > self.now
        assert self.plan.undelay_at == min((d.until for d in self.waiting_again()), default=None)
        assert self.plan.undelay_at is None or self.plan.undelay_at > self.boottime
        assert not any(job.stop for job in self.queue.values())
        everywhere = [*self.queue, *self.active, *self.ended]
        assert sorted(everywhere) == list(range(1, self.submitted + 1)), "a job is lost, or twice"
        shown = [job for job in self.look().waiting if job.stop is None]
        for job in shown:
            assert self.plan.reasons.get(job.id), f"job {job.id} waits for no reason"
        for job in self.heads().values():
            self.check_reason(job, self.plan.reasons[job.id])
        for running in self.active.values():
            self.check_running(running)
        for held in self.leases:
            self.check_lease(held)

    def check_reason(self, job: WaitingJob, reason: str) -> None:
        if self.closing is not None:
            assert reason == "the machine is shutting down"
            return
        if self.is_drained:
            assert DRAIN.actor in reason
            assert DRAIN.reason in reason
            return
        if behind := re.match(r"behind (\d+), which has been overtaken (\d+) time", reason):
            other = self.queue[int(behind[1])]
            assert in_line(other) < in_line(job)
            assert other.passes == int(behind[2]) >= POLICY.max_bypass
            assert not self.could_be_let_by(job), f"job {job.id} is kept back for nothing"
            return
        if behind := re.fullmatch(r"behind (\d+), for which a GPU is becoming free", reason):
            other = self.queue[int(behind[1])]
            assert in_line(other) < in_line(job)
            assert other.request.exclusive
            assert any(
                one.calm_samples and self.is_fit_for(other.request, one) for one in self.gpus or ()
            )
            return
        assert not self.fits_now(job.request), f"job {job.id} could start, but: {reason}"
        if told := re.match(r"wants \d+ GPU.*?, (\d+) free", reason):
            free = sum(self.is_free_for(job.request, one) for one in self.gpus or ())
            assert int(told[1]) == free

    def could_be_let_by(self, job: WaitingJob) -> bool:
        """Could it start on what nobody waits for who has been overtaken often enough?"""
        before = [one for one in self.heads().values() if in_line(one) < in_line(job)]
        patient = [one.request for one in before if one.passes >= POLICY.max_bypass]
        if not job.request.gpus:
            return not any(not wish.gpus for wish in patient)
        free = [one for one in self.gpus or () if self.is_free_for(job.request, one)]
        waited_for = [
            one for one in free if any(wish.gpus and self.is_fit_for(wish, one) for wish in patient)
        ]
        return len(free) - len(waited_for) >= job.request.gpus

    def check_running(self, job: ActiveJob) -> None:
        if self.causes(job, EPSILON_S):
            self.check_ending(job)
        elif job.ending is None and job.state is JobState.RUNNING:
            assert (job.paused_since is not None) == job.pause_wished
            assert not job.signal_wishes
        self.check_stuck(job)
        has_limit = job.time_limit_s is not None or job.heartbeat_s is not None
        assert self.plan.wake_at is not None or not (has_limit and self.counts(job))

    def check_ending(self, job: ActiveJob) -> None:
        assert job.ending is not None, "it is to end, and nothing was done"
        assert job.paused_since is None
        assert self.plan.wake_at is not None
        grace_s = job.grace_s if job.stop is None else job.stop.grace_s
        told_at = job.term_sent_at
        if told_at is None or self.now >= self.grace_over_at(told_at, grace_s):
            assert job.last_kill_at is not None
            assert self.now < job.last_kill_at + (10.0 if job.is_unkillable else 1.0)
        if job.term_sent_at is not None and job.kill_sent_at is None:
            assert job.term_sent_at >= (job.running_since or 0.0), "it was told before it was there"

    def check_stuck(self, job: ActiveJob) -> None:
        since = self.kills(job)
        if since and self.now >= since[0] + POLICY.unkillable_s + EPSILON_S:
            assert job.is_unkillable, "it survives, and nobody is told"

    def check_lease(self, held: Lease) -> None:
        if held.state is LeaseState.ACTIVE:
            assert held.job in self.active, "a GPU is kept for a job that has left it"
        elif held.state is LeaseState.COOLING:
            assert held.cooling_since is not None
            assert self.plan.wake_at is not None
            assert self.plan.wake_at <= held.cooling_since + POLICY.cooling_s
