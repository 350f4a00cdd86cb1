"""No bug of a user's sets a GPU aside, no fault of a GPU's goes unnoticed, and no job meets a test."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gpuq.core import decisions
from gpuq.core.decisions import Decision, Readmit, SetAsideGpu, Start
from gpuq.core.gpus.breaker import (
    OF_APPLICATIONS,
    bar_of,
    judge_test,
    plan_health,
    retest_at,
    speaks_against_gpu,
    tell_xid,
)
from gpuq.core.gpus.gpu import Bar, Gpu, GpuState
from gpuq.core.model import Drain, Exit, GpuHealth, Lease, Outcome, ResumeWish, Snapshot
from gpuq.core.policy import Policy
from gpuq.core.scheduling.scheduler import plan
from tests.builders import STEADY, foreign, gpu, job, lease, uuid, world

MINUTE_S = 60.0
NOW = 5000.0  # CLOCK_BOOTTIME
POLICY = Policy()
BOB = Drain(actor="bob", reason="new fan")
LOST = {"fault": "has fallen off the bus", "is_lasting": True}


def health(index: int = 0, **more: object) -> GpuHealth:
    return replace(GpuHealth(gpu=uuid(index)), **more)  # type: ignore[arg-type]


def aside(index: int = 0, **more: object) -> GpuHealth:
    """A GPU that was set aside just now."""
    return health(index, **({"quarantine": "its test failed: wrong sums", "tried_at": NOW} | more))


def ward(
    cards: Sequence[Gpu],
    known: Sequence[GpuHealth] | None = None,
    leases: Sequence[Lease] = (),
    **more: object,
) -> Snapshot:
    """GPUs with their health; nothing is held against those of which nothing is said."""
    said = {one.gpu: one for one in known or ()}
    full = tuple(said.get(card.uuid, GpuHealth(gpu=card.uuid)) for card in cards)
    seen = world(gpus=cards, leases=leases, boottime=NOW, **more)  # type: ignore[arg-type]
    return replace(seen, health=full)


def decided(snapshot: Snapshot) -> list[Decision]:
    return plan_health(snapshot)[0]


def only(card: Gpu, known: GpuHealth | None = None, **more: object) -> Decision | None:
    """What is decided of a GPU that is alone."""
    decisions = decided(ward([card], [known or health()], **more))  # type: ignore[arg-type]
    assert len(decisions) <= 1
    return decisions[0] if decisions else None


def is_test(decision: Decision | None) -> bool:
    return isinstance(decision, decisions.TestGpu)


# ─── what sets a GPU aside ───────────────────────────────────────────────────────────────────────


def test_a_gpu_whose_hardware_is_not_well_is_set_aside_at_once() -> None:
    bad = "row remapping has failed"
    assert only(gpu(defect=bad)) == SetAsideGpu(gpu="GPU-0", reason=bad)
    assert only(gpu(**LOST)) == SetAsideGpu(
        gpu="GPU-0", reason="has fallen off the bus", is_lasting=True
    )
    told = only(gpu(xids=(31, 79)))
    assert isinstance(told, SetAsideGpu)
    assert told.reason == "the driver told of XID 79: it has fallen off the bus"
    assert not told.is_lasting, "a good test may take it back, if it can be read at all"


def test_a_gpu_that_cannot_be_read_for_a_while_is_not_held_to_that() -> None:
    assert only(gpu(fault="cannot be read: Unknown Error")) is None


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_an_error_that_a_program_brought_about_is_not_the_gpus(xid: int) -> None:
    assert only(gpu(xids=(xid,))) is None
    assert tell_xid(xid, 2).endswith(OF_APPLICATIONS[xid])


def test_a_row_that_waits_to_be_remapped_keeps_no_job_away() -> None:
    assert only(gpu(xids=(63,))) is None
    assert isinstance(only(gpu(xids=(63, 64))), SetAsideGpu)


def test_any_other_error_of_the_driver_is_the_gpus() -> None:
    for xid in set(range(1, 200)) - {63} - set(OF_APPLICATIONS):
        assert isinstance(only(gpu(xids=(xid,))), SetAsideGpu), xid


def test_what_is_known_is_not_said_twice() -> None:
    assert only(gpu(defect="rows"), aside()) is None
    assert only(gpu(xids=(79,)), aside()) is None
    assert only(gpu(**LOST), aside(is_lasting=True)) is None


def test_a_fault_that_lasts_is_remembered_where_a_lesser_one_was_known() -> None:
    worse = only(gpu(**LOST), aside())
    assert worse == SetAsideGpu(gpu="GPU-0", reason="has fallen off the bus", is_lasting=True)


def test_a_gpu_that_is_not_known_by_its_uuid_has_no_health() -> None:
    nameless = gpu(uuid="unidentified-0", **LOST)
    assert decided(replace(ward([nameless]), health=())) == []


def test_with_its_defect_a_person_may_have_it_used_all_the_same() -> None:
    accepted = health(accepted="3 rows")
    assert only(gpu(defect="3 rows"), accepted) is None
    assert isinstance(only(gpu(defect="4 rows"), accepted), SetAsideGpu), "that is another one"


# ─── what a job's end says ───────────────────────────────────────────────────────────────────────


def says(outcome: Outcome, ran_s: float | None = 5.0, **exit: object) -> bool | None:
    plain: dict[str, object] = {"lost": "gone"} if outcome is Outcome.LOST else {"exit_code": 1}
    told = Exit(**(plain | exit))  # type: ignore[arg-type]
    return speaks_against_gpu(outcome, told, ran_s, POLICY)


def test_only_a_quick_failure_speaks_against_a_gpu() -> None:
    assert says(Outcome.FAILED, 30.0) is True
    assert says(Outcome.LOST) is True
    assert says(Outcome.FAILED, 30.1) is False
    assert says(Outcome.SUCCEEDED, 0.1, exit_code=0) is False
    assert says(Outcome.CANCELLED, 40.0) is False, "it ran well for so long"


def test_what_people_and_limits_end_says_nothing_of_a_gpu() -> None:
    for outcome in (Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY):
        assert says(outcome) is None


def test_what_did_not_come_as_far_as_its_gpus_says_nothing_of_them() -> None:
    assert says(Outcome.FAILED, stage="executing", error="no such file") is None
    assert says(Outcome.FAILED, None) is None
    assert says(Outcome.LOST, None) is None


def test_three_quick_failures_in_a_row_get_a_gpu_tested() -> None:
    assert only(gpu(), health(fast_failures=2)) is None
    assert only(gpu(), health(fast_failures=3)) == decisions.TestGpu(
        gpu="GPU-0", why="3 jobs in a row failed within 30 s on it"
    )
    assert is_test(only(gpu(), health(fast_failures=5), fast_failures=5))
    assert only(gpu(), health(fast_failures=4), fast_failures=5) is None


def test_a_gpu_is_tested_for_that_every_five_minutes_at_most() -> None:
    lately = health(fast_failures=3, tried_at=NOW - 4 * MINUTE_S)
    decisions, deadlines = plan_health(ward([gpu()], [lately]))
    assert (decisions, deadlines) == ([], [NOW + MINUTE_S])
    assert is_test(only(gpu(), replace(lately, tried_at=NOW - 5 * MINUTE_S)))


def test_fifty_bugs_of_users_set_nothing_aside() -> None:
    """One each ten seconds; every test is good."""
    known, tests, boottime = health(), 0, NOW
    for _ in range(50):
        boottime += 10.0
        known = replace(known, fast_failures=known.fast_failures + 1)
        seen = replace(ward([gpu()], [known]), boottime=boottime)
        for decision in plan(seen).decisions:
            assert is_test(decision), decision
            assert judge_test(known, gpu(), is_good=True, trouble=None) is None
            known, tests = health(tried_at=boottime), tests + 1
    assert tests == 2, "after 30 s, and five minutes later"


def test_three_failures_of_a_bad_gpu_set_it_aside() -> None:
    known = health(fast_failures=3)
    assert is_test(only(gpu(), known))
    verdict = judge_test(known, gpu(), is_good=False, trouble="wrong sums")
    assert verdict == SetAsideGpu(gpu="GPU-0", reason="its test failed: wrong sums")


# ─── a test needs the GPU for itself ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("card", "leases"),
    [
        (gpu(), [lease(0, 7)]),
        (gpu(), [lease(0, 7, "2G")]),
        (gpu(), [lease(0, 7, cooling_since=900.0)]),
        (gpu(), [lease(0, 7, cooling_since=900.0, dirt="python 1")]),
        (gpu(processes=[foreign()]), []),
        (gpu(used="5G"), []),
        (gpu(calm_samples=1), []),
        (gpu(locked_by="held by another gpuq daemon"), []),
        (gpu(fault="cannot be read"), []),
    ],
    ids=[
        *("a job", "a job that shares", "cooling", "dirty", "a stranger", "memory in use"),
        *("not known to be free", "locked", "not readable"),
    ],
)
@pytest.mark.parametrize(
    "known",
    [
        health(fast_failures=9),
        health(test_wished_by="ann"),
        aside(tried_at=0.0),
        aside(resume=ResumeWish(actor="ann")),
    ],
    ids=["failures", "asked", "set aside", "resumed"],
)
def test_a_gpu_in_use_is_not_tested(card: Gpu, leases: list[Lease], known: GpuHealth) -> None:
    assert not is_test(only(card, known, leases=leases))
    assert is_test(only(gpu(), known))


def test_a_gpu_that_the_settings_keep_from_gpuq_is_not_tested() -> None:
    assert only(gpu(), health(test_wished_by="ann"), deny_gpus=("0",)) is None


def test_nothing_is_tested_while_the_driver_does_not_answer() -> None:
    assert only(gpu(), health(fast_failures=3), trouble="the driver does not answer") is None


def test_nothing_is_started_on_a_gpu_that_is_tested_or_set_aside_in_the_same_turn() -> None:
    failing, broken = health(0, fast_failures=3), gpu(1, defect="rows")
    seen = ward([gpu(0), broken, gpu(2)], [failing], jobs=[job(), job(), job()])
    made = plan(seen)
    assert [type(one) for one in made.decisions] == [decisions.TestGpu, SetAsideGpu, Start]
    assert [one.gpus for one in made.decisions if isinstance(one, Start)] == [("GPU-2",)]
    assert made.reasons[2] == (
        "wants 1 GPU, 0 free (in use by job 1; GPU 0 being tested: 3 jobs in a row failed within 30 s"
        " on it; GPU 1 set aside: rows)"
    )


def test_a_gpu_is_tested_once_the_last_job_on_it_is_cool() -> None:
    """Before the next one gets it."""
    held = [lease(0, 7, cooling_since=900.0)]
    seen = ward([gpu()], [health(fast_failures=3)], held, jobs=[job()], read_at=950.0)
    assert [type(one) for one in plan(seen).decisions] == [decisions.Release, decisions.TestGpu]


def test_a_gpu_under_test_is_not_tested_again() -> None:
    busy = {"under_test": "asked by ann"}
    for known in (health(fast_failures=9, **busy), aside(tried_at=0.0, **busy)):
        assert only(gpu(), known) is None


# ─── how it comes back ───────────────────────────────────────────────────────────────────────────


def test_a_gpu_that_is_set_aside_is_tested_ever_more_rarely() -> None:
    waits = [retest_at(aside(failed_tests=failed)) - NOW for failed in range(8)]
    assert [wait / MINUTE_S for wait in waits] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert retest_at(aside(failed_tests=10**6)) == NOW + 30 * MINUTE_S
    decisions, deadlines = plan_health(ward([gpu()], [aside()]))
    assert (decisions, deadlines) == ([], [NOW + MINUTE_S])
    assert is_test(only(gpu(), aside(tried_at=NOW - MINUTE_S)))


def test_a_good_test_gives_it_out_again() -> None:
    verdict = judge_test(aside(), gpu(), is_good=True, trouble=None)
    assert verdict == Readmit(gpu="GPU-0", why="its test was good")


def test_a_bad_test_and_one_that_could_not_be_made_change_nothing() -> None:
    assert judge_test(aside(), gpu(), is_good=False, trouble="wrong sums") is None
    assert judge_test(aside(), gpu(), is_good=False, trouble=None) is None
    assert judge_test(health(), gpu(), is_good=False, trouble=None) is None


def test_what_lasts_outlasts_good_tests() -> None:
    lasting = aside(is_lasting=True, tried_at=0.0)
    assert only(gpu(), lasting) is None
    assert judge_test(lasting, gpu(), is_good=True, trouble=None) is None
    assert is_test(only(gpu(), replace(lasting, is_lasting=False))), "once the machine is restarted"


def test_what_the_driver_goes_on_saying_no_test_takes_back() -> None:
    bad = gpu(defect="rows")
    assert only(bad, aside(tried_at=0.0)) is None
    assert judge_test(aside(), bad, is_good=True, trouble=None) is None
    assert judge_test(aside(), None, is_good=True, trouble=None) is not None


@pytest.mark.parametrize("known", [aside(), aside(is_lasting=True)], ids=["it", "what lasts"])
def test_who_resumes_a_gpu_has_it_tested_at_once(known: GpuHealth) -> None:
    wished = replace(known, resume=ResumeWish(actor="ann"))
    bad = gpu(defect="rows")
    assert only(gpu(), wished) == decisions.TestGpu(gpu="GPU-0", why="resumed by ann")
    assert is_test(only(bad, wished))
    good = judge_test(wished, bad, is_good=True, trouble=None)
    assert good == Readmit(gpu="GPU-0", why="its test was good; resumed by ann", accepts="rows")
    assert judge_test(wished, gpu(), is_good=False, trouble="wrong sums") is None


def test_who_resumes_a_gpu_without_a_test_answers_for_it() -> None:
    wished = aside(is_lasting=True, resume=ResumeWish(actor="ann", untested=True))
    given = only(gpu(defect="rows"), wished)
    assert given == Readmit(gpu="GPU-0", why="resumed by ann without a test", accepts="rows")
    assert only(gpu(**LOST), wished) is None, "nobody can use a GPU that is not there"
    assert only(gpu(), replace(wished, under_test="asked by bob")) is None


def test_a_gpu_that_somebody_works_on_is_tested_only_if_asked() -> None:
    for known in (aside(tried_at=0.0), health(fast_failures=9)):
        assert only(gpu(), replace(known, drain=BOB)) is None
    assert is_test(only(gpu(), health(drain=BOB, test_wished_by="bob")))


# ─── what people see ─────────────────────────────────────────────────────────────────────────────


def barred(known: GpuHealth, card: Gpu | None = None, **settings: bool) -> Bar | None:
    return bar_of(card or gpu(), known, Policy(**settings))  # type: ignore[arg-type]


def test_a_gpu_says_why_it_is_given_to_nobody() -> None:
    assert barred(health()) is None
    drained, quarantined = GpuState.DRAINED, GpuState.QUARANTINED
    assert barred(health(drain=BOB)) == Bar(state=drained, reason="drained by bob: new fan")
    assert barred(aside(quarantine="XID 79")) == Bar(state=quarantined, reason="set aside: XID 79")
    both = barred(aside(quarantine="XID 79", drain=BOB))
    assert both == Bar(state=drained, reason="drained by bob: new fan; set aside: XID 79")
    tested = barred(aside(under_test="asked by ann", drain=BOB))
    assert tested == Bar(state=quarantined, reason="being tested: asked by ann")


def test_a_warning_keeps_a_gpu_from_jobs_only_where_the_settings_say_so() -> None:
    card = gpu(warnings=("a reset is due", "ECC is off"))
    assert barred(health(), card) is None
    strict = barred(health(), card, strict_health=True)
    assert strict is not None
    assert strict.state is GpuState.QUARANTINED
    assert strict.reason == "set aside: a reset is due; ECC is off (strict_health)"
    assert barred(health(), gpu(), strict_health=True) is None, "it ends with the warning"


# ─── lived through ───────────────────────────────────────────────────────────────────────────────

GPUS = 3
SETTLED = 6  # turns without news, after which nothing more may be decided


class Ward(RuleBasedStateMachine):
    """GPUs to which everything happens; what is decided is done as the daemon does it, and held against
    what may be done."""

    @initialize()
    def begin(self) -> None:
        self.boottime = NOW
        self.cards = {uuid(index): gpu(index) for index in range(GPUS)}
        self.known = {name: GpuHealth(gpu=name) for name in self.cards}
        self.leases: list[Lease] = []
        self.jobs = 0
        self.turn()

    # ── news ──

    names = st.sampled_from([uuid(index) for index in range(GPUS)])

    @rule(name=names, xid=st.sampled_from([13, 31, 48, 79]))
    def driver_tells(self, name: str, xid: int) -> None:
        if self.known[name].quarantine is None:
            self.see(name, xids=(xid,))

    @rule(name=names, says=st.sampled_from([None, "3 rows", "4 rows"]))
    def defect(self, name: str, says: str | None) -> None:
        self.see(name, defect=says)

    @rule(name=names, lasting=st.booleans())
    def vanishes(self, name: str, lasting: bool) -> None:
        self.see(name, fault="is lost", is_lasting=lasting)

    @rule(name=names)
    def comes_back(self, name: str) -> None:
        self.see(name, fault=None, is_lasting=False)

    @rule(name=names, there=st.booleans())
    def stranger(self, name: str, there: bool) -> None:
        self.see(name, processes=(foreign(),) if there else ())

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 9), outcome=st.sampled_from(Outcome), ran_s=st.sampled_from([1, 99]))
    def job_ends(self, pick: int, outcome: Outcome, ran_s: float) -> None:
        ended = self.leases.pop(pick % len(self.leases))
        against = speaks_against_gpu(outcome, Exit(exit_code=1), ran_s, POLICY)
        if against is not None:
            failures = self.known[ended.gpu].fast_failures + 1 if against else 0
            self.hold(ended.gpu, fast_failures=failures)
        self.turn()

    @rule(minutes=st.sampled_from([0.5, 1, 5, 30]))
    def time_passes(self, minutes: float) -> None:
        self.boottime += minutes * MINUTE_S
        self.turn()

    @rule(name=names, on=st.booleans())
    def drain(self, name: str, on: bool) -> None:
        self.hold(name, drain=BOB if on else None)
        self.turn()

    @rule(name=names, untested=st.booleans())
    def resume(self, name: str, untested: bool) -> None:
        self.hold(name, drain=None)
        if self.known[name].quarantine is not None:
            self.hold(name, resume=ResumeWish(actor="ann", untested=untested))
        self.turn()

    @rule(name=names)
    def ask_for_a_test(self, name: str) -> None:
        self.hold(name, test_wished_by="ann")
        self.turn()

    @precondition(lambda self: any(one.under_test for one in self.known.values()))
    @rule(pick=st.integers(0, 9), verdict=st.sampled_from(["good", "bad", "undecided"]))
    def test_ends(self, pick: int, verdict: str) -> None:
        tested = [one for one in self.known.values() if one.under_test is not None]
        before = tested[pick % len(tested)]
        trouble = "wrong sums" if verdict == "bad" else None
        card = self.cards[before.gpu]
        follows = judge_test(before, card, is_good=verdict == "good", trouble=trouble)
        failed = before.failed_tests + 1 if trouble else 0
        self.hold(before.gpu, failed_tests=failed, fast_failures=0, resume=None)
        self.hold(before.gpu, under_test=None, tried_at=self.boottime)
        if isinstance(follows, Readmit):
            assert verdict == "good", "never readmitted without a good test or a person's word"
            assert not before.is_lasting or before.resume is not None
        if isinstance(follows, SetAsideGpu):
            assert verdict == "bad"
        if follows is not None:
            self.note(follows)
        self.turn()

    # ── turns ──

    def turn(self) -> None:
        for _ in range(SETTLED):
            jobs = [job(id=self.jobs + 1), job(id=self.jobs + 2)]
            seen = ward(list(self.seen()), list(self.known.values()), self.leases, jobs=jobs)
            made = plan(replace(seen, boottime=self.boottime)).decisions
            before = dict(self.known)
            for decision in made:
                self.carry_out(decision, before)
            for name in self.known:
                self.hold(name, test_wished_by=None)
            if not made:
                return
        raise AssertionError(f"it never comes to rest: {made}")

    def seen(self) -> list[Gpu]:
        bars = {name: bar_of(self.cards[name], self.known[name], POLICY) for name in self.cards}
        return [replace(card, bar=bars[name]) for name, card in self.cards.items()]

    def carry_out(self, decision: Decision, before: dict[str, GpuHealth]) -> None:
        match decision:
            case Start():
                (name,) = decision.gpus
                known = self.known[name]  # as it is by now: tests come before starts
                assert known.under_test is None, "a job meets a test"
                assert known.quarantine is None
                assert known.drain is None
                self.jobs += 1
                self.leases.append(
                    Lease(gpu=name, slot=0, job=decision.job, attempt=1, exclusive=True)
                )
            case decisions.TestGpu():
                self.may_test(decision.gpu)
                self.hold(decision.gpu, under_test=decision.why)
            case SetAsideGpu():
                card = self.cards[decision.gpu]
                own = set(card.xids) - set(OF_APPLICATIONS)
                lost = card.fault is not None and card.is_lasting
                assert lost or own or card.defect is not None, "nothing else sets a GPU aside"
                self.note(decision)
            case Readmit():
                wish = before[decision.gpu].resume
                assert wish is not None, "a person's word, since no test has ended just now"
                assert wish.untested
                self.note(decision)
            case other:
                raise AssertionError(other)

    def may_test(self, name: str) -> None:
        card, known = self.cards[name], self.known[name]
        assert known.under_test is None
        assert card.fault is None
        assert not card.processes, "somebody is on it"
        assert name not in {held.gpu for held in self.leases}, "a job has it"

    def note(self, decision: SetAsideGpu | Readmit) -> None:
        if isinstance(decision, SetAsideGpu):
            self.hold(
                decision.gpu,
                quarantine=decision.reason,
                is_lasting=decision.is_lasting,
                accepted=None,
                failed_tests=0,
                tried_at=self.boottime,
            )
        else:
            self.hold(decision.gpu, quarantine=None, is_lasting=False, resume=None)
            self.hold(decision.gpu, accepted=decision.accepts, fast_failures=0)
        self.cards[decision.gpu] = replace(self.cards[decision.gpu], xids=())

    def hold(self, name: str, **more: object) -> None:
        self.known[name] = replace(self.known[name], **more)  # type: ignore[arg-type]

    def see(self, name: str, **more: object) -> None:
        self.cards[name] = replace(self.cards[name], **more)  # type: ignore[arg-type]
        self.turn()

    @invariant()
    def a_gpu_that_is_not_well_is_given_to_nobody(self) -> None:
        """And one that is well and free has been given away, since somebody always waits."""
        for name, card in self.cards.items():
            known = self.known[name]
            if card.defect is not None and known.accepted != card.defect:
                assert known.quarantine is not None
            free = card.fault is None and not card.processes and known == GpuHealth(gpu=name)
            if free and name not in {held.gpu for held in self.leases}:
                raise AssertionError(f"{name} is free, and jobs wait")


TestWard = Ward.TestCase
TestWard.settings = STEADY
