"""The core lived through: random news, and after every piece of it the promises.

`Box` is a machine in a few lines: it reads its GPUs as the watch does, shows its queue as the store
does, and carries out what is decided as the loop does. What may start it judges by itself, so that
the scheduler is held against another opinion and not against its own.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpuq.core.model import (
    ActiveJob,
    Cancel,
    Decision,
    Gpu,
    GpuProcess,
    JobState,
    Lease,
    LeaseState,
    Plan,
    Policy,
    Release,
    Request,
    Signal,
    Snapshot,
    Start,
    StopWish,
    WaitingJob,
)
from gpuq.core.placement import count_calm
from gpuq.core.scheduler import plan
from gpuq.core.units import parse_bytes
from tests.builders import GIB, STEADY, foreign, gpu, lease, ours, request, stop, uuid, window

POLICY = Policy(cpu_slots=4, max_bypass=3, max_jobs_per_gpu=3)
PER_CLASS = 3
TERM = 15

CARDS = [
    [("24G", "T4"), ("24G", "T4")],
    [("80G", "A100"), ("80G", "A100"), ("24G", "T4")],
]
REQUESTS = [
    request(),
    request(2),
    request(3),
    request(mem="5G"),
    request(mem="12G"),
    request(2, "20G"),
    request(mem="60G", exclusive=True),
    request(model="A100"),
    request(2, model="A100"),
    request(0),
    request(0, cpus=3),
    request(0, cpus=9),
]


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


class Box:
    def __init__(self, cards: list[tuple[str, str]], simulated: bool) -> None:
        self.now = 1000.0
        self.cards = [Card(mem, model) for mem, model in cards]
        self.simulated = simulated
        self.gpus: tuple[Gpu, ...] | None = None
        self.read_at: float | None = None
        self.trouble: str | None = None
        self.submitted = 0
        self.classes: dict[Request, int] = {}
        self.queue: dict[int, WaitingJob] = {}
        self.active: dict[int, ActiveJob] = {}
        self.begun: dict[int, WaitingJob] = {}  # as it stood in the queue
        self.uses: dict[int, int] = {}  # bytes on each of its GPUs
        self.leases: list[Lease] = []
        self.overtaken: Counter[int] = Counter()
        self.plan = Plan()

    # ── news ──

    def submit(self, wish: Request, priority: int) -> None:
        self.submitted += 1
        class_id = self.classes.setdefault(wish, len(self.classes) + 1)
        self.queue[self.submitted] = WaitingJob(
            id=self.submitted, class_id=class_id, request=wish, priority=priority
        )

    def end(self, job: int) -> None:
        del self.active[job]
        used = self.uses.pop(job)
        for held in self.held_by(job):
            self.leases.remove(held)
            if not self.simulated:
                self.cards[int(held.gpu[4:])].lingering += used
                cooling = replace(held, state=LeaseState.COOLING, cooling_since=self.now)
                self.leases.append(cooling)

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
        own = [ours(job, f"{self.uses[job] // GIB}G") for job in holders if self.uses.get(job)]
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
            gpus=self.gpus,
            leases=tuple(self.leases),
            waiting=tuple(window(self.queue.values(), PER_CLASS)),
            active=tuple(self.active.values()),
            policy=POLICY,
            jobs_per_class=PER_CLASS,
            gpus_read_at=self.read_at,
            gpu_trouble=self.trouble,
        )

    def on(self, reading: Gpu) -> list[Lease]:
        return [held for held in self.leases if held.gpu == reading.uuid]

    def held_by(self, job: int) -> list[Lease]:
        return [held for held in self.leases if held.job == job]

    def in_line(self) -> list[WaitingJob]:
        return sorted((job for job in self.queue.values() if job.stop is None), key=in_line)

    def heads(self) -> dict[int, WaitingJob]:
        return {job.class_id: job for job in reversed(self.in_line())}

    # ── another opinion ──

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
        else:
            raise AssertionError("it never came to rest")
        self.check_rest()

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
            case Signal():
                self.signal(decision)
            case Release():
                self.release(decision)
            case Start():
                raise AssertionError("starts come last")

    def start(self, decision: Start, waiting: set[int]) -> None:
        assert decision.job in self.queue, "a job was started that is gone"
        job = self.queue[decision.job]
        gpus = [one for one in self.gpus or () if one.uuid in decision.gpus]
        assert job.stop is None, "a job was started that somebody wanted gone"
        assert decision.attempt == job.attempt
        assert job is self.heads()[job.class_id], "a job overtook one that asks the same"
        assert len(gpus) == len(set(decision.gpus)) == job.request.gpus
        assert not gpus or not self.trouble, "a GPU was given away blindly"
        assert all(self.is_free_for(job.request, one) for one in gpus), "a GPU was not free"
        self.check_order(job)
        self.count_overtaken(job, gpus, waiting)
        self.begun[job.id] = self.queue.pop(job.id)
        for other in decision.passed:
            self.queue[other] = replace(self.queue[other], passes=self.queue[other].passes + 1)
        self.active[job.id] = ActiveJob(
            id=job.id, attempt=job.attempt, state=JobState.STARTING, request=job.request
        )
        self.uses[job.id] = 0
        self.leases += [self.lease(job, one) for one in gpus]

    def check_order(self, job: WaitingJob) -> None:
        """Who came before it could not have started either, seen this turn or not."""
        for other in self.heads().values():
            if in_line(other) < in_line(job) and self.fits_now(other.request):
                reason = self.plan.reasons.get(other.id, "nothing")
                assert "overtaken" in reason, f"{job.id} starts before {other.id}: {reason}"

    def lease(self, job: WaitingJob, reading: Gpu) -> Lease:
        taken = {held.slot for held in self.on(reading)}
        slot = min(set(range(len(taken) + 1)) - taken)
        whole = lease(reading.index, job.id, slot=slot, exclusive=job.request.exclusive)
        return replace(whole, memory_bytes=job.request.gpu_mem_bytes, attempt=job.attempt)

    def count_overtaken(self, job: WaitingJob, gpus: list[Gpu], waiting: set[int]) -> None:
        for other in self.heads().values():
            if in_line(other) < in_line(job) and other.id in waiting:
                wanted = [one for one in self.gpus or () if self.is_fit_for(other.request, one)]
                both_cpu = not gpus and not other.request.gpus
                if both_cpu or any(one in wanted for one in gpus if other.request.gpus):
                    self.overtaken[other.id] += 1
        worst = max(self.overtaken.values(), default=0)
        assert worst <= POLICY.max_bypass, f"one was overtaken {worst} times"

    def signal(self, decision: Signal) -> None:
        job = self.active[decision.job]
        assert job.stop is not None
        if decision.signal == TERM:
            assert job.term_sent_at is None
            assert job.stop.grace_s > 0
            self.active[job.id] = replace(job, term_sent_at=self.now)
            return
        if job.kill_sent_at is not None:
            assert self.now - job.kill_sent_at >= 1.0
        elif job.stop.grace_s:
            assert job.term_sent_at is not None
            assert self.now - job.term_sent_at >= job.stop.grace_s
        self.active[job.id] = replace(job, kill_sent_at=self.now)

    def release(self, decision: Release) -> None:
        held = next(
            one for one in self.leases if (one.gpu, one.slot) == (decision.gpu, decision.slot)
        )
        assert held.state is LeaseState.COOLING
        assert held.cooling_since is not None
        self.leases.remove(held)
        if self.now < held.cooling_since + POLICY.cooling_s:
            assert self.read_at is not None
            assert self.read_at > held.cooling_since, "nobody has looked since"
            reading = next(one for one in self.gpus or () if one.uuid == held.gpu)
            assert not self.has_strangers(reading), "it is warm"

    # ── promises ──

    def check_nothing_is_given_twice(self) -> None:
        assert self.cpus_taken() <= POLICY.cpu_slots
        for index, card in enumerate(self.cards):
            leases = [held for held in self.leases if held.gpu == uuid(index)]
            assert len(leases) == 1 or not any(held.exclusive for held in leases)
            assert len(leases) <= POLICY.max_jobs_per_gpu
            assert len({held.slot for held in leases}) == len(leases)
            declared = sum(held.memory_bytes or 0 for held in leases if not held.exclusive)
            assert not declared or declared + POLICY.headroom_bytes <= parse_bytes(card.mem)

    def check_rest(self) -> None:
        """Nothing more is to be done now: what waits, waits for a reason, and the reason is true."""
        assert self.plan.wake_at is None or self.plan.wake_at > self.now
        assert not any(job.stop for job in self.queue.values())
        shown = [job for job in self.look().waiting if job.stop is None]
        for job in shown:
            assert self.plan.reasons.get(job.id), f"job {job.id} waits for no reason"
        for job in self.heads().values():
            self.check_reason(job, self.plan.reasons[job.id])
        for running in self.active.values():
            self.check_stopping(running)
        for held in self.leases:
            if held.cooling_since is not None:
                assert self.plan.wake_at is not None
                assert self.plan.wake_at <= held.cooling_since + POLICY.cooling_s

    def check_reason(self, job: WaitingJob, reason: str) -> None:
        if behind := re.match(r"behind (\d+), which has been overtaken (\d+) time", reason):
            other = self.queue[int(behind[1])]
            assert in_line(other) < in_line(job)
            assert other.passes == int(behind[2]) >= POLICY.max_bypass
            assert not self.could_be_let_by(job), f"job {job.id} is kept back for nothing"
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

    def check_stopping(self, job: ActiveJob) -> None:
        if job.stop is None:
            return
        assert job.term_sent_at is not None or job.kill_sent_at is not None
        if job.term_sent_at is None or self.now >= job.term_sent_at + job.stop.grace_s:
            assert job.kill_sent_at is not None
            assert self.now < job.kill_sent_at + 1.0
        assert self.plan.wake_at is not None


class Life(RuleBasedStateMachine):
    @initialize(
        cards=st.sampled_from(CARDS),
        simulated=st.booleans(),
        wishes=st.lists(st.sampled_from(REQUESTS), max_size=16),
    )
    def a_box(self, cards: list[tuple[str, str]], simulated: bool, wishes: list[Request]) -> None:
        self.at_once = 0
        self.box = Box(cards, simulated)
        self.box.take_reading()
        self.jobs_are_submitted(wishes, n=1)

    @invariant()
    def it_lives(self) -> None:
        self.box.now += 0.01
        if self.at_once:
            self.at_once -= 1
        else:
            self.box.live()

    @rule(n=st.integers(1, 4))
    def much_happens_at_once(self, n: int) -> None:
        self.at_once = n

    @rule(wishes=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), n=st.integers(1, 4))
    def jobs_are_submitted(self, wishes: list[Request], n: int) -> None:
        for wish in wishes * n:
            self.box.submit(wish, priority=0)

    @rule(wish=st.sampled_from(REQUESTS), priority=st.integers(-1, 1), unwanted=st.booleans())
    def a_job_with_priority_is_submitted(
        self, wish: Request, priority: int, unwanted: bool
    ) -> None:
        self.box.submit(wish, priority)
        if unwanted:  # before anybody has looked
            last = self.box.submitted
            self.box.queue[last] = replace(self.box.queue[last], stop=stop())

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), n=st.integers(1, 3), lingers=st.booleans())
    def jobs_end(self, which: int, n: int, lingers: bool) -> None:
        for _ in range(min(n, len(self.box.active))):
            self.box.end(self.some_active(which))
        if not lingers:
            self.memory_comes_back()

    @rule()
    def memory_comes_back(self) -> None:
        for card in self.box.cards:
            card.lingering = 0

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), share=st.sampled_from([0.5, 3.0]))
    def a_job_uses_memory(self, which: int, share: float) -> None:
        job = self.some_active(which)
        declared = self.box.active[job].request.gpu_mem_bytes or 20 * GIB
        self.box.uses[job] = min(int(declared * share) // GIB, 20) * GIB

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99))
    def a_runner_dies_before_its_job_began(self, which: int) -> None:
        job = self.box.active[self.some_active(which)]
        if self.box.uses[job.id] or job.stop:
            return
        self.box.end(job.id)
        self.box.leases = [held for held in self.box.leases if held.job != job.id]
        self.box.queue[job.id] = self.box.begun[job.id]

    @precondition(lambda self: self.box.active or self.box.queue)
    @rule(which=st.integers(0, 99), grace_s=st.sampled_from([0.0, 3.0]))
    def somebody_wants_a_job_gone(self, which: int, grace_s: float) -> None:
        wish = StopWish(grace_s=grace_s, actor="ann")
        held: dict[int, WaitingJob] | dict[int, ActiveJob] = self.box.queue
        if (which % 2 and self.box.active) or not held:
            held = self.box.active
        job = sorted(held)[which // 2 % len(held)]
        if before := held[job].stop:  # asking again can shorten the grace and never lengthens it
            wish = replace(before, grace_s=min(before.grace_s, grace_s))
        held[job] = replace(held[job], stop=wish)  # type: ignore[assignment]

    @rule(which=st.integers(0, 9), mem=st.sampled_from(["1G", "10G", "22G"]))
    def a_stranger_comes(self, which: int, mem: str) -> None:
        card = self.box.cards[which % len(self.box.cards)]
        card.strangers = (*card.strangers, foreign(mem, pid=4000 + len(card.strangers)))

    @rule(which=st.integers(0, 9))
    def strangers_leave(self, which: int) -> None:
        self.box.cards[which % len(self.box.cards)].strangers = ()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        """A reading a second; half a second is too short for one."""
        self.box.now += seconds - min(int(seconds), 3)
        for _ in range(min(int(seconds), 3)):
            self.box.now += 1.0
            if not self.box.trouble:
                self.box.take_reading()

    @precondition(lambda self: not self.box.trouble)
    @rule()
    def somebody_asks_for_a_reading(self) -> None:
        self.box.take_reading()

    @precondition(lambda self: not self.at_once and self.box.plan.wake_at is not None)
    @rule()
    def the_clock_wakes(self) -> None:
        self.box.live()
        if self.box.plan.wake_at is not None:
            self.box.now = self.box.plan.wake_at
            assert plan(self.box.look()).decisions, "it was woken for nothing"

    @rule()
    def the_driver_falls_silent(self) -> None:
        self.box.trouble = "the GPU driver does not answer"

    @precondition(lambda self: self.box.trouble)
    @rule()
    def the_driver_answers_again(self) -> None:
        self.box.trouble = None
        self.box.take_reading()

    @precondition(lambda self: not self.box.trouble)
    @rule()
    def the_daemon_is_restarted(self) -> None:
        self.box.gpus = self.box.read_at = None
        self.box.live()
        self.box.now += 0.5
        self.box.take_reading()

    def some_active(self, which: int) -> int:
        return sorted(self.box.active)[which % len(self.box.active)]

    def teardown(self) -> None:
        """Left in peace, it comes to an end: whatever can run here has run."""
        if not hasattr(self, "box"):
            return
        box = self.box
        box.trouble = None
        for card in box.cards:
            card.strangers = ()
        for _ in range(box.submitted + 5):
            for job in list(box.active):
                box.end(job)
            self.memory_comes_back()
            for _ in range(4):
                box.now += 1.0
                box.take_reading()
                box.live()
        for job in box.queue.values():
            assert not box.waits_for_us(job.request), f"job {job.id} never ran: {box.plan.reasons}"


def test_the_core_keeps_its_promises_whatever_happens() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            STEADY, max_examples=400, stateful_step_count=40, report_multiple_bugs=False
        ),
    )
