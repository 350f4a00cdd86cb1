from dataclasses import replace

from gpuq.core.decisions import CountWait, FallBack
from gpuq.core.model import Limit, LimitKind, Snapshot, WaitingJob
from gpuq.core.scheduling.fallback import on_cpu
from gpuq.core.scheduling.scheduler import plan
from tests.builders import active, gpu, job, lease, request, started, world

NOW = 1000.0


def patient(
    gpus: int = 1, *, after_s: float = 600.0, since: float | None = NOW - 600, **more: object
) -> WaitingJob:
    """A job that waits so long for its GPUs, and has done so since then."""
    asked = job(gpus, **more)  # type: ignore[arg-type]
    request = replace(asked.request, cpu_after_s=after_s)
    return replace(asked, request=request, gpu_wait_since=since)


def busy(*jobs: WaitingJob, cpu_slots: int = 8, **more: object) -> Snapshot:
    """The only GPU is taken by job 90."""
    return world(
        gpus=1,
        jobs=jobs,
        leases=[lease(0, 90)],
        active=[active(90)],
        now=NOW,
        cpu_slots=cpu_slots,
        **more,  # type: ignore[arg-type]
    )


def fallen(snapshot: Snapshot) -> list[int]:
    return [one.job for one in plan(snapshot).decisions if isinstance(one, FallBack)]


def test_a_job_turns_to_the_cpu_when_it_has_waited_so_long() -> None:
    assert fallen(busy(patient())) == [1]


def test_before_that_it_waits_and_the_moment_is_named() -> None:
    decided = plan(busy(patient(since=NOW - 599)))
    assert not [one for one in decided.decisions if isinstance(one, FallBack)]
    assert decided.wake_at == NOW + 1


def test_nobody_turns_to_the_cpu_who_did_not_ask_for_that() -> None:
    assert fallen(busy(job(), replace(job(), gpu_wait_since=0.0))) == []


def test_a_gpu_that_is_free_by_then_is_taken() -> None:
    decided = plan(world(gpus=1, jobs=[patient()], now=NOW))
    assert started(decided) == {1: (0,)}
    assert not [one for one in decided.decisions if isinstance(one, FallBack)]


def test_whoever_has_no_room_on_the_cpu_either_keeps_its_claim() -> None:
    taken = active(91, gpus=0, cpus=8)
    full = busy(patient())
    full = replace(full, active=(*full.active, taken))
    assert fallen(full) == []
    assert plan(full).wake_at is None  # an end is news


def test_of_many_so_many_turn_to_the_cpu_as_it_has_room_for() -> None:
    jobs = [patient(cpus=3) for _ in range(6)]
    assert fallen(busy(*jobs)) == [1, 2]


def test_who_came_later_does_not_turn_to_the_cpu_sooner() -> None:
    early, late = patient(since=NOW - 700), patient(since=NOW - 500)
    assert fallen(busy(early, late)) == [1]


def test_one_that_waits_behind_a_younger_one_of_its_class_turns_to_the_cpu_in_time() -> None:
    younger, older = patient(since=NOW - 5, priority=10), patient(since=NOW - 700)
    assert fallen(busy(younger, older)) == [2]


def test_the_reason_says_what_it_waited_for() -> None:
    (one,) = [d for d in plan(busy(patient(2))).decisions if isinstance(d, FallBack)]
    assert "wants 2 GPUs" in one.why


def test_the_reason_of_one_that_waits_says_what_comes_then() -> None:
    reason = plan(busy(patient(since=NOW - 10, cpus=2))).reasons[1]
    assert reason.endswith("after 10:00 of waiting it takes 2 CPU slots instead")


def test_while_nothing_is_started_nobody_turns_to_the_cpu() -> None:
    decided = plan(busy(patient(), drain="a riser swap"))
    assert not [one for one in decided.decisions if isinstance(one, FallBack)]
    assert decided.wake_at is None


def test_before_the_first_reading_nobody_turns_to_the_cpu() -> None:
    assert fallen(world(gpus=None, jobs=[patient()], now=NOW)) == []


def test_a_driver_that_does_not_answer_is_a_reason_to_turn_to_the_cpu() -> None:
    broken = world(gpus=None, jobs=[patient()], now=NOW, trouble="the driver does not answer")
    assert fallen(broken) == [1]


def test_who_would_wait_for_a_limit_on_the_cpu_too_stays() -> None:
    limit = Limit(kind=LimitKind.USER, name="", max_running=1, actor="bob")
    assert fallen(replace(busy(patient()), limits=(limit,))) == []


def test_who_waits_for_a_limit_of_gpus_turns_to_the_cpu() -> None:
    limit = Limit(kind=LimitKind.USER, name="", max_gpus=1, actor="bob")
    two = (gpu(0), gpu(1))
    assert fallen(replace(busy(patient()), limits=(limit,), gpus=two)) == [1]


def test_whose_wait_has_just_begun_is_noted_unless_it_starts_now() -> None:
    snapshot = replace(world(gpus=1, jobs=[patient(since=None)] * 2, now=NOW), to_clock=(1, 2))
    noted = [one.job for one in plan(snapshot).decisions if isinstance(one, CountWait)]
    assert noted == [2]


def test_on_the_cpu_nothing_is_left_of_what_was_asked_of_gpus() -> None:
    asked = request(2, "8G", model="H100", cpus=4, max_util=50, gpu_ids=("GPU-1",))
    now = on_cpu(replace(asked, cpu_after_s=60.0, lasts_s=30.0), time_limit_s=900.0)
    assert now == replace(request(0, cpus=4), lasts_s=900.0)
    assert now.cpu_slots == 4


def test_a_hundred_thousand_that_wait_so_cost_what_is_seen_of_them() -> None:
    def considered(count: int) -> int:
        jobs = [patient(since=NOW - 5) for _ in range(count)]
        return len(plan(busy(*jobs, per_class=16)).reasons)

    assert considered(100) == considered(2000)
