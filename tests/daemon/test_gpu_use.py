"""What jobs make of their GPUs is measured, written down and told, once and to the right ones."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.decisions import Plan
from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.core.gpus.learned import Known
from gpuq.core.gpus.usage import LONGEST_STRETCH_S, GpuUse
from gpuq.core.model import EndCause, Exit, Lease, Outcome, Request
from gpuq.core.policy import OverMemory, Policy
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.chronicle import Chronicle
from gpuq.daemon.clock import Clock
from gpuq.daemon.requests.views import attempt_view, job_view
from gpuq.daemon.store import Store
from gpuq.daemon.store import learned as learned_store
from gpuq.daemon.supervisor import Exited
from gpuq.daemon.usage import MOST_CONTENDERS, Usage
from gpuq.daemon.watchers import Watchers
from tests import stored
from tests.alive import Alive, alive, shown_by_hand, with_alive
from tests.builders import GIB, foreign, gpu, ours
from tests.stored import BOB, MONO, NOW, full, lease, row, run, start, submit_one

SETTLE_S = Policy().settle_s
IDLE_S = Policy().idle_job_s


class MovableClock(Clock):
    def __init__(self) -> None:
        self.after_s = 0.0

    def wall(self) -> float:
        return NOW + self.after_s

    def monotonic(self) -> float:
        return MONO + self.after_s

    def boottime(self) -> float:
        return self.monotonic()


class Desk:
    """A daemon's eyes and its pen, and a clock that the test moves."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = MovableClock()
        self.policy = Policy()
        self.told = 0
        self.come_anew()

    def come_anew(self) -> None:
        """Another daemon takes over; it knows what is written down."""
        self.usage = Usage(self.store, lambda: self.policy, self.clock)
        self.gpus: tuple[Gpu, ...] = ()

    def read(self, *gpus: Gpu, after_s: float = 1.0) -> bool:
        self.clock.after_s += after_s
        self.gpus = gpus
        return self.usage.observe(gpus, self.store.current.leases(), self.clock.monotonic())

    def watch(self, *gpus: Gpu, for_s: float, every_s: float = 5.0) -> None:
        for _ in range(round(for_s / every_s)):
            self.read(*gpus, after_s=every_s)

    def runs(self, *leases: tuple[int, str | None], **changes: Any) -> int:
        """A job that has just begun to run, on GPUs by index, each with the share that it asked for;
        None: it has the GPU alone."""
        asked = {name: changes.pop(name) for name in ("argv", "name", "request") if name in changes}
        beside = changes.pop("beside", ())
        job = submit_one(self.store, **asked, **changes)
        held = [_lease(job, index, share) for index, share in leases]
        start(self.store, job, *held, beside=tuple(beside), gpu_indices=tuple(i for i, _ in leases))
        run(self.store, job, mono=self.clock.monotonic())
        return job

    def ends(self, job: int, exit: Exit | None = None) -> dict[str, Any]:
        chronicle = Chronicle(
            self.store,
            self.clock,
            lambda: self.policy,
            Watchers(),
            self,  # type: ignore[arg-type]
            lambda job, attempt: None,
        )
        chronicle.inbox.append(Exited(job=job, attempt=1, exit=exit or Exit(exit_code=0)))
        stored.take_in(self.store, chronicle)
        return row(self.store, job)

    def tell_leases(self) -> None:
        """What a lookout does."""

    def doubt(self, why: str) -> None:
        """What a lookout does."""

    def written(self, job: int) -> dict[str, Any]:
        return self.store.found.attempts(job)[-1]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in stored.events(self.store) if event["kind"] == kind]

    def causes(self, kind: str) -> list[str]:
        return [event["cause"] for event in self.events(kind)]


def _lease(job: int, index: int, share: str | None) -> Lease:
    memory = stored_size(share)
    return lease(job, f"GPU-{index}", exclusive=share is None, memory_bytes=memory)


def stored_size(text: str | None) -> int | None:
    return None if text is None else int(text.removesuffix("G")) * GIB


@pytest.fixture
def desk() -> Iterator[Desk]:
    with closing(Store(":memory:")) as store:
        desk = Desk(stored.with_gpus(store))
        desk.read(gpu(0), gpu(1))
        yield desk


def busy(job: int, index: int = 0, mem: str = "3G", percent: int = 80, **changes: Any) -> Gpu:
    changes = {"processes": [ours(job, mem)], "power_w": 300.0} | changes
    return gpu(index, utilization_percent=percent, **changes)


# ─── measured ────────────────────────────────────────────────────────────────────────────────────


def test_what_a_job_makes_of_its_gpu_is_measured_reading_by_reading(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(busy(job, mem="3G", percent=40), gpu(1))
    desk.read(busy(job, mem="6G", percent=100), gpu(1), after_s=3.0)
    desk.read(busy(job, mem="5G", percent=100), gpu(1, utilization_percent=50))
    assert desk.usage.of(job, 1) == GpuUse(
        measured_s=5.0,
        peak_bytes=6 * GIB,
        util_mean=(40 + 4 * 100) / 5,
        util_peak=100,
        energy_j=5 * 300.0,
    )


def test_a_job_on_two_gpus_has_the_larger_peak_and_the_energy_of_both(desk: Desk) -> None:
    job = desk.runs((0, None), (1, None))
    desk.read(busy(job, 0, "3G", 100), busy(job, 1, "4G", 50, power_w=100.0), after_s=2.0)
    use = desk.usage.of(job, 1)
    assert (use.peak_bytes, use.util_mean, use.util_peak) == (4 * GIB, 75.0, 100)
    assert use.energy_j == 2 * (300.0 + 100.0)


def test_the_energy_of_a_shared_gpu_is_divided_among_its_jobs(desk: Desk) -> None:
    one, two = desk.runs((0, "6G")), desk.runs((0, "6G"))
    both = gpu(0, processes=[ours(one, "1G"), ours(two, "2G")], energy_j=1000.0)
    desk.read(both, gpu(1))
    desk.read(replace(both, energy_j=1600.0), gpu(1), after_s=2.0)
    assert desk.usage.of(one, 1).energy_j == desk.usage.of(two, 1).energy_j == 300.0
    assert desk.usage.of(one, 1).peak_bytes == GIB
    assert desk.usage.of(two, 1).peak_bytes == 2 * GIB


def test_a_job_answers_for_no_time_before_its_start(desk: Desk) -> None:
    desk.read(gpu(0, energy_j=0.0), gpu(1))
    desk.clock.after_s += 3.0
    job = desk.runs((0, None))
    desk.read(busy(job, energy_j=1000.0), gpu(1), after_s=1.0)
    use = desk.usage.of(job, 1)
    assert (use.measured_s, use.energy_j) == (1.0, 250.0)


def test_a_job_has_what_its_gpu_drew_between_the_last_reading_and_its_end(desk: Desk) -> None:
    job = desk.runs((0, None))
    for second in range(4):
        desk.read(busy(job, power_w=700.0, energy_j=700.0 * second), gpu(1))
    measured = desk.usage.latest(job, 1)
    desk.clock.after_s += 0.5
    assert desk.ends(job)["gpu_energy_j"] == 700.0 + 3 * 700.0 + 350.0
    assert measured is not None
    ended = desk.written(job)
    assert ended["gpu_measured_s"] == measured.measured_s, "how busy it was, nobody knows"
    shown_now = desk.usage.latest(job, 1)
    assert shown_now is not None
    assert shown_now.energy_j == ended["gpu_energy_j"]


def test_of_a_shared_gpu_each_has_its_share_also_at_the_end(desk: Desk) -> None:
    one, two = desk.runs((0, "6G")), desk.runs((0, "6G"))
    desk.read(gpu(0, processes=[ours(one, "1G"), ours(two, "2G")], power_w=300.0), gpu(1))
    desk.clock.after_s += 1.0
    assert desk.ends(one)["gpu_energy_j"] == 150.0 + 150.0


def test_what_a_gpu_draws_is_not_taken_to_go_on_for_ever(desk: Desk) -> None:
    """As where its driver says nothing more, and the job on it ends an hour later."""
    job = desk.runs((0, None))
    desk.read(busy(job), gpu(1))
    desk.clock.after_s += 3600.0
    assert desk.ends(job)["gpu_energy_j"] == 300.0 * (1.0 + LONGEST_STRETCH_S)


def test_a_pause_lowers_no_mean(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(busy(job, percent=80), gpu(1))
    desk.store.happened.pause(job, 1, mono=desk.clock.monotonic(), now=NOW)
    desk.watch(busy(job, percent=0), gpu(1), for_s=100.0)
    use = desk.usage.of(job, 1)
    assert (use.util_mean, use.measured_s, use.energy_j) == (80.0, 1.0, 101 * 300.0)


def test_a_gpu_that_cannot_be_read_says_nothing_of_its_job(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(gpu(0, fault="has fallen off the bus"), gpu(1))
    assert desk.usage.of(job, 1) == GpuUse()


def test_while_nothing_runs_nothing_is_written_and_nobody_is_asked(desk: Desk) -> None:
    statements: list[str] = []
    job = desk.runs((0, None))
    desk.ends(job)
    desk.store.database._db.trace_v2(1, lambda event: statements.append(event["sql"]))
    before = stored.count(desk.store, "events")
    desk.watch(gpu(0), gpu(1), for_s=300.0)
    # Who gives way is asked with the leases, of which there are none.
    others = [sql for sql in statements if "gives_way_to" not in sql]
    assert not [sql for sql in others if "attempts" in sql]
    assert stored.count(desk.store, "events") == before


def test_what_runs_is_written_down_once_a_minute_and_all_in_one_commit(desk: Desk) -> None:
    one, two = desk.runs((0, None)), desk.runs((1, None))
    commits: list[float] = []

    def note_commit() -> bool:
        commits.append(desk.clock.after_s)
        return False

    desk.store.database._db.set_commit_hook(note_commit)
    desk.watch(busy(one, 0), busy(two, 1), for_s=180.0)
    assert commits == [6.0, 61.0, 121.0, 181.0], "at first the peaks, of which nothing was known"
    written = desk.written(one)
    assert written["gpu_peak_bytes"] == 3 * GIB
    assert written["gpu_util_mean"] == 80.0
    assert desk.usage.of(two, 1).measured_s - desk.written(two)["gpu_measured_s"] < 60.0


def test_a_peak_that_has_grown_is_written_down_soon_and_one_that_has_hardly_is_not(
    desk: Desk,
) -> None:
    job = desk.runs((0, None))
    desk.watch(busy(job, mem="3G"), gpu(1), for_s=5.0)
    assert desk.written(job)["gpu_peak_bytes"] == 3 * GIB
    desk.read(busy(job, mem="6G"), gpu(1))
    assert desk.written(job)["gpu_peak_bytes"] == 3 * GIB, "no commit for each of many readings"
    desk.watch(busy(job, mem="6G"), gpu(1), for_s=5.0)
    assert desk.written(job)["gpu_peak_bytes"] == 6 * GIB
    desk.watch(busy(job, mem="6.2G"), gpu(1), for_s=30.0)
    assert desk.written(job)["gpu_peak_bytes"] == 6 * GIB


def test_a_daemon_that_leaves_writes_down_what_it_has_measured_of_those_that_go_on(
    desk: Desk,
) -> None:
    job, over = desk.runs((0, None)), desk.runs((1, None))
    desk.read(busy(job, mem="3G"), busy(over, 1, "4G"))
    desk.clock.after_s += 2.0
    ended = desk.ends(over)
    desk.usage.flush()
    assert desk.written(job)["gpu_peak_bytes"] == 3 * GIB
    assert desk.written(job)["gpu_measured_s"] == 1.0
    assert row(desk.store, over) == ended, "an end is written once"


def test_a_daemon_leaves_though_nothing_can_be_written(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(busy(job), gpu(1))
    with full(desk.store):
        desk.usage.flush()
    desk.usage.flush()
    assert desk.written(job)["gpu_peak_bytes"] == 3 * GIB


def test_a_daemon_that_comes_anew_goes_on_with_what_is_written_down(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(busy(job, mem="6G", percent=100), gpu(1), for_s=60.0)
    desk.clock.after_s += 600.0
    desk.come_anew()
    desk.read(busy(job, percent=0), gpu(1))
    assert desk.usage.of(job, 1).measured_s == 60.0, "nobody saw what was meanwhile"
    desk.watch(busy(job, percent=0), gpu(1), for_s=60.0)
    use = desk.usage.of(job, 1)
    assert (use.measured_s, use.peak_bytes) == (120.0, 6 * GIB)
    assert use.util_mean == pytest.approx(50.0)
    assert use.energy_j == 120 * 300.0


def test_a_driver_that_was_silent_for_long_makes_no_long_reading(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(busy(job, percent=100), gpu(1), after_s=600.0)
    assert desk.usage.of(job, 1).measured_s == 15.0


# ─── its end ─────────────────────────────────────────────────────────────────────────────────────


def test_what_was_measured_is_written_with_the_end_in_the_same_commit(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.read(busy(job), gpu(1))
    commits: list[int] = []

    def note_commit() -> bool:
        commits.append(1)
        return False

    desk.store.database._db.set_commit_hook(note_commit)
    desk.ends(job)
    assert len(commits) == 1
    written = desk.written(job)
    assert (written["gpu_peak_bytes"], written["gpu_util_peak"]) == (3 * GIB, 80)
    assert (written["gpu_measured_s"], written["gpu_energy_j"]) == (1.0, 300.0)


def test_an_end_before_any_reading_leaves_what_an_earlier_daemon_wrote(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(busy(job), gpu(1), for_s=60.0)
    desk.come_anew()
    desk.ends(job)
    assert desk.written(job)["gpu_peak_bytes"] == 3 * GIB


def test_of_a_job_that_nobody_saw_nothing_is_known(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.ends(job)
    written = desk.written(job)
    assert {written[name] for name in written if name.startswith("gpu_")} == {None}


def test_who_ran_out_of_gpu_memory_asks_for_more_than_he_was_seen_to_use(desk: Desk) -> None:
    request = Request(gpus=1, gpu_mem_bytes=4 * GIB, exclusive=False)
    job = desk.runs((0, "4G"), request=request, retries=1)
    desk.read(busy(job, mem="8G"), gpu(1))
    view = desk.ends(job, Exit(exit_code=1, told_out_of_memory="no room"))
    assert '"gpu_mem_bytes": 10737418240' in view["request"], "a quarter more than 8G"


# ─── holding a GPU idle ──────────────────────────────────────────────────────────────────────────


def quiet(job: int, index: int = 0, percent: int = 1, **changes: Any) -> Gpu:
    return busy(job, index, percent=percent, **changes)


def test_who_computes_nothing_for_long_is_idle_and_no_longer_once_he_computes(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(quiet(job), gpu(1), for_s=SETTLE_S + IDLE_S - 10.0)
    assert desk.written(job)["idle_since_at"] is None
    desk.watch(quiet(job, percent=0), gpu(1), for_s=10.0)
    (event,) = desk.events("gpu_idle")
    assert (event["job"], event["attempt"], event["gpu"]) == (job, 1, "GPU-0")
    assert event["cause"] == "GPU 0 at 1 % for 10 min"
    assert desk.written(job)["idle_since_at"] == desk.clock.wall() - IDLE_S
    desk.watch(quiet(job), gpu(1), for_s=2 * IDLE_S)
    assert len(desk.events("gpu_idle")) == 1, "it is said once"
    desk.read(quiet(job, percent=93), gpu(1))
    assert desk.causes("gpu_used") == ["GPU 0 at 93 %"]
    assert desk.written(job)["idle_since_at"] is None
    desk.watch(quiet(job), gpu(1), for_s=IDLE_S)
    assert len(desk.events("gpu_idle")) == 2


def test_a_moment_of_work_begins_the_time_anew(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(quiet(job), gpu(1), for_s=SETTLE_S + IDLE_S - 30.0)
    desk.read(quiet(job, percent=5), gpu(1), after_s=5.0)
    desk.watch(quiet(job), gpu(1), for_s=IDLE_S - 5.0)
    assert desk.causes("gpu_idle") == []
    desk.read(quiet(job), gpu(1), after_s=5.0)
    assert len(desk.causes("gpu_idle")) == 1


def test_the_settings_say_how_long_and_how_little(desk: Desk) -> None:
    desk.policy = Policy(idle_job_s=30.0, idle_job_percent=20, settle_s=0.0)
    job = desk.runs((0, None))
    desk.watch(quiet(job, percent=19), gpu(1), for_s=35.0)
    assert desk.causes("gpu_idle") == ["GPU 0 at 19 % for 30 s"]


def test_one_busy_gpu_of_several_is_enough(desk: Desk) -> None:
    job = desk.runs((0, None), (1, None))
    desk.watch(quiet(job, 0), busy(job, 1), for_s=2 * IDLE_S)
    assert desk.causes("gpu_idle") == []
    desk.watch(quiet(job, 0, percent=2), quiet(job, 1), for_s=IDLE_S)
    (event,) = desk.events("gpu_idle")
    assert (event["cause"], event["gpu"]) == ("GPUs 0,1 at 2 % for 10 min", None)


def test_a_paused_job_is_not_idle(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(quiet(job), gpu(1), for_s=SETTLE_S + IDLE_S - 30.0)
    desk.store.happened.pause(job, 1, mono=desk.clock.monotonic(), now=NOW)
    desk.watch(quiet(job), gpu(1), for_s=2 * IDLE_S)
    assert desk.causes("gpu_idle") == []
    desk.store.happened.resume(job, 1, mono=desk.clock.monotonic(), now=NOW)
    desk.watch(quiet(job), gpu(1), for_s=IDLE_S - 5.0)
    assert desk.causes("gpu_idle") == [], "it has to be idle for as long again"


def test_nobody_is_called_idle_where_nobody_can_tell(desk: Desk) -> None:
    """An instance of MIG tells no utilisation; a driver that hung tells nothing of that time."""
    job = desk.runs((0, None))
    desk.watch(replace(quiet(job), utilization_percent=None), gpu(1), for_s=2 * IDLE_S)
    desk.read(quiet(job), gpu(1), after_s=2 * IDLE_S)
    assert desk.causes("gpu_idle") == []


def test_a_daemon_that_comes_anew_does_not_say_it_again_and_takes_it_back(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(quiet(job), gpu(1), for_s=SETTLE_S + IDLE_S)
    since_at = desk.written(job)["idle_since_at"]
    desk.come_anew()
    desk.watch(quiet(job), gpu(1), for_s=2 * IDLE_S)
    assert len(desk.causes("gpu_idle")) == 1
    assert desk.written(job)["idle_since_at"] == since_at
    desk.read(busy(job), gpu(1))
    assert desk.causes("gpu_used") == ["GPU 0 at 80 %"]


# ─── others on its GPU ───────────────────────────────────────────────────────────────────────────


def beside(job: int, *strangers: GpuProcess, index: int = 0) -> Gpu:
    return gpu(index, processes=[ours(job), *strangers], utilization_percent=80)


def test_a_stranger_on_the_gpu_of_a_job_is_told_of_once_and_stays_in_its_record(
    desk: Desk,
) -> None:
    job = desk.runs((0, None))
    desk.read(beside(job), gpu(1))
    desk.watch(beside(job, foreign(pid=40121)), gpu(1), for_s=60.0)
    (event,) = desk.events("contended")
    assert (event["job"], event["attempt"], event["gpu"]) == (job, 1, "GPU-0")
    assert event["cause"] == "python 40121 bob on GPU 0"
    written = desk.written(job)
    assert written["contended_by"] == "python 40121 bob on GPU 0"
    first_at = written["contended_at"]
    desk.watch(beside(job), gpu(1), for_s=60.0)
    desk.watch(beside(job, foreign(pid=7)), gpu(1), for_s=60.0)
    assert desk.causes("contended")[1:] == ["python 7 bob on GPU 0"]
    written = desk.written(job)
    assert (written["contended_at"], written["contended_by"]) == (
        first_at,
        "python 40121 bob on GPU 0",
    )


def test_a_job_that_computes_where_it_should_not_is_told_of_once(desk: Desk) -> None:
    """As one whose script sets CUDA_VISIBLE_DEVICES itself."""
    job = desk.runs((0, None))
    own = gpu(0, processes=[ours(job)])
    desk.read(own, gpu(1, processes=[ours(job + 1)]))
    assert desk.events("astray") == []
    for _ in range(3):
        desk.read(own, gpu(1, processes=[ours(job)]))
    (told,) = desk.events("astray")
    assert (told["job"], told["gpu"]) == (job, "GPU-1")
    assert told["cause"] == f"train {1000 + job} ann of it is on GPU 1, which it was not given"


def test_the_same_stranger_is_not_told_of_by_the_next_daemon_again(desk: Desk) -> None:
    job = desk.runs((0, None), (1, None))
    there = [beside(job, foreign(pid=40121), index=index) for index in (0, 1)]
    desk.read(*there)
    desk.come_anew()
    desk.watch(*there, for_s=60.0)
    assert len(desk.events("contended")) == 1


def test_who_was_there_when_a_sharing_job_was_started_does_not_contend_with_it(desk: Desk) -> None:
    job = desk.runs((0, "6G"), beside=[40121])
    there = beside(job, foreign(pid=40121))
    desk.watch(there, gpu(1), for_s=60.0)
    desk.come_anew()
    desk.watch(there, gpu(1), for_s=60.0)
    assert desk.events("contended") == []
    desk.read(beside(job, foreign(pid=40121), foreign(pid=7)), gpu(1))
    assert desk.causes("contended") == ["python 7 bob on GPU 0"]


def test_a_pid_that_was_there_at_the_start_and_left_is_another_process_when_it_comes_again(
    desk: Desk,
) -> None:
    job = desk.runs((0, "6G"), beside=[40121])
    desk.read(beside(job, foreign(pid=40121)), gpu(1))
    desk.read(gpu(0, processes=None), gpu(1))
    desk.read(beside(job, foreign(pid=40121)), gpu(1))
    assert desk.events("contended") == [], "it was only out of sight"
    desk.read(beside(job), gpu(1))
    desk.read(beside(job, foreign(pid=40121)), gpu(1))
    assert len(desk.events("contended")) == 1


def test_a_loop_of_short_programs_does_not_fill_the_history(desk: Desk) -> None:
    job = desk.runs((0, None))
    for pid in range(100, 200):
        desk.read(beside(job, foreign(pid=pid)), gpu(1))
    assert len(desk.events("contended")) == MOST_CONTENDERS


def test_another_daemon_on_its_gpu_is_told_of(desk: Desk) -> None:
    job = desk.runs((0, None))
    held = replace(beside(job), locked_by="held by another gpuq daemon (pid 77, bob)")
    desk.read(held, gpu(1))
    desk.read(held, gpu(1))
    assert desk.causes("contended") == ["GPU 0 is held by another gpuq daemon (pid 77, bob)"]


# ─── more memory than it asked for ───────────────────────────────────────────────────────────────

WORDS = "it used 7.1G of GPU 0 and asked for 6G"
A_TENTH_OVER = "7270M"


def test_who_uses_more_of_a_shared_gpu_than_he_asked_for_is_told_of_once(desk: Desk) -> None:
    job = desk.runs((0, "6G"))
    desk.read(busy(job, mem="6G"), gpu(1))
    assert not desk.read(busy(job, mem=A_TENTH_OVER), gpu(1)), "a warning ends nobody"
    (event,) = desk.events("over_memory")
    assert (event["job"], event["gpu"], event["cause"]) == (job, "GPU-0", WORDS)
    assert desk.written(job)["over_memory"] == WORDS
    assert desk.written(job)["gpu_peak_bytes"] == 7270 * 2**20
    desk.watch(busy(job, mem="7500M"), gpu(1), for_s=60.0)
    desk.come_anew()
    desk.watch(busy(job, mem="7500M"), gpu(1), for_s=60.0)
    assert len(desk.events("over_memory")) == 1


def test_it_is_told_again_when_it_has_grown_by_a_tenth(desk: Desk) -> None:
    job = desk.runs((0, "6G"))
    desk.read(busy(job, mem="7G"), gpu(1))
    desk.read(busy(job, mem="7800M"), gpu(1))
    desk.read(busy(job, mem="8G"), gpu(1))
    assert desk.causes("over_memory")[1:] == ["it used 8G of GPU 0 and asked for 6G"]
    assert desk.written(job)["over_memory"] == "it used 8G of GPU 0 and asked for 6G"


def test_only_where_it_is_wanted_does_anything_follow(desk: Desk) -> None:
    desk.policy = Policy(over_memory=OverMemory.NOTHING)
    job = desk.runs((0, "6G"))
    assert not desk.read(busy(job, mem="8G"), gpu(1))
    assert desk.events("over_memory") == []
    desk.policy = Policy(over_memory=OverMemory.END)
    assert desk.read(busy(job, mem="8G"), gpu(1))
    assert desk.usage.over_memory(job, 1) == "it used 8G of GPU 0 and asked for 6G"
    assert desk.written(job)["over_memory"] == "it used 8G of GPU 0 and asked for 6G"


def test_what_counts_is_what_it_uses_now(desk: Desk) -> None:
    """A job that was warned and uses less since is not ended for it when the settings change."""
    job = desk.runs((0, "6G"))
    desk.read(busy(job, mem="8G"), gpu(1))
    desk.read(busy(job, mem="5G"), gpu(1))
    desk.policy = Policy(over_memory=OverMemory.END)
    assert not desk.read(busy(job, mem="5G"), gpu(1))
    assert desk.usage.over_memory(job, 1) is None
    assert desk.written(job)["over_memory"] is not None, "it stays in its record"


def test_who_has_the_gpu_alone_may_use_all_of_it(desk: Desk) -> None:
    desk.policy = Policy(over_memory=OverMemory.END)
    job = desk.runs((0, None))
    assert not desk.read(busy(job, mem="23G"), gpu(1))
    assert desk.usage.over_memory(job, 1) is None


# ─── a full disk ─────────────────────────────────────────────────────────────────────────────────


def test_what_a_full_disk_refuses_is_told_once_there_is_room(desk: Desk) -> None:
    job = desk.runs((0, "6G"))
    there = busy(job, mem="8G", processes=[ours(job, "8G"), foreign()])
    with full(desk.store):
        desk.read(there, gpu(1))
    assert desk.events("over_memory") == desk.events("contended") == []
    desk.watch(there, gpu(1), for_s=10.0)
    assert len(desk.events("over_memory")) == len(desk.events("contended")) == 1
    assert desk.written(job)["gpu_peak_bytes"] == 8 * GIB


# ─── what is shown ───────────────────────────────────────────────────────────────────────────────


def shown(desk: Desk, job: int) -> dict[str, Any]:
    return job_view(row(desk.store, job), Plan(), "/state", desk.gpus, sight=Sight.ALL)


def test_a_job_shows_what_it_makes_of_its_gpus(desk: Desk) -> None:
    job = desk.runs((0, "6G"), gpu_mem_from="asks for 6G: it used 4.5G at most before")
    before = shown(desk, job)
    assert (before["gpu_peak_bytes"], before["gpu_util_mean"], before["gpu_energy_j"]) == (
        (None,) * 3
    )
    assert (before["idle"], before["contended"], before["contended_now"]) == (False,) * 3
    desk.watch(busy(job, mem="8G"), gpu(1), for_s=65.0)
    view = shown(desk, job)
    assert (view["gpu_peak_bytes"], view["gpu_util_mean"], view["gpu_util_peak"]) == (
        8 * GIB,
        80.0,
        80,
    )
    assert view["gpu_energy_j"] == 65 * 300.0
    assert view["over_memory"] == "it used 8G of GPU 0 and asked for 6G"
    assert view["gpu_mem_from"] == "asks for 6G: it used 4.5G at most before"
    attempt = attempt_view(desk.written(job), row(desk.store, job), "/state", sight=Sight.ALL)
    assert (attempt["gpu_peak_bytes"], attempt["over_memory"]) == (8 * GIB, view["over_memory"])


def test_a_stranger_that_has_left_was_there_and_is_there_no_more(desk: Desk) -> None:
    job = desk.runs((0, "6G"), beside=[1])
    desk.read(beside(job, foreign(pid=1)), gpu(1, processes=[foreign(pid=9)]))
    assert not shown(desk, job)["contended_now"]
    desk.read(beside(job, foreign(pid=2)), gpu(1))
    assert shown(desk, job)["contended"]
    assert shown(desk, job)["contended_now"]
    desk.read(beside(job), gpu(1))
    view = shown(desk, job)
    assert (view["contended"], view["contended_now"]) == (True, False)
    assert view["contended_by"] == "python 2 bob on GPU 0"


def test_only_who_runs_is_idle(desk: Desk) -> None:
    job = desk.runs((0, None))
    desk.watch(quiet(job), gpu(1), for_s=SETTLE_S + IDLE_S)
    assert shown(desk, job)["idle"]
    desk.ends(job)
    view = shown(desk, job)
    assert not view["idle"]
    assert view["idle_since_at"] is not None, "so it was when it ended"


# ─── learned ─────────────────────────────────────────────────────────────────────────────────────

TRAIN = (b"python", b"train.py", b"--lr", b"1")


def known(desk: Desk, *argv: bytes, uid: int = 1000, name: str = "train") -> Known | None:
    return desk.store.learned.known(uid, argv or TRAIN, b"/", name)


def trains(desk: Desk, mem: str, exit: Exit | None = None, **changes: Any) -> int:
    asked: dict[str, Any] = {"argv": TRAIN, "name": "train"} | changes
    job = desk.runs((0, None), **asked)
    desk.read(busy(job, mem=mem), gpu(1))
    desk.ends(job, exit)
    desk.store.machine.release("GPU-0", 0, now=NOW)
    return job


def test_a_run_that_succeeds_is_remembered_for_the_next_of_its_command(desk: Desk) -> None:
    assert known(desk) is None
    job = trains(desk, "6G")
    assert known(desk) == Known(peak_bytes=6 * GIB, runs=1, last_job=job)
    other = known(desk, b"python", b"train.py", b"--lr", b"2")
    assert other == known(desk), "whatever its options"
    again = trains(desk, "8G")
    assert known(desk) == Known(peak_bytes=8 * GIB, runs=2, last_job=again)


def test_another_program_name_user_or_directory_is_another_command(desk: Desk) -> None:
    trains(desk, "6G")
    assert known(desk, b"python", b"eval.py") is None
    assert known(desk, name="other") is None
    assert known(desk, uid=BOB.uid) is None
    assert desk.store.learned.known(1000, TRAIN, b"/home", "train") is None


@pytest.mark.parametrize("exit", [Exit(exit_code=1), Exit(signal=9), Exit(lost="who knows")])
def test_a_run_that_did_not_succeed_teaches_nothing(desk: Desk, exit: Exit) -> None:
    trains(desk, "6G", exit)
    assert known(desk) is None


def test_a_run_that_was_seen_to_use_nothing_teaches_nothing(desk: Desk) -> None:
    trains(desk, "0K")
    desk.ends(desk.runs((0, None), argv=TRAIN, name="train"))
    assert known(desk) is None


def test_a_learned_size_that_was_too_little_is_forgotten(desk: Desk) -> None:
    trains(desk, "6G")
    out_of_memory = Exit(exit_code=1, told_out_of_memory="no room")
    trains(desk, "7G", out_of_memory)
    assert known(desk) is not None, "this one had not asked for what was learned"
    trains(desk, "7G", out_of_memory, gpu_mem_from="asks for 7.5G")
    assert known(desk) is None


def test_what_a_user_runs_least_is_forgotten_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_store, "MOST_COMMANDS", 6)
    for name in ("a", "b", "c", "d", "e", "f", "a", "g", "h", "i"):
        trains(desk, "6G", name=name)
    assert [n for n in "abcdefghi" if known(desk, name=n) is not None] == list("aefghi")


# ─── lived through ───────────────────────────────────────────────────────────────────────────────


def simulated(job: int = 0, mem: str = "0K", **changes: Any) -> Gpu:
    processes = [ours(job, mem)] if job else []
    return gpu(0, simulated=True, cools_at_once=True, processes=processes, **changes)


def test_who_uses_too_much_is_ended_named_and_tried_again_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        await daemon.show(simulated())
        share = Request(gpus=1, gpu_mem_bytes=6 * GIB, exclusive=False)
        job = daemon.submit("sleep 100", request=share, retries=1, backoff="100s")
        await daemon.running(job)
        await daemon.show(simulated(job, "6G"))
        assert daemon.row(job)["ending"] is None
        await daemon.show(simulated(job, A_TENTH_OVER))
        waits = await daemon.waits_again(job)
        (first,) = daemon.attempts(job)
        assert first["outcome"] == Outcome.OUT_OF_MEMORY
        assert first["ending"] == EndCause.GPU_MEMORY
        assert first["reason"] == (
            f"out of GPU memory: {WORDS} (enforce_gpu_memory); ended by SIGTERM"
        )
        assert waits["reason"].endswith("with 9G instead of 6G per GPU")

    with_alive(tmp_path, deed, enforce_gpu_memory="end")


def test_what_a_daemon_measured_until_it_left_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def main() -> None:
        async with alive(tmp_path, leave=True) as first:
            await first.show(simulated())
            job = first.submit("sleep 100", request=Request(gpus=1))
            await first.running(job)
            await first.show(simulated(job, "6G"))
            assert first.attempts(job)[0]["gpu_peak_bytes"] is None, "it is not due yet"
        async with alive(tmp_path) as second:
            assert second.attempts(job)[0]["gpu_peak_bytes"] == 6 * GIB

    asyncio.run(main())


def test_a_sharing_job_knows_who_was_there_when_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by_hand(monkeypatch)

    async def deed(daemon: Alive) -> None:
        before, later = foreign(pid=os.getpid()), foreign(pid=os.getppid())
        await daemon.show(replace(simulated(), processes=(before,)))
        share = Request(gpus=1, gpu_mem_bytes=6 * GIB, exclusive=False)
        job = daemon.submit("sleep 100", request=share)
        await daemon.running(job)
        await daemon.show(replace(simulated(job, "1G"), processes=(before, ours(job))))
        assert daemon.row(job)["contended_at"] is None
        await daemon.show(replace(simulated(job, "1G"), processes=(before, later, ours(job))))
        assert daemon.row(job)["contended_by"] == f"python {later.pid} bob on GPU 0"

    with_alive(tmp_path, deed)


def test_errors_of_its_gpus_are_shown_with_the_job_and_with_the_attempt(desk: Desk) -> None:
    """Also with one that has not failed: the next one may, on the same GPU."""
    job = desk.runs((0, None))
    desk.read(gpu(0, processes=[ours(job)]))
    assert shown(desk, job)["gpu_errors"] == []
    desk.store.health.tell_xids("GPU-0", 0, (31,), [(job, 1)], now=NOW)
    (error,) = shown(desk, job)["gpu_errors"]
    assert error.startswith("XID 31 on GPU 0: ")
    attempt = desk.store.found.attempts(job)[0]
    view = attempt_view(attempt, row(desk.store, job), "/state", sight=Sight.ALL)
    assert view["gpu_errors"] == [error]
