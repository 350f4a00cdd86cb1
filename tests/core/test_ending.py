"""How a job that runs is ended: for what, by which steps, and when each of them is due."""

import signal
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.decisions import Decision, Pause, Resume, Signal
from gpuq.core.model import ActiveJob, Closing, EndCause, JobState
from gpuq.core.policy import OverMemory
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, active, carried_out, lease, stop, world

ASKED, TIME_LIMIT, HEARTBEAT, GPU_MEMORY = list(EndCause)[:4]
SHUTDOWN, LOGOUT = EndCause.SHUTDOWN, EndCause.LOGOUT
TERM, KILL, USR1 = signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1
NOW = 1000.0


def due(job: ActiveJob, now: float = NOW, **policy: Any) -> list[Decision]:
    return list(plan(world(active=[job], now=now, **policy)).decisions)


def wake_at(job: ActiveJob, now: float = NOW, **policy: Any) -> float | None:
    return plan(world(active=[job], now=now, **policy)).wake_at


def word(decision: Decision) -> str:
    if isinstance(decision, Signal):
        return signal.Signals(decision.signal).name.removeprefix("SIG")
    return type(decision).__name__.lower()


def words(job: ActiveJob, now: float = NOW, **policy: Any) -> list[str]:
    return [word(one) for one in due(job, now, **policy)]


def steady(id: int, *, grace: float, **more: Any) -> ActiveJob:
    """It runs, and nobody wants it ended."""
    return replace(active(id), grace_s=grace, **more)


class Life:
    """A job from wake to wake, with what was done to it and when."""

    def __init__(self, job: ActiveJob, now: float = 0.0, **policy: Any) -> None:
        self.job, self.now, self.policy = job, now, policy
        self.done: list[tuple[float, str]] = []

    def until(self, end: float) -> "Life":
        """Nothing is done but what is decided, and nobody looks but when the plan says so."""
        while True:
            assert len(self.done) < 1000, "it never comes to rest"
            decided = plan(world(active=[self.job], now=self.now, **self.policy))
            for decision in decided.decisions:
                self.done.append((self.now, word(decision)))
                self.job = carried_out(self.job, decision, self.now)
            if decided.decisions:
                continue
            assert decided.wake_at is None or decided.wake_at > self.now
            self.now = min(decided.wake_at or end, end)
            if self.now == end:
                return self

    def then(self, **changes: Any) -> "Life":
        self.job = replace(self.job, **changes)
        return self


# ── somebody asked ──


@pytest.mark.parametrize(
    ("job", "sent", "looks_at"),
    [
        (active(7), [], None),
        (active(7, grace_s=10), ["TERM"], NOW + 10),
        (active(7, grace_s=10, term_sent_at=NOW - 9), [], NOW + 1),
        (active(7, grace_s=10, term_sent_at=NOW - 10), ["KILL"], NOW + 1),
        (active(7, grace_s=10, kill_sent_at=NOW - 1.2, last_kill_at=NOW - 0.2), [], NOW + 0.8),
        (active(7, grace_s=10, kill_sent_at=NOW - 9, last_kill_at=NOW - 1), ["KILL"], NOW + 1),
        (active(7, grace_s=0), ["KILL"], NOW + 1),
        # A second wish without patience does not wait for the first one's grace.
        (active(7, grace_s=0, term_sent_at=NOW - 1), ["KILL"], NOW + 1),
    ],
)
def test_a_stop_is_term_then_kill_after_the_grace_and_kill_again_every_second(
    job: ActiveJob, sent: list[str], looks_at: float | None
) -> None:
    assert words(job) == sent
    assert wake_at(job) == looks_at


# ── somebody wants it to begin anew ──


def test_a_requeue_ends_a_job_with_its_own_grace_and_says_why() -> None:
    life = Life(active(7, grace_s=None, requeue_wished=True)).until(13)
    assert life.done[:2] == [(0, "TERM"), (10, "KILL")]
    assert life.job.ending is EndCause.REQUEUED


def test_a_stop_goes_before_a_requeue() -> None:
    assert Life(active(7, grace_s=3, requeue_wished=True)).until(2).job.ending is EndCause.ASKED


def test_what_ended_by_itself_is_not_told_to() -> None:
    assert words(active(7, requeue_wished=True, main_ended_at=NOW - 1)) == []


def test_the_whole_of_a_stop_from_wish_to_death() -> None:
    told = Life(active(7, grace_s=10)).until(13).done
    assert told == [(0, "TERM"), (10, "KILL"), (11, "KILL"), (12, "KILL")]


def test_a_step_says_what_it_is_for() -> None:
    assert due(active(7, grace_s=10)) == [Signal(job=7, attempt=1, signal=TERM, ends=ASKED)]
    assert due(active(7, grace_s=0)) == [Signal(job=7, attempt=1, signal=KILL, ends=ASKED)]


def test_a_later_wish_shortens_the_grace() -> None:
    life = Life(active(7, grace_s=60)).until(5).then(stop=stop(8.0)).until(9)
    assert life.done == [(0, "TERM"), (8, "KILL")]
    assert Life(active(7, grace_s=60)).until(5).then(stop=stop(0.0)).until(6).done[1] == (5, "KILL")


def test_a_daemon_that_has_just_come_kills_at_once_what_was_killed_before() -> None:
    """It cannot know when the one before it last did."""
    killed = active(7, grace_s=10, kill_sent_at=NOW - 0.1)
    assert words(killed) == ["KILL"]
    assert Life(killed, NOW).until(NOW + 1.5).done == [(NOW, "KILL"), (NOW + 1, "KILL")]


def test_a_daemon_that_has_just_come_grants_the_rest_of_the_grace() -> None:
    told = Life(active(7, grace_s=10, term_sent_at=NOW - 4), NOW).until(NOW + 7).done
    assert told == [(NOW + 6, "KILL")]


def test_who_is_to_end_before_it_began_is_told_again_once_it_has() -> None:
    """The first TERM found nobody: its process was not there yet."""
    early = active(7, grace_s=10, state=JobState.STARTING)
    life = Life(early).until(3).then(state=JobState.RUNNING, running_since=3.0).until(14)
    assert life.done == [(0, "TERM"), (3, "TERM"), (13, "KILL")]


def test_who_never_begins_is_killed_all_the_same() -> None:
    early = active(7, grace_s=10, state=JobState.STARTING)
    assert Life(early).until(11).done == [(0, "TERM"), (10, "KILL")]


# ── its time is up ──


def running(own_grace_s: float = 5.0, **facts: Any) -> ActiveJob:
    """Since 0, with a grace of its own beside that of a wish."""
    return replace(active(7, **facts), grace_s=own_grace_s)


def limited(own_grace_s: float = 5.0, **facts: Any) -> ActiveJob:
    return running(own_grace_s, **{"time_limit_s": 100.0} | facts)


def test_at_its_limit_a_job_is_ended_with_its_own_grace() -> None:
    told = Life(limited()).until(107).done
    assert told == [(100, "TERM"), (105, "KILL"), (106, "KILL")]
    assert due(limited(), 100) == [Signal(job=7, attempt=1, signal=TERM, ends=TIME_LIMIT)]


def test_a_grace_of_nothing_is_kill_at_the_limit() -> None:
    assert Life(limited(0.0)).until(101.5).done == [(100, "KILL"), (101, "KILL")]


def test_a_job_without_a_limit_runs_for_ever() -> None:
    forever = active(7)
    assert (due(forever, 1e9), wake_at(forever, 1e9)) == ([], None)


def test_time_counts_from_when_the_job_ran_and_not_from_its_start() -> None:
    waiting = limited(state=JobState.STARTING, running_since=None)
    assert (due(waiting, 500), wake_at(waiting, 500)) == ([], None)


def test_paused_time_does_not_count() -> None:
    life = Life(limited()).until(40).then(pause_wished=True)
    life.until(1040).then(pause_wished=False).until(1110)
    assert life.done == [(40, "pause"), (1040, "resume"), (1100, "TERM"), (1105, "KILL")] + [
        (1105.0 + n, "KILL") for n in range(1, 5)
    ]


def test_pauses_add_up() -> None:
    life = Life(limited())
    for at in (10.0, 30.0, 50.0):
        life.until(at).then(pause_wished=True).until(at + 7).then(pause_wished=False)
    life.until(122)
    assert life.done[-1] == (121, "TERM")


def test_a_job_is_never_ended_by_a_limit_while_it_stands_still() -> None:
    still = limited(paused_since=99.0, pause_wished=True, heartbeat_s=10.0)
    assert (due(still, 1e6), wake_at(still, 1e6)) == ([], None)


def test_who_is_asked_to_pause_at_the_last_moment_is_not_ended() -> None:
    """At the moment itself its time is up; before that, a pause keeps what is left."""
    life = Life(limited()).until(99.9).then(pause_wished=True).until(500).then(pause_wished=False)
    assert life.until(501).done == [(99.9, "pause"), (500, "resume"), (500.1, "TERM")]


# ── it has not reported ──


def beating(**facts: Any) -> ActiveJob:
    """To report every 30 s, which is noticed within one."""
    return running(**{"heartbeat_s": 30.0} | facts)


def test_silence_counts_from_the_beginning() -> None:
    assert Life(beating()).until(37).done == [(31, "TERM"), (36, "KILL")]
    assert due(beating(), 31) == [Signal(job=7, attempt=1, signal=TERM, ends=HEARTBEAT)]


def test_silence_counts_from_the_last_sign_of_life() -> None:
    assert Life(beating(beat_at=25.0)).until(57).done == [(56, "TERM")]
    assert Life(beating()).until(29).then(beat_at=29.0).until(59).done == []


def test_who_reports_in_time_is_not_ended_before_that_was_noticed() -> None:
    """By a runner that looks every second, or four times in that time where it is shorter."""
    assert Life(beating()).until(30.9).then(beat_at=30.9).until(60).done == []
    often = beating(heartbeat_s=0.4)
    assert wake_at(often, 0.0) == 0.5
    assert Life(often).until(0.49).then(beat_at=0.49).until(0.98).done == []


def test_silence_counts_from_the_end_of_a_pause() -> None:
    life = Life(beating()).until(20).then(pause_wished=True).until(500).then(pause_wished=False)
    assert life.until(532).done == [(20, "pause"), (500, "resume"), (531, "TERM")]


def test_a_sign_of_life_from_before_the_job_counts_for_nothing() -> None:
    assert Life(beating(running_since=50.0, beat_at=10.0)).until(82).done == [(81, "TERM")]


def test_silence_before_it_runs_is_nobodys_fault() -> None:
    waiting = beating(state=JobState.STARTING, running_since=None)
    assert (due(waiting, 500), wake_at(waiting, 500)) == ([], None)


def test_the_nearer_of_two_limits_is_the_one_that_wakes() -> None:
    assert wake_at(limited(heartbeat_s=30.0), 10.0) == 31
    assert wake_at(limited(heartbeat_s=30.0, beat_at=95.0), 96.0) == 100


# ── it uses more of a shared GPU than it asked for ──

OVER = "it used 7.1G of GPU 0 and asked for 6G"


def test_who_uses_too_much_memory_is_ended_where_the_settings_want_that() -> None:
    over = active(7, over_memory=OVER)
    assert due(over, over_memory=OverMemory.END) == [
        Signal(job=7, attempt=1, signal=TERM, ends=GPU_MEMORY)
    ]
    for leave in (OverMemory.WARN, OverMemory.NOTHING):
        assert due(over, over_memory=leave) == []
    assert due(active(7), over_memory=OverMemory.END) == []


def test_who_uses_too_much_memory_has_its_grace_and_no_more_once_it_uses_less() -> None:
    life = Life(active(7, over_memory=OVER), over_memory=OverMemory.END)
    assert life.until(5).then(over_memory=None).until(10.5).done == [(0, "TERM"), (10, "KILL")]
    assert life.job.ending is GPU_MEMORY


def test_using_too_much_memory_is_the_last_of_several_causes() -> None:
    over = running(time_limit_s=100.0, over_memory=OVER)
    assert cause(due(over, 100.0, over_memory=OverMemory.END)) is TIME_LIMIT
    assert cause(due(replace(over, stop=stop()), over_memory=OverMemory.END)) is ASKED
    assert due(replace(over, main_ended_at=NOW), over_memory=OverMemory.END) == []


# ── what all of it runs on goes away ──


def closing(kill_in_s: float = 60.0, cause: EndCause = SHUTDOWN, now: float = NOW) -> Closing:
    return Closing(cause=cause, kill_at=now + kill_in_s)


@pytest.mark.parametrize("cause", [SHUTDOWN, LOGOUT])
def test_when_the_machine_goes_down_every_job_is_told_and_has_its_own_grace(
    cause: EndCause,
) -> None:
    jobs = [steady(7, grace=10.0), steady(8, grace=30.0)]
    decided = plan(world(active=jobs, now=NOW, closing=closing(cause=cause)))
    assert decided.decisions == tuple(
        Signal(job=job.id, attempt=1, signal=TERM, ends=cause) for job in jobs
    )
    assert decided.wake_at == NOW + 10


def test_no_grace_is_longer_than_the_machine_can_wait() -> None:
    life = Life(steady(7, grace=3600.0), closing=closing(5.0, now=0.0)).until(5.5)
    assert life.done == [(0, "TERM"), (5, "KILL")]


def test_who_is_being_ended_already_has_no_longer_either() -> None:
    patient = active(7, grace_s=3600.0, term_sent_at=NOW - 10, ending=ASKED)
    assert words(patient) == []
    assert words(patient, closing=closing(0.0)) == ["KILL"]
    assert cause(due(patient, closing=closing(0.0))) is ASKED, "the first cause stays the cause"


def test_who_starts_late_is_told_and_killed_at_once() -> None:
    starting = steady(7, grace=10.0, state=JobState.STARTING, running_since=None)
    life = Life(starting, closing=closing(2.0, now=0.0)).until(3)
    assert life.done[0] == (0, "TERM")
    late = replace(starting, state=JobState.RUNNING, running_since=3.0, term_sent_at=0.0)
    late = replace(late, ending=SHUTDOWN)
    life = Life(late, now=3.0, closing=closing(2.0, now=0.0)).until(3.5)
    assert life.done == [(3, "TERM"), (3, "KILL")]


def test_what_a_main_process_left_behind_has_no_longer_than_the_machine() -> None:
    left = steady(7, grace=3600.0, main_ended_at=NOW - 5)
    assert words(left) == []
    assert words(left, closing=closing()) == ["TERM"]
    told = replace(left, term_sent_at=NOW - 60, ending=SHUTDOWN)
    assert words(told, closing=closing(0.0)) == ["KILL"]


def test_what_was_told_to_end_ends_though_the_machine_stays_up_after_all() -> None:
    told = steady(7, grace=10.0, term_sent_at=NOW - 10, ending=SHUTDOWN)
    assert words(told) == ["KILL"]


def test_a_limit_that_is_reached_in_that_moment_is_the_cause() -> None:
    over = steady(7, grace=10.0, time_limit_s=5.0)
    assert cause(due(over, closing=closing())) is TIME_LIMIT


def test_nothing_stands_still_or_goes_on_while_the_machine_goes_down() -> None:
    paused = steady(7, grace=10.0, paused_since=NOW - 5)
    assert words(paused, closing=closing()) == ["TERM"]


# ── the first cause stays the cause ──


def cause(decisions: list[Decision]) -> EndCause | None:
    (only,) = decisions
    assert isinstance(only, Signal)
    return only.ends


def test_who_asks_when_the_time_is_up_already_shortens_the_grace_and_changes_no_cause() -> None:
    life = Life(limited(60.0)).until(110).then(stop=stop(15.0)).until(114)
    assert life.done == [(100, "TERM")]
    assert cause(due(life.job, 115.0)) is TIME_LIMIT
    assert life.job.ending is TIME_LIMIT


def test_a_limit_that_is_reached_within_the_grace_of_a_stop_changes_nothing() -> None:
    life = Life(limited(stop=stop(50.0)), 90.0).until(139)
    assert life.done == [(90, "TERM")]
    assert cause(due(life.job, 140.0)) is ASKED


def test_time_that_is_up_is_no_longer_a_matter_once_it_was_said() -> None:
    """A pause withdraws nothing: what was begun is brought to its end."""
    life = Life(limited()).until(101).then(pause_wished=True).until(105.5)
    assert life.done == [(100, "TERM"), (105, "KILL")]


def test_what_stands_still_is_woken_for_its_end() -> None:
    life = Life(active(7)).until(5).then(pause_wished=True).until(9)
    life.then(stop=stop(3.0)).until(13)
    assert life.done == [(5, "pause"), (9, "TERM"), (12, "KILL")]
    assert life.job.paused_since is None


# ── messages ──


def test_signals_sent_by_hand_go_out_in_order_and_are_no_step_towards_the_end() -> None:
    wished = active(7, signal_wishes=(USR1, signal.SIGUSR2, USR1))
    assert words(wished) == ["USR1", "USR2", "USR1"]
    assert {one.ends for one in due(wished) if isinstance(one, Signal)} == {None}
    assert wake_at(wished) is None


def test_a_message_goes_out_before_the_step_that_ends_it() -> None:
    assert words(active(7, signal_wishes=(USR1,), grace_s=0)) == ["USR1", "KILL"]


def test_a_message_waits_until_there_is_somebody_to_hear_it() -> None:
    early = active(7, signal_wishes=(USR1,), state=JobState.STARTING)
    life = Life(early).until(3).then(state=JobState.RUNNING, running_since=3.0).until(4)
    assert life.done == [(3, "USR1")]


# ── standing still ──


def test_a_pause_is_made_once_and_withdrawn_once() -> None:
    assert due(active(7, pause_wished=True)) == [Pause(job=7, attempt=1)]
    assert due(active(7, pause_wished=True, paused_since=9.0)) == []
    assert due(active(7, paused_since=9.0)) == [Resume(job=7, attempt=1)]
    assert due(active(7)) == []


def test_a_job_that_has_not_begun_is_paused_once_it_has() -> None:
    early = active(7, pause_wished=True, state=JobState.STARTING)
    life = Life(early).until(3).then(state=JobState.RUNNING, running_since=3.0).until(4)
    assert life.done == [(3, "pause")]


# ── what survives ──


def test_what_survives_kill_is_set_aside_once_and_killed_less_often_from_then_on() -> None:
    told = Life(active(7, grace_s=0), unkillable_s=4.0).until(30).done
    assert told == [(float(n), "KILL") for n in range(5)] + [
        (4, "setaside"),
        (14, "KILL"),
        (24, "KILL"),
    ]


def test_the_first_kill_counts_and_no_later_one() -> None:
    killed = active(7, grace_s=0, kill_sent_at=NOW - 60, last_kill_at=NOW - 0.5)
    assert words(killed) == ["setaside"]
    assert words(replace(killed, kill_sent_at=NOW - 59)) == []
    assert wake_at(replace(killed, kill_sent_at=NOW - 59.9)) == pytest.approx(NOW + 0.1)


def test_what_its_main_process_left_is_the_runners_to_end_and_set_aside_where_it_hangs() -> None:
    left = running(main_ended_at=50.0)
    assert Life(left, 50.0).until(114).done == []
    assert Life(left, 50.0).until(200).done == [(115, "setaside")]


def test_no_limit_is_reached_once_the_main_process_has_ended() -> None:
    ended = limited(heartbeat_s=30.0, main_ended_at=20.0)
    assert [word for _, word in Life(ended, 20.0).until(400).done] == ["setaside"]


def test_who_asks_need_not_wait_for_what_was_left_behind() -> None:
    left = active(7, main_ended_at=NOW - 1, grace_s=0)
    assert words(left) == ["KILL"]


# ── whoever waits ──


def test_the_nearest_deadline_wakes() -> None:
    held = [lease(0, 7, cooling_since=NOW - 25)]
    leaving = [active(8, grace_s=10, term_sent_at=NOW - 2)]
    assert plan(world(1, (), held, leaving, now=NOW)).wake_at == NOW + 5
    assert plan(world(1, (), held, [limited(running_since=NOW - 97)], now=NOW)).wake_at == NOW + 3


def test_one_job_does_not_hold_up_another() -> None:
    jobs = [active(1), active(2, grace_s=0), limited(), active(4, grace_s=9)]
    decided = plan(world(active=jobs, now=NOW)).decisions
    assert [(one.job, one.ends) for one in decided if isinstance(one, Signal)] == [
        (2, ASKED),
        (7, TIME_LIMIT),
        (4, ASKED),
    ]


def moments(low: float = 0.0, high: float = NOW + 30) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(low, high)


SPANS = st.sampled_from([0.0, 0.1, 1.0, 10.0, 60.0, 1e9])


@st.composite
def running_jobs(draw: st.DrawFn) -> ActiveJob:
    """Any that a store may show, and some that it should not: facts of the future among them."""
    began = draw(moments())
    ending = draw(st.none() | st.sampled_from(EndCause))
    return running(
        draw(SPANS),
        state=JobState.STARTING if began is None else JobState.RUNNING,
        ending=ending,
        term_sent_at=None if ending is None else draw(moments()),
        kill_sent_at=None if ending is None else draw(moments()),
        running_since=began,
        stop=draw(st.none() | SPANS.map(stop)),
        time_limit_s=draw(st.none() | SPANS.filter(bool)),
        heartbeat_s=draw(st.none() | SPANS.filter(bool)),
        paused_since=None if began is None else draw(moments(high=NOW)),
        resumed_at=draw(moments()),
        paused_s=draw(SPANS),
        beat_at=draw(moments()),
        pause_wished=draw(st.booleans()),
        last_kill_at=draw(moments()),
        main_ended_at=draw(moments()),
        is_unkillable=draw(st.booleans()),
        signal_wishes=tuple(draw(st.lists(st.just(int(USR1)), max_size=2))),
        over_memory=draw(st.none() | st.just(OVER)),
    )


@STEADY
@given(running_jobs())
def test_whatever_a_job_is_it_comes_to_rest_and_nobody_is_woken_for_nothing(
    job: ActiveJob,
) -> None:
    """What was just done is not due again, so the loop cannot turn in circles; and at the moment
    that was named something is due."""
    now = NOW
    for _ in range(6):
        for _ in range(5):
            if not (decisions := due(job, now, over_memory=OverMemory.END)):
                break
            for decision in decisions:
                job = carried_out(job, decision, now)
        else:
            raise AssertionError(f"it never came to rest: {decisions}")
        at = wake_at(job, now, over_memory=OverMemory.END)
        if at is None:
            return
        assert at > now
        assert words(job, at), f"woken for nothing at {at}"
        now = at
