"""What only several readings can tell: calm, baselines, whether anything has changed at all."""

from dataclasses import replace
from itertools import count
from typing import Any

from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Gpu, GpuProcess, GpuState
from gpuq.core.model import Lease, LeaseState
from gpuq.core.policy import Policy
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
    """A watch that is given one reading every two seconds. `policy` may be set."""

    def __init__(
        self,
        known: tuple[Gpu, ...] = (),
        owners: dict[int, int] | None = None,
        indices: set[int] | None = None,
        **settings: Any,
    ) -> None:
        self.policy = replace(POLICY, **settings)
        self.watch = GpuWatch(lambda: self.policy, known, indices=indices)
        self.owners = owners or {}
        self.clock = count(1000, 2)

    def read(self, *gpus: Gpu, leases: tuple[Lease, ...] = (), at: float | None = None) -> bool:
        moment = float(next(self.clock)) if at is None else at
        return self.watch.accept(list(gpus), leases, self.owners.get, moment)

    @property
    def gpu(self) -> Gpu:
        assert self.watch.gpus is not None
        return self.watch.gpus[0]

    def state(self, *leases: Lease) -> GpuState:
        return assess(self.gpu, leases, self.policy)[0]


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
    for tick in range(18):
        world.read(gpu(), at=1000 + tick * 0.1)
    assert world.state() is GpuState.FOREIGN
    world.read(gpu(), at=1001.95)
    assert world.state() is GpuState.FREE


def free_after_s(world: World, often_s: float) -> float:
    """How long a new GPU that is read so often takes to be free."""
    for tick in range(10_000):
        world.read(gpu(), at=1000 + tick * often_s)
        if world.state() is GpuState.FREE:
            return tick * often_s
    raise AssertionError("it never is")


def test_calm_readings_cover_the_time_that_the_settings_say() -> None:
    """Each the time before it, so that the first comes when some of it has passed already."""
    for samples, span_s in ((2, 10.0), (3, 3.0), (5, 60.0), (11, 0.5)):
        took_s = free_after_s(World(calm_samples=samples, calm_s=span_s), 0.01)
        # A reading may come up to a tenth of a second early.
        after_first_s = span_s * (samples - 1) / samples
        least_s = after_first_s - 0.1 * (samples - 1)
        assert least_s - 0.001 <= took_s <= after_first_s + 0.1, (samples, span_s)
    assert free_after_s(World(calm_samples=4, calm_s=3.0), 0.99) == 3 * 0.99


def test_one_calm_reading_is_enough_where_the_settings_say_so() -> None:
    world = World(calm_samples=1)
    world.read(gpu(utilization_percent=90), at=1000)
    assert world.state() is GpuState.FOREIGN
    world.read(gpu(), at=1000.01)
    assert world.state() is GpuState.FREE


def test_another_setting_counts_from_the_next_reading_on() -> None:
    world = World()
    world.read(gpu())
    world.policy = replace(POLICY, calm_samples=2, calm_s=2.0)
    assert world.read(gpu())
    assert world.state() is GpuState.FREE
    world.read(busy(30))
    assert world.state() is GpuState.FOREIGN
    world.policy = replace(world.policy, idle_utilization_percent=50)
    assert world.read(busy(30)), "how it is judged has changed"
    world.read(busy(30))
    assert world.state() is GpuState.FREE


def test_one_busy_reading_takes_all_calm_away_at_once() -> None:
    world = World()
    world.read(gpu(), at=1000)
    world.read(gpu(), at=1001.5)
    assert world.read(gpu(utilization_percent=90), at=1001.6)
    assert world.gpu.calm_samples == 0
    world.read(gpu(), at=1002.4)  # and counting begins a moment after it
    assert world.gpu.calm_samples == 0
    world.read(gpu(), at=1002.6)
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


# ── what is nobody's work ──


def desktop(memory_bytes: int = 200 * MIB, **changes: Any) -> GpuProcess:
    plain = GpuProcess(pid=900, user="gdm", command="Xorg", memory_bytes=memory_bytes)
    return replace(plain, **changes)


def with_desktop(*more: GpuProcess, **changes: Any) -> Gpu:
    return gpu(processes=(desktop(**changes), *more), memory_used_bytes=204 * MIB)


def test_a_program_or_a_user_that_is_to_be_ignored_makes_no_gpu_busy() -> None:
    for settings in ({"ignore_processes": ("sddm", "Xorg")}, {"ignore_users": ("gdm",)}):
        world = World(**settings)
        for _ in range(3):
            world.read(with_desktop())
        assert world.state() is GpuState.FREE
        assert [process.ignored for process in world.gpu.processes or ()] == [True]
        assert world.gpu.memory_used_bytes == 204 * MIB, "it is in use all the same"


def test_only_the_whole_name_in_its_own_letters_is_meant() -> None:
    world = World(ignore_processes=("Xorg",), ignore_users=("gdm",))
    for name, user in (("Xorg2", "bob"), ("xorg", "bob"), ("Xor", "bob"), (None, None), ("x", "g")):
        world.read(with_desktop(command=name, user=user))
        assert [one.command for one in world.gpu.foreign_processes] == [name]


def test_beside_what_is_ignored_others_count() -> None:
    world = World(ignore_processes=("Xorg",))
    world.read(with_desktop(process(12)))
    assert world.state() is GpuState.FOREIGN
    assert [one.pid for one in world.gpu.foreign_processes] == [12]


def test_what_is_read_as_nobodys_stays_so() -> None:
    world = World()
    world.read(with_desktop(command="nvidia-cuda-mps-server", ignored=True))
    assert world.gpu.foreign_processes == ()


def test_a_job_of_ours_is_never_ignored() -> None:
    world = World(owners={900: 7}, ignore_processes=("Xorg",))
    world.read(with_desktop(), leases=(lease(),))
    assert [(p.job, p.ignored) for p in world.gpu.processes or ()] == [(7, False)]


def test_who_is_ignored_may_change_between_two_readings() -> None:
    world = World()
    for _ in range(4):
        world.read(with_desktop())
    assert world.state() is GpuState.FOREIGN
    world.policy = replace(POLICY, ignore_processes=("Xorg",))
    assert world.read(with_desktop())
    for _ in range(2):
        world.read(with_desktop())
    assert world.state() is GpuState.FREE
    world.policy = POLICY
    assert world.read(with_desktop())
    assert world.state() is GpuState.FOREIGN


def test_a_desktop_that_can_be_seen_may_grow() -> None:
    """What it takes is its own, and not the idle GPU's."""
    world = World(ignore_processes=("Xorg",))
    for mib in (700, 300, 2000, 2000, 2000):
        large = gpu(processes=(desktop(mib * MIB),), memory_used_bytes=(mib + 4) * MIB)
        world.read(large)
    assert (world.gpu.baseline_bytes, world.state()) == (4 * MIB, GpuState.FREE)


# ── how much was computed lately ──


def busy(percent: int | None, **changes: Any) -> Gpu:
    return gpu(utilization_percent=percent, **changes)


def test_the_most_of_the_last_readings_is_what_was_computed_lately() -> None:
    world = World()
    seen = []
    for percent in (40, 3, 0, 0, 25, 0):
        world.read(busy(percent))
        seen.append(world.gpu.recent_utilization_percent)
    assert seen == [None, None, 40, 3, 25, 25]


def test_a_peak_between_two_readings_is_not_missed_and_brings_them_no_nearer() -> None:
    world = World()
    for at, percent in ((0, 0), (0.5, 80), (1.0, 0), (1.5, 0), (2.0, 0)):
        world.read(busy(percent), at=1000 + at)
    assert world.gpu.recent_utilization_percent == 80
    world.read(busy(0), at=1003.5)
    assert world.gpu.recent_utilization_percent == 0


def test_what_was_computed_lately_is_unknown_where_a_reading_is_missing() -> None:
    world = World()
    for percent in (10, None, 10, 10):
        world.read(busy(percent))
        assert world.gpu.recent_utilization_percent is None
    world.read(busy(10))
    assert world.gpu.recent_utilization_percent == 10
    world.read(gpu(fault="needs a reset"))
    world.read(busy(10))
    assert world.gpu.recent_utilization_percent is None, "before the fault is long ago"


def test_our_own_jobs_compute_too() -> None:
    """The setting is of what the GPU can take, whoever takes it."""
    world = World(owners={11: 7})
    for _ in range(3):
        world.read(busy(95, processes=(process(11),)), leases=(lease(),))
    assert world.gpu.recent_utilization_percent == 95
    world.read(busy(95), leases=(lease(**COOLING),))
    assert world.gpu.utilization_percent is None
    assert world.gpu.recent_utilization_percent == 95


def test_as_many_readings_count_as_the_settings_say() -> None:
    world = World()
    for percent in (50, 0, 0):
        world.read(busy(percent))
    world.policy = replace(POLICY, calm_samples=2)
    world.read(busy(0))
    assert world.gpu.recent_utilization_percent == 0
    world.policy = replace(POLICY, calm_samples=4)
    world.read(busy(0))
    assert world.gpu.recent_utilization_percent is None


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


def test_what_was_computed_lately_is_news_only_for_a_job_that_waits_for_it() -> None:
    shared = (lease(exclusive=False, memory_bytes=GIB),)

    def read_for_long(world: World, percent: int) -> bool:
        """Until it is what was computed lately; was it news?"""
        news = [world.read(busy(percent), leases=shared) for _ in range(4)]
        return any(news)

    world = settled(busy(50), leases=shared)
    assert not read_for_long(world, 20)
    world.watch.busy_limits = frozenset({25})
    read_for_long(world, 20)
    assert not read_for_long(world, 24)
    assert read_for_long(world, 25), "just too much"
    assert not read_for_long(world, 29)
    assert read_for_long(world, 30), "another word in its reason"
    assert read_for_long(world, 24)


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


def test_a_little_memory_is_news_while_a_sharing_job_waits() -> None:
    world = World()
    for _ in range(4):
        world.read(gpu(memory_used_bytes=200 * MIB))
    assert not world.read(gpu(memory_used_bytes=180 * MIB))
    world.watch.room_counts = True
    assert world.read(gpu(memory_used_bytes=150 * MIB))
    assert not world.read(gpu(memory_used_bytes=150 * MIB))


def test_of_a_machine_only_those_named_are_shown_and_the_others_still_count_for_ordinals() -> None:
    world = World(indices={1})
    world.read(gpu(0), gpu(1))
    assert [one.index for one in world.watch.gpus or ()] == [1]
    assert world.watch.is_whole
    world.read(gpu(0, fault="is lost"), gpu(1))
    assert not world.watch.is_whole
    assert [one.index for one in world.watch.gpus or ()] == [1]
