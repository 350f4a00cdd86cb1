"""What only several readings can tell: calm, baselines, whether anything has changed at all."""

from dataclasses import replace
from itertools import count
from typing import Any

from gpuq.core.model import Gpu, GpuProcess, GpuState, Lease, LeaseState, Policy
from gpuq.core.placement import assess
from gpuq.daemon.gpus import GpuWatch
from gpuq.daemon.gpus.backend import unidentified

MIB, GIB = 2**20, 2**30
POLICY = Policy()


def gpu(index: int = 0, **changes: Any) -> Gpu:
    idle = Gpu(
        index=index,
        uuid=f"GPU-{index}",
        model="H100",
        simulated=False,
        memory_total_bytes=80 * GIB,
        memory_used_bytes=4 * MIB,
        memory_reserved_bytes=600 * MIB,
        utilization_percent=0,
        temperature_c=40,
    )
    return replace(idle, **changes)


def process(pid: int, memory_bytes: int | None = GIB) -> GpuProcess:
    return GpuProcess(pid=pid, user="bob", command="python", memory_bytes=memory_bytes)


def lease(index: int = 0, job: int = 7, **changes: Any) -> Lease:
    whole = Lease(gpu=f"GPU-{index}", slot=0, job=job, attempt=1, exclusive=True)
    return replace(whole, **changes)


COOLING: dict[str, Any] = {"state": LeaseState.COOLING, "cooling_since": 0.0}


class World:
    """A watch that is given one reading a second."""

    def __init__(self, known: tuple[Gpu, ...] = (), owners: dict[int, int] | None = None) -> None:
        self.watch = GpuWatch(POLICY, known)
        self.owners = owners or {}
        self.clock = count(1000)

    def read(self, *gpus: Gpu, leases: tuple[Lease, ...] = (), at: float | None = None) -> bool:
        moment = float(next(self.clock)) if at is None else at
        return self.watch.accept(list(gpus), leases, self.owners.get, moment)

    @property
    def gpu(self) -> Gpu:
        assert self.watch.gpus is not None
        return self.watch.gpus[0]

    def state(self, *leases: Lease) -> GpuState:
        return assess(self.gpu, leases, POLICY)[0]


# ── the reading itself ──


def test_before_the_first_reading_nothing_is_known() -> None:
    watch = World().watch
    assert (watch.gpus, watch.read_at, watch.is_whole) == (None, None, False)


def test_the_first_reading_is_news_even_without_a_gpu() -> None:
    world = World()
    assert world.read(at=5.0)
    assert (world.watch.gpus, world.watch.read_at) == ((), 5.0)
    assert not world.read(at=6.0)


def test_processes_are_told_apart_by_whose_they_are() -> None:
    world = World(owners={11: 7})
    world.read(gpu(processes=(process(11), process(12))), leases=(lease(),))
    assert [(p.pid, p.job) for p in world.gpu.processes or ()] == [(11, 7), (12, None)]
    assert [p.pid for p in world.gpu.foreign_processes] == [12]


# ── calm ──


def test_a_new_gpu_is_free_after_three_calm_readings() -> None:
    world = World()
    states = []
    for _ in range(3):
        world.read(gpu())
        states.append(world.state())
    assert states == [GpuState.FOREIGN, GpuState.FOREIGN, GpuState.FREE]


def test_asking_often_does_not_make_a_gpu_calm_sooner() -> None:
    world = World()
    for tick in range(17):
        world.read(gpu(), at=1000 + tick * 0.1)
    assert world.state() is GpuState.FOREIGN
    world.read(gpu(), at=1001.95)
    assert world.state() is GpuState.FREE


def test_one_busy_reading_takes_all_calm_away_at_once() -> None:
    world = World()
    world.read(gpu(), at=1000)
    world.read(gpu(), at=1001)
    assert world.read(gpu(utilization_percent=90), at=1001.1)
    assert world.gpu.calm_samples == 0
    world.read(gpu(), at=1001.2)  # and counting begins a moment after it
    assert world.gpu.calm_samples == 0
    world.read(gpu(), at=1002.1)
    assert world.gpu.calm_samples == 1


def test_flapping_utilisation_never_becomes_calm() -> None:
    world = World()
    for percent in [0, 90, 0] * 10:
        world.read(gpu(utilization_percent=percent))
        assert world.state() is GpuState.FOREIGN


def test_a_simulated_gpu_is_free_from_the_start() -> None:
    world = World()
    world.read(gpu(simulated=True))
    assert world.state() is GpuState.FREE


def test_a_gpu_that_comes_back_has_to_show_itself_calm_again() -> None:
    world = World()
    for _ in range(3):
        world.read(gpu())
    world.read(gpu(fault="has fallen off the bus"))
    assert world.state() is GpuState.LOST
    world.read(gpu())
    assert (world.state(), world.gpu.calm_samples) == (GpuState.FOREIGN, 1)


def test_between_two_of_our_own_jobs_nobody_waits_for_calm() -> None:
    world = World(owners={11: 7})
    for _ in range(3):
        world.read(gpu(), at=float(next(world.clock)))
    busy = gpu(memory_used_bytes=70 * GIB, utilization_percent=97, processes=(process(11),))
    world.read(busy, leases=(lease(),), at=2000.0)
    assert world.gpu.utilization_percent == 97
    # The job has ended and its memory is back, but the driver still tells of the last second.
    echo = gpu(utilization_percent=97)
    world.read(echo, leases=(lease(**COOLING),), at=2000.2)
    assert world.state() is GpuState.FREE  # once the lease is gone, which it is now
    world.read(echo, at=2000.3)
    assert world.state() is GpuState.FREE
    # What is busy after that second is somebody else's.
    world.read(echo, at=2001.3)
    assert world.state() is GpuState.FOREIGN


# ── baseline ──


def test_the_memory_of_a_desktop_is_learned_as_the_baseline() -> None:
    world = World()
    for _ in range(3):
        world.read(gpu(memory_used_bytes=700 * MIB))
    assert (world.gpu.baseline_bytes, world.state()) == (700 * MIB, GpuState.FREE)
    world.read(gpu(memory_used_bytes=1200 * MIB))
    assert (world.gpu.baseline_bytes, world.state()) == (700 * MIB, GpuState.FOREIGN)


def test_a_stored_baseline_is_a_start_and_only_ever_sinks() -> None:
    world = World(known=(gpu(baseline_bytes=500 * MIB),))
    world.read(gpu(memory_used_bytes=700 * MIB))
    assert world.gpu.baseline_bytes == 500 * MIB
    world.read(gpu(memory_used_bytes=300 * MIB))
    assert world.gpu.baseline_bytes == 300 * MIB


def test_memory_in_use_is_no_baseline() -> None:
    world = World(owners={11: 7})
    used = gpu(memory_used_bytes=600 * MIB, processes=(process(11),))
    world.read(used, leases=(lease(),))
    world.read(gpu(memory_used_bytes=600 * MIB), leases=(lease(**COOLING),))
    world.read(replace(used, processes=(process(99),)))
    assert world.gpu.baseline_bytes == 0


def test_so_much_memory_without_a_process_is_somebodys() -> None:
    world = World()
    for _ in range(5):
        world.read(gpu(memory_used_bytes=20 * GIB))
    assert world.state() is GpuState.FOREIGN


# ── whole ──


def test_the_machine_is_whole_while_every_gpu_it_ever_had_is_well() -> None:
    world = World(known=(gpu(0), gpu(1)))
    world.read(gpu(0), gpu(1))
    assert world.watch.is_whole
    world.read(gpu(0), gpu(1, fault="needs a reset"))
    assert not world.watch.is_whole
    world.read(gpu(0))
    assert not world.watch.is_whole


def test_a_gpu_seen_once_is_missed_later_though_nobody_stored_it() -> None:
    world = World()
    world.read(gpu(0), gpu(1))
    world.read(gpu(0))
    assert not world.watch.is_whole


def test_simulated_and_nameless_gpus_are_not_missed() -> None:
    world = World(known=(gpu(0), gpu(1, simulated=True), gpu(2, uuid=unidentified(0))))
    world.read(gpu(0))
    assert world.watch.is_whole


# ── news ──


def settled(
    *gpus: Gpu, leases: tuple[Lease, ...] = (), owners: dict[int, int] | None = None
) -> World:
    """A world in which another reading of the same is no news."""
    world = World(owners=owners)
    for _ in range(4):
        world.read(*gpus, leases=leases)
    assert not world.read(*gpus, leases=leases)
    return world


def test_warmth_is_no_news() -> None:
    world = settled(gpu())
    assert not world.read(gpu(temperature_c=70, power_w=300.0, utilization_percent=5))
    assert world.gpu.temperature_c == 70


def test_a_gpu_more_or_less_is_news() -> None:
    world = settled(gpu(0))
    assert world.read(gpu(0), gpu(1))
    assert world.read(gpu(1))


def test_a_fault_is_news_when_it_comes_and_when_it_goes() -> None:
    world = settled(gpu())
    assert world.read(gpu(fault="needs a reset"))
    assert not world.read(gpu(fault="needs a reset"))
    assert world.read(gpu())


def test_each_calm_reading_is_news_for_it_is_in_the_reason() -> None:
    world = World()
    assert [world.read(gpu()) for _ in range(4)] == [True, True, True, False]


def test_a_process_is_news_also_beside_a_job_of_ours() -> None:
    ours = gpu(processes=(process(11),))
    world = settled(ours, leases=(lease(),), owners={11: 7, 13: 7})
    assert world.read(gpu(processes=(process(11), process(12))), leases=(lease(),))
    assert world.read(gpu(processes=(process(11), process(13))), leases=(lease(),))
    assert world.read(gpu(processes=None), leases=(lease(),))


def test_small_moves_of_memory_are_no_news_until_they_add_up() -> None:
    holding = (lease(exclusive=False, memory_bytes=20 * GIB),)
    world = settled(gpu(memory_used_bytes=GIB), leases=holding)
    used = GIB
    news = []
    for _ in range(6):
        used += 30 * MIB
        news.append(world.read(gpu(memory_used_bytes=used), leases=holding))
    assert news == [False, False, True, False, False, True]


def test_memory_that_changes_hands_is_news_though_the_sum_is_the_same() -> None:
    def split(ours: int, theirs: int) -> Gpu:
        both = (process(11, ours * GIB), process(12, theirs * GIB))
        return gpu(memory_used_bytes=10 * GIB, processes=both)

    holding = (lease(exclusive=False, memory_bytes=GIB),)
    world = settled(split(2, 8), leases=holding, owners={11: 7})
    assert world.read(split(8, 2), leases=holding)


def test_a_cooling_gpu_is_looked_at_anew_with_each_reading() -> None:
    beside = (lease(exclusive=False), lease(exclusive=False, slot=1, job=8, **COOLING))
    world = World()
    assert [world.read(gpu(), leases=beside) for _ in range(3)] == [True] * 3
