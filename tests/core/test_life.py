"""The core lived through: random news, and after every piece of it the promises."""

from dataclasses import replace

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

from gpuq.core.decisions import Undelay
from gpuq.core.model import (
    ActiveJob,
    Closing,
    EndCause,
    Exit,
    JobState,
    Request,
    StopWish,
    WaitingJob,
)
from gpuq.core.scheduling.scheduler import plan
from tests.box import Box, Terms
from tests.builders import GIB, STEADY, foreign, request, stop

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
PLAIN = Terms()
TERMS = [
    PLAIN,
    Terms(retries=1),
    Terms(retries=2, time_limit_s=4.0),
    Terms(heartbeat_s=2.0, retries=1),
    Terms(time_limit_s=2.5, heartbeat_s=1.5),
]
ENDS = [
    Exit(exit_code=0),
    Exit(exit_code=1),
    Exit(signal=9),
    Exit(lost="its runner was killed"),
    Exit(exit_code=1, told_out_of_memory="no room"),
]


class Life(RuleBasedStateMachine):
    @initialize(
        cards=st.sampled_from(CARDS),
        simulated=st.booleans(),
        wishes=st.lists(st.sampled_from(REQUESTS), max_size=16),
        terms=st.sampled_from(TERMS),
    )
    def a_box(
        self,
        cards: list[tuple[str, str]],
        simulated: bool,
        wishes: list[Request],
        terms: Terms,
    ) -> None:
        self.at_once = 0
        self.box = Box(cards, simulated)
        self.box.take_reading()
        self.jobs_are_submitted(wishes, n=1, terms=terms)

    @invariant()
    def it_lives(self) -> None:
        self.box.advance(0.01)
        if self.at_once:
            self.at_once -= 1
        else:
            self.box.live()

    @rule(n=st.integers(1, 4))
    def much_happens_at_once(self, n: int) -> None:
        self.at_once = n

    # ── asked and wished ──

    @rule(
        wishes=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3),
        n=st.integers(1, 4),
        terms=st.sampled_from(TERMS),
    )
    def jobs_are_submitted(self, wishes: list[Request], n: int, terms: Terms) -> None:
        for wish in wishes * n:
            self.box.submit(wish, 0, terms)

    @rule(wish=st.sampled_from(REQUESTS), priority=st.integers(-1, 1), unwanted=st.booleans())
    def a_job_with_priority_is_submitted(
        self, wish: Request, priority: int, unwanted: bool
    ) -> None:
        last = self.box.submit(wish, priority, PLAIN)
        if unwanted:  # before anybody has looked
            self.box.queue[last] = replace(self.box.queue[last], stop=stop())

    @precondition(lambda self: self.box.active or self.box.queue)
    @rule(which=st.integers(0, 99), grace_s=st.sampled_from([0.0, 3.0]))
    def somebody_wants_a_job_gone(self, which: int, grace_s: float) -> None:
        wish = StopWish(grace_s=grace_s, actor="ann")
        held: dict[int, WaitingJob] | dict[int, ActiveJob] = self.box.queue
        if (which % 2 and self.box.active) or not held:
            held = self.box.active
        id = sorted(held)[which // 2 % len(held)]
        if before := held[id].stop:  # asking again can shorten the grace and never lengthens it
            wish = replace(before, grace_s=min(before.grace_s, grace_s))
        held[id] = replace(held[id], stop=wish)  # type: ignore[assignment]

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), paused=st.booleans())
    def somebody_pauses_a_job_or_lets_it_go_on(self, which: int, paused: bool) -> None:
        job = self.some_active(which)
        self.box.active[job.id] = replace(job, pause_wished=paused)

    @precondition(lambda self: self.box.active and not self.at_once)
    @rule(which=st.integers(0, 99), seconds=st.sampled_from([0.5, 3.0, 31.0]))
    def a_job_stands_still_for_a_while(self, which: int, seconds: float) -> None:
        id = self.some_active(which).id
        for paused in (True, False):
            self.box.live()
            self.box.active[id] = replace(self.box.active[id], pause_wished=paused)
            if paused:
                self.box.live()
                self.box.advance(seconds)

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99))
    def somebody_sends_a_signal_by_hand(self, which: int) -> None:
        job = self.some_active(which)
        self.box.active[job.id] = replace(job, signal_wishes=(*job.signal_wishes, 10))

    @rule(drained=st.booleans())
    def somebody_drains_the_queue_or_lets_it_go_on(self, drained: bool) -> None:
        self.box.is_drained = drained

    # ── jobs ──

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), n=st.integers(1, 3), lingers=st.booleans())
    def jobs_succeed(self, which: int, n: int, lingers: bool) -> None:
        for _ in range(min(n, len(self.box.active))):
            self.box.end(self.some_active(which).id, ENDS[0])
        if not lingers:
            self.memory_comes_back()

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), exit=st.sampled_from(ENDS), luck=st.floats(0, 0.99))
    def a_job_ends(self, which: int, exit: Exit, luck: float) -> None:
        self.box.end(self.some_active(which).id, exit, luck)

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), exit=st.sampled_from(ENDS))
    def a_job_ends_just_as_somebody_wants_it_gone(self, which: int, exit: Exit) -> None:
        job = self.some_active(which)
        self.box.active[job.id] = replace(job, stop=stop())
        self.box.end(job.id, exit)

    @rule()
    def memory_comes_back(self) -> None:
        for card in self.box.cards:
            card.lingering = 0

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99), share=st.sampled_from([0.5, 3.0]))
    def a_job_uses_memory(self, which: int, share: float) -> None:
        job = self.some_active(which)
        declared = job.request.gpu_mem_bytes or 20 * GIB
        self.box.bodies[job.id].uses = min(int(declared * share) // GIB, 20) * GIB

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99))
    def a_job_gives_a_sign_of_life(self, which: int) -> None:
        job = self.some_active(which)
        if self.box.counts(job):
            self.box.report(job.id)

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99))
    def a_main_process_ends_and_leaves_others(self, which: int) -> None:
        job = self.some_active(which)
        if self.box.counts(job):
            self.box.active[job.id] = replace(job, main_ended_at=self.box.now)

    @rule(slow=st.booleans())
    def runners_are_slow_or_not(self, slow: bool) -> None:
        self.box.runners_are_slow = slow
        self.box.get_on()

    @precondition(lambda self: self.box.active)
    @rule(which=st.integers(0, 99))
    def a_runner_dies_before_its_job_began(self, which: int) -> None:
        job = self.some_active(which)
        if job.state is JobState.STARTING and not job.stop:
            self.box.forget(job.id)

    # ── the machine ──

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
        self.box.advance(seconds - min(int(seconds), 3))
        for _ in range(min(int(seconds), 3)):
            self.box.advance(1.0)
            if not self.box.trouble:
                self.box.take_reading()

    @rule(seconds=st.sampled_from([5.0, 100.0, 10_000.0]))
    def the_machine_is_suspended(self, seconds: float) -> None:
        self.box.advance(0.0, asleep_s=seconds)

    @precondition(lambda self: not self.box.trouble)
    @rule()
    def somebody_asks_for_a_reading(self) -> None:
        self.box.take_reading()

    @precondition(lambda self: not self.at_once and self.box.plan.wake_at is not None)
    @rule()
    def the_clock_wakes(self) -> None:
        self.box.live()
        if (at := self.box.plan.wake_at) is not None:
            self.box.advance(at - self.box.now)
            self.box.now = at  # to the last bit
            assert plan(self.box.look()).decisions, "it was woken for nothing"

    @precondition(lambda self: not self.at_once and self.box.plan.undelay_at is not None)
    @rule()
    def the_alarm_rings(self) -> None:
        self.box.live()
        if (at := self.box.plan.undelay_at) is not None:
            self.box.boottime = at
            due = plan(self.box.look()).decisions
            assert any(isinstance(one, Undelay) for one in due), "it rang for nothing"

    @rule(grace_s=st.sampled_from([0.0, 2.0, 60.0]))
    def the_machine_begins_to_go_down(self, grace_s: float) -> None:
        if self.box.closing is None:
            self.box.closing = Closing(cause=EndCause.SHUTDOWN, kill_at=self.box.now + grace_s)

    @rule()
    def the_machine_stays_up_after_all(self) -> None:
        self.box.closing = None

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
        """It forgets what it has read, and when it last killed."""
        self.box.gpus = self.box.read_at = None
        for id, job in self.box.active.items():
            self.box.active[id] = replace(job, last_kill_at=None)
        self.box.live()
        self.box.advance(0.5)
        self.box.take_reading()

    def some_active(self, which: int) -> ActiveJob:
        return self.box.active[sorted(self.box.active)[which % len(self.box.active)]]

    def teardown(self) -> None:
        """Left in peace, it comes to an end: whatever can run here has run."""
        if not hasattr(self, "box"):
            return
        box = self.box
        box.trouble = box.closing = None
        box.is_drained = box.runners_are_slow = False
        for card in box.cards:
            card.strangers = ()
        box.advance(0.0, asleep_s=100_000.0)  # longer than any wait between two attempts
        for _ in range(box.submitted + 5):
            for job in list(box.active):
                box.end(job, ENDS[0])
            self.memory_comes_back()
            for _ in range(4):
                box.advance(1.0)
                box.take_reading()
                box.live()
        for waiting in box.queue.values():
            because = f"job {waiting.id} never ran: {box.plan.reasons}"
            assert not box.waits_for_us(waiting.request), because
        assert not box.delayed


def test_the_core_keeps_its_promises_whatever_happens() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            STEADY, max_examples=400, stateful_step_count=40, report_multiple_bugs=False
        ),
    )
