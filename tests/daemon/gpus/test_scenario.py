"""A scenario played by a clock that the test moves: what there is to be read at which moment."""

import itertools
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.core.gpus.gpu import Closeness, Gpu
from gpuq.daemon.gpus import GpusUnavailable, Held
from gpuq.daemon.gpus.simulated import scenario
from gpuq.daemon.gpus.simulated.scenario_file import scenario_of
from gpuq.daemon.gpus.simulated.scripted import ScriptedBackend
from tests.builders import STEADY, size

GIB = 2**30
CARD = '[[gpu]]\nmemory = "24G"\n'
CARDS = '[[gpu]]\ncount = 2\nmemory = "24G"\n'


class Played:
    """The GPUs of a scenario, at the moments that the test names (s since the daemon started)."""

    def __init__(
        self, text: str, folder: Path | str = "/nonexistent", fd: int | None = None
    ) -> None:
        self.scenario = scenario_of(tomllib.loads(text), f"{folder}/box.toml")
        self.clock_s = 0.0
        self.naps = 0
        self._fd = fd
        self.new_probe()

    def new_probe(self) -> None:
        self._backend = ScriptedBackend(
            self.scenario,
            started_s=0.0,
            memory_fd=self._fd,
            now=lambda: self.clock_s,
            wait=self._nap,
        )

    def at(self, clock_s: float, *held: Held) -> list[Gpu]:
        self.clock_s = clock_s
        return self._backend.sample(held)

    def one(self, clock_s: float, *held: Held) -> Gpu:
        return self.at(clock_s, *held)[0]

    def used(self, clock_s: float, *held: Held) -> list[float | None]:
        """What is used of each GPU, in GiB."""
        return [_gib(gpu.memory_used_bytes) for gpu in self.at(clock_s, *held)]

    def load(self, clock_s: float, *held: Held) -> list[int | None]:
        return [gpu.utilization_percent for gpu in self.at(clock_s, *held)]

    def _nap(self) -> None:
        self.naps += 1
        self.clock_s += 1.0


def _gib(bytes: int | None) -> float | None:
    return None if bytes is None else bytes / GIB


def job(id: int = 7, declared: str | None = "8G", *, on: int = 0, pid: int | None = None) -> Held:
    uuid = f"GPU-51750000-0000-4000-8000-{on:012x}"
    return uuid, id, 100 * id if pid is None else pid, size(declared)


@pytest.fixture
def memory() -> Iterator[int]:
    """A file in which one probe finds what the one before it knew."""
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


# ── the GPUs ──


def test_gpus_are_as_the_file_describes_them() -> None:
    text = """
    [[gpu]]
    count = 2
    model = "NVIDIA H100"
    memory = "80G"
    reserved = "1G"
    idle_memory = "512M"
    power_limit = 650

    [[gpu]]
    memory = "24G"
    """
    first, second, third = Played(text).at(0)
    assert [gpu.index for gpu in (first, second, third)] == [0, 1, 2]
    assert len({gpu.uuid for gpu in (first, second, third)}) == 3
    assert len({gpu.bus_id for gpu in (first, second, third)}) == 3
    assert (first.model, third.model) == ("NVIDIA H100", "Simulated 24G")
    assert first.memory_total_bytes == 80 * GIB
    assert (first.memory_used_bytes, first.memory_reserved_bytes) == (GIB // 2, GIB)
    assert (first.power_limit_w, third.power_limit_w) == (650, 350)
    assert (first.utilization_percent, first.processes) == (0, ())
    assert all(gpu.simulated and not gpu.cools_at_once for gpu in (first, second, third))


def test_a_card_that_mig_divides_is_its_instances() -> None:
    text = """
    [[gpu]]
    model = "A100"
    memory = "80G"
    mig = [{ name = "3g.40gb", memory = "40G" }, { name = "1g.10gb", memory = "10G" }]

    [[gpu]]
    memory = "80G"
    """
    played = Played(text)
    big, small, whole = played.at(0)
    assert [gpu.model for gpu in (big, small)] == ["A100 MIG 3g.40gb", "A100 MIG 1g.10gb"]
    assert [_gib(gpu.memory_total_bytes) for gpu in (big, small, whole)] == [40, 10, 80]
    assert [gpu.index for gpu in (big, small, whole)] == [0, 1, 2]
    assert big.uuid.startswith("MIG-")
    assert big.parent == small.parent == "GPU-51750000-0000-4000-8000-000000000000"
    assert whole.parent is None
    assert whole.uuid not in (big.parent, big.uuid, small.uuid)
    assert big.bus_id == small.bus_id != whole.bus_id

    busy = played.one(5, (big.uuid, 7, 700, 30 * GIB))
    assert busy.memory_used_bytes == 30 * GIB
    assert (busy.utilization_percent, busy.power_w, busy.energy_j) == (None, None, None)


def test_a_gpu_without_memory_of_its_own_tells_none() -> None:
    gpu = Played('[[gpu]]\nmemory = "none"').one(9, job(declared="200G"))
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes) == (None, None)
    assert gpu.memory_reserved_bytes is None
    assert gpu.utilization_percent == 90


def test_compute_modes() -> None:
    exclusive = Played(CARD + 'mode = "exclusive_process"').one(0)
    assert (exclusive.one_process_only, exclusive.fault) == (True, None)
    prohibited = Played(CARD + 'mode = "prohibited"').one(0)
    assert "compute mode Prohibited" in (prohibited.fault or "")
    assert not prohibited.is_lasting


def test_what_the_driver_tells_of_processes() -> None:
    sizeless = Played(CARD + 'processes = "no sizes"').one(1, job())
    assert [(p.job, p.memory_bytes) for p in sizeless.processes or ()] == [(7, None)]
    assert sizeless.memory_used_bytes == 8 * GIB
    silent = Played(CARD + 'processes = "nothing"').one(1, job())
    assert (silent.processes, silent.memory_used_bytes) == (None, 8 * GIB)


def test_links_go_both_ways_and_the_fastest_counts() -> None:
    text = """
    [[gpu]]
    count = 4
    memory = "24G"
    [[link]]
    gpus = "0-1"
    by = "nvlink"
    [[link]]
    gpus = "0-2"
    by = "node"
    [[link]]
    gpus = "1-2"
    by = "switch"
    [[fault]]
    gpus = 2
    from = "10s"
    kind = "missing"
    """
    played = Played(text)
    gpus = played.at(0)
    links = [dict(gpu.links) for gpu in gpus]
    names = [gpu.uuid for gpu in gpus]
    assert links[0] == {names[1]: Closeness.NVLINK, names[2]: Closeness.NODE}
    assert links[2] == {names[0]: Closeness.NODE, names[1]: Closeness.SWITCH}
    assert links[3] == {}
    assert [dict(gpu.links) for gpu in played.at(10)] == [{names[1]: 0}, {names[0]: 0}, {}]


# ── gpuq's own jobs ──


def test_a_job_takes_what_it_declared_where_nothing_else_is_said() -> None:
    played = Played(CARDS)
    gpu, idle = played.at(3, job(7, "8G"), job(8, None))
    assert gpu.memory_used_bytes == 9 * GIB
    assert [(p.job, p.pid, p.memory_bytes) for p in gpu.processes or ()] == [
        (7, 700, 8 * GIB),
        (8, 800, GIB),
    ]
    assert gpu.foreign_processes == ()
    assert (gpu.utilization_percent, idle.utilization_percent) == (100, 0)
    assert played.used(4) == [0, 0]


def test_a_job_that_has_no_process_yet_takes_nothing() -> None:
    gpu = Played(CARD).one(3, job(pid=0))
    assert (gpu.memory_used_bytes, gpu.processes, gpu.utilization_percent) == (0, (), 0)


def test_a_job_may_take_more_than_it_asked_for() -> None:
    text = CARDS + '[[jobs]]\ngpus = 0\nuses = 1.5\nundeclared = "20G"'
    played = Played(text)
    assert played.used(0, job(7, "8G"), job(8, "8G", on=1)) == [12, 8]
    assert played.used(1, job(9, None)) == [20, 0]


def test_a_job_takes_its_memory_little_by_little() -> None:
    played = Played(CARD + '[[jobs]]\nramp = "40s"')
    assert [played.used(at, job())[0] for at in (100, 110, 130, 140, 200)] == [0, 2, 6, 8, 8]


def test_the_load_of_a_job_runs_from_its_start() -> None:
    played = Played(CARD + '[[jobs]]\nutilization = [["10s", 20], ["20s", 80], ["20s", 50]]')
    assert [played.load(at, job())[0] for at in (100, 105, 110, 115, 119.9, 120, 999)] == [
        *(20, 20, 20, 50, 79),
        *(50, 50),
    ]
    assert played.load(1000) == [0]


def test_memory_may_come_back_late_and_belongs_to_nobody_then() -> None:
    played = Played(CARD + 'idle_memory = "1G"\n[[jobs]]\nrelease = "8s"')
    assert played.used(10, job()) == [9]
    after = played.one(11)
    assert (after.memory_used_bytes, after.processes) == (9 * GIB, ())
    assert after.utilization_percent == 0
    assert [played.used(at)[0] for at in (18.9, 19)] == [9, 1]


def test_memory_may_never_come_back_until_the_story_says_so() -> None:
    played = Played(CARD + '[[jobs]]\nuntil = "5m"\nrelease = "never"')
    assert [played.used(10, job()), played.used(11), played.used(299)] == [[8], [8], [8]]
    assert [played.used(300), played.used(301)] == [[0], [0]]


def test_what_a_job_left_is_what_it_had() -> None:
    played = Played(CARD + '[[jobs]]\nramp = "10s"\nrelease = "1m"')
    played.at(0, job())
    assert [played.used(5, job()), played.used(6)] == [[4], [4]]


def test_of_several_ways_to_behave_the_last_in_force_counts() -> None:
    text = CARD + '[[jobs]]\nuses = 0.5\n[[jobs]]\nfrom = "10s"\nuntil = "20s"\nuses = 2.0'
    played = Played(text)
    assert [played.used(at, job())[0] for at in (9, 10, 20)] == [4, 16, 4]


# ── others ──

CAROL = """
[[process]]
gpus = "0-1"
from = "30s"
until = "2m"
pid = 5040121
user = "carol"
command = "torchrun"
unit = "docker 3f2a9c1b7d44"
memory = "20G"
utilization = [["0s", 10], ["10s", 90]]
"""


def test_somebody_else_comes_and_goes() -> None:
    played = Played(CARDS + CAROL)
    assert [played.used(at) for at in (29, 30, 119, 120)] == [[0, 0], [20, 20], [20, 20], [0, 0]]
    (process,) = played.one(40).processes or ()
    assert (process.pid, process.user, process.command) == (5040121, "carol", "torchrun")
    assert (process.unit, process.memory_bytes) == ("docker 3f2a9c1b7d44", 20 * GIB)
    assert [played.one(at).utilization_percent for at in (30, 35, 40, 100)] == [10, 50, 90, 90]


def test_processes_without_a_pid_get_one_that_no_process_has() -> None:
    text = CARD + "[[process]]\ngpus = 0\npid = 5000002\n" + "[[process]]\ngpus = 0\n" * 3
    pids = [process.pid for process in Played(text).one(0).processes or ()]
    assert pids == [5000002, 5000001, 5000003, 5000004]
    assert min(pids) > 2**22


def test_memory_and_load_without_a_process() -> None:
    text = CARD + '[[load]]\ngpus = 0\nfrom = "10s"\nmemory = "10G"\nutilization = 60'
    played = Played(text)
    gpu = played.one(10, job())
    assert gpu.memory_used_bytes == 18 * GIB
    assert gpu.utilization_percent == 100  # 150 would be too much
    assert [process.job for process in gpu.processes or ()] == [7]
    assert played.one(9).memory_used_bytes == 0


def test_there_is_never_more_used_than_there_is() -> None:
    text = CARD + 'reserved = "1G"\nidle_memory = "1G"\n[[process]]\ngpus = 0\nmemory = "20G"'
    gpu = Played(text).one(0, job(7, "8G"), job(8, "8G"))
    assert gpu.memory_used_bytes == 23 * GIB
    assert [_gib(p.memory_bytes) for p in gpu.processes or ()] == [20, 2, 0]


# ── moments ──


def test_a_story_begins_again() -> None:
    played = Played('repeat = "5m"\n' + CARDS + CAROL)
    assert [played.used(at)[0] for at in (299, 300, 330, 419, 420, 631)] == [0, 0, 20, 20, 0, 20]
    assert played.one(335).utilization_percent == 50


def test_a_file_says_when(tmp_path: Path) -> None:
    text = (
        CARD
        + """
    [[process]]
    gpus = 0
    from = { file = "carol-arrives" }
    until = { file = "carol-leaves" }
    memory = "20G"
    utilization = [["0s", 0], ["10s", 90]]
    """
    )
    played = Played(text, tmp_path)
    assert played.used(10) == [0]
    (tmp_path / "carol-arrives").touch()
    assert played.used(20) == [20]
    assert played.load(25) == [45]  # her curve runs from when she was first seen
    (tmp_path / "carol-leaves").touch()
    assert played.used(26) == [0]
    (tmp_path / "carol-leaves").unlink()
    assert played.used(27) == [20]
    (tmp_path / "carol-arrives").unlink()
    assert played.used(28) == [0]
    (tmp_path / "carol-arrives").touch()
    assert played.load(30) == [0]


# ── faults ──


def fault(kind: str, *more: str) -> str:
    head = '[[fault]]\ngpus = 1\nfrom = "10s"\nuntil = "20s"'
    return "\n".join((CARDS, head, kind, *more, ""))


@pytest.mark.parametrize(
    ("keys", "told", "is_lasting"),
    [
        (['kind = "lost"'], "has fallen off the bus", True),
        (['kind = "lost"', 'says = "is in two parts"'], "is in two parts", True),
        (['kind = "lost"', "lasting = false"], "has fallen off the bus", False),
        (['kind = "reset"'], "needs a reset", True),
        (['kind = "unreadable"'], "could not be read", False),
    ],
)
def test_a_gpu_that_gives_no_reading(keys: list[str], told: str, is_lasting: bool) -> None:
    played = Played(fault(*keys))
    assert [gpu.fault for gpu in played.at(9)] == [None, None]
    well, ill = played.at(10, job(on=1))
    assert well.fault is None
    assert (told in (ill.fault or ""), ill.is_lasting) == (True, is_lasting)
    assert (ill.memory_used_bytes, ill.processes, ill.power_w) == (None, None, None)
    assert [gpu.fault for gpu in played.at(20)] == [None, None]


def test_a_gpu_may_disappear() -> None:
    played = Played(fault('kind = "missing"'))
    assert [[gpu.index for gpu in played.at(at)] for at in (9, 10, 20)] == [[0, 1], [0], [0, 1]]


def test_a_gpu_that_is_not_well_is_read_nevertheless() -> None:
    text = fault('kind = "defect"', 'says = "ECC errors"', "lasting = true")
    text += '[[fault]]\ngpus = 1\nkind = "defect"\nsays = "old"\n'
    text += '[[fault]]\ngpus = 1\nkind = "warning"\nsays = "a row waits to be remapped"\n'
    played = Played(text)
    well, ill = played.at(10)
    assert (well.defect, well.warnings, well.is_lasting) == (None, (), False)
    assert (ill.fault, ill.defect, ill.is_lasting) == (None, "ECC errors; old", True)
    assert ill.warnings == ("a row waits to be remapped",)
    assert ill.memory_total_bytes == 24 * GIB
    later = played.at(20)[1]
    assert (later.defect, later.is_lasting) == ("old", False)


XIDS = (
    CARDS
    + '[[xid]]\ngpus = 1\nat = "30s"\ncodes = [63, 79]\n[[xid]]\ngpus = 1\nat = "0s"\ncodes = 13'
)


def xids(played: Played, *moments: float) -> list[tuple[int, ...]]:
    return [played.at(at)[-1].xids for at in moments]


def test_an_xid_is_told_once_and_of_its_gpu() -> None:
    played = Played(XIDS)
    assert played.at(0)[0].xids == ()
    assert xids(Played(XIDS), 0, 1, 29, 30, 31, 3600) == [(13,), (), (), (63, 79), (), ()]
    assert xids(Played(XIDS), 35, 36) == [(63, 79, 13), ()]


def test_no_xid_is_told_twice_and_none_is_lost_when_the_probe_starts_anew(memory: int) -> None:
    played = Played(XIDS, fd=memory)
    assert xids(played, 0, 10) == [(13,), ()]
    played.new_probe()
    assert xids(played, 20, 30) == [(), (63, 79)]
    played.new_probe()
    assert xids(played, 31, 40) == [(), ()]


def test_a_probe_that_was_killed_while_it_wrote_makes_no_xid_come_twice(memory: int) -> None:
    played = Played(XIDS, fd=memory)
    xids(played, 0, 29)
    os.pwrite(memory, b'{"told_s": 1', 0)
    os.ftruncate(memory, 12)
    played.clock_s = 29.5
    played.new_probe()
    assert xids(played, 29.5, 30, 31) == [(), (63, 79), ()]


def test_what_a_longer_memory_left_behind_is_not_read(memory: int) -> None:
    played = Played(XIDS, fd=memory)
    played.at(10, *(job(id, "1G") for id in range(1, 9)))
    played.at(11)
    played.new_probe()
    assert xids(played, 12) == [()]


def test_an_xid_comes_again_with_each_round() -> None:
    played = Played('repeat = "1m"\n' + XIDS)
    assert xids(played, 30, 59, 60, 89, 90, 91) == [(63, 79, 13), (), (13,), (), (63, 79), ()]
    assert xids(played, 211) == [(63, 79, 63, 79, 13, 13)]


def test_an_xid_of_a_file_is_told_each_time_that_it_appears(tmp_path: Path) -> None:
    played = Played(CARD + '[[xid]]\ngpus = 0\nat = { file = "now" }\ncodes = 79', tmp_path)
    assert xids(played, 1) == [()]
    (tmp_path / "now").touch()
    assert xids(played, 2, 3) == [(79,), ()]
    (tmp_path / "now").unlink()
    assert xids(played, 4) == [()]
    (tmp_path / "now").touch()
    assert xids(played, 5, 6) == [(79,), ()]


def test_a_gpu_that_is_lost_tells_its_xid() -> None:
    text = fault('kind = "lost"') + '\n[[xid]]\ngpus = 1\nat = "10s"\ncodes = 79'
    assert xids(Played(text), 9, 10, 11) == [(), (79,), ()]


def test_a_driver_that_has_no_gpus_says_why() -> None:
    played = Played(CARD + '[[driver]]\nfrom = "10s"\nuntil = "20s"\nunavailable = "not loaded"')
    assert len(played.at(9)) == 1
    with pytest.raises(GpusUnavailable, match=r"^not loaded$"):
        played.at(10)
    assert len(played.at(20)) == 1


def test_a_driver_that_hangs_answers_when_it_is_over() -> None:
    text = CARD + '[[driver]]\nfrom = "10s"\nuntil = "25s"\nhangs = true'
    played = Played(text + '\n[[xid]]\ngpus = 0\nat = "12s"\ncodes = 31')
    assert (played.one(9).xids, played.naps) == ((), 0)
    assert (played.one(10).xids, played.naps, played.clock_s) == ((31,), 15, 25)


def test_the_thorough_test_of_a_gpu() -> None:
    text = (
        CARDS
        + """
    [[test]]
    tflops = 145
    memory_gb_s = 680
    [[test]]
    gpus = 1
    from = "10s"
    until = "20s"
    tflops = 9.5
    fails = "wrong sums"
    """
    )
    story = Played(text).scenario
    failures = [scenario.test_failure(story, 1, at) for at in (9, 10, 19, 20)]
    assert failures == [None, "wrong sums", "wrong sums", None]
    assert scenario.test_failure(story, 0, 10) is None
    assert scenario.test_speeds(story, 1, 9) == (145, 680)
    assert scenario.test_speeds(story, 1, 10) == (9.5, 680)
    assert scenario.test_speeds(Played(CARD).scenario, 0, 0) == (None, None)


# ── power, heat, energy ──


def test_power_and_temperature_follow_the_load() -> None:
    played = Played(CARD + "power_limit = 400")
    idle = played.one(0)
    at_once = played.one(1, job())
    later = played.one(60, job())
    assert (idle.power_w or 0) < 60 < 300 < (at_once.power_w or 0) <= 400
    assert (at_once.temperature_c or 0) <= (idle.temperature_c or 0) + 3  # metal takes its time
    assert (later.temperature_c or 0) > (idle.temperature_c or 0) + 25
    assert (played.one(200).temperature_c or 0) == idle.temperature_c


def test_energy_is_the_sum_of_the_power() -> None:
    played = Played(CARD)
    busy = [job()]
    readings = [played.one(at, *busy) for at in range(0, 100, 5)]
    pairs = itertools.pairwise(readings)
    expected = sum(5 * ((a.power_w or 0) + (b.power_w or 0)) / 2 for a, b in pairs)
    assert readings[0].energy_j == 0
    assert readings[-1].energy_j == pytest.approx(expected, rel=1e-3)


def test_the_story_goes_on_where_a_probe_ended(memory: int) -> None:
    """How long a job runs, what it left, heat and energy."""
    played = Played(CARDS + '[[jobs]]\nramp = "40s"\nrelease = "1m"', fd=memory)
    played.at(0, job(), job(8, on=1))
    before = played.at(20, job(), job(8, on=1))
    played.new_probe()
    after = played.at(30, job())
    assert [_gib(gpu.memory_used_bytes) for gpu in after] == [6, 4]
    assert after[1].processes == ()
    for old, new in zip(before, after, strict=True):
        assert (new.energy_j or 0) > (old.energy_j or 0) > 0
        assert abs((new.temperature_c or 0) - (old.temperature_c or 0)) < 25
    played.new_probe()
    assert played.used(89) == [8 * 0.75, 4]  # the first has ended too, and stays for a minute
    assert played.used(90) == [6, 0]


# ── whatever the story ──

names = st.integers(0, 3)
moments = st.integers(0, 59).map(lambda s: f"{s}s")
sizes = st.sampled_from(["0M", "500M", "7G", "19G"])
percents = st.integers(0, 100) | st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 100)), min_size=1, max_size=4
).map(lambda points: [[f"{at}s", percent] for at, percent in sorted(points)])


def tables(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({"gpus": names, "from": moments} | keys), max_size=3)


stories = st.fixed_dictionaries(
    {
        "gpu": st.tuples(
            st.just({"count": 2, "memory": "24G", "reserved": "1G", "idle_memory": "1G"}),
            st.sampled_from(
                [
                    {"memory": "24G", "processes": "nothing"},
                    {"memory": "24G", "processes": "no sizes"},
                    {"memory": "48G", "mig": [{"name": "a", "memory": "20G"}]},
                ]
            ),
            st.just({"memory": "none"}),
        ).map(list),
        "jobs": tables(
            uses=st.sampled_from([0, 0.5, 1.0, 3.0]),
            ramp=moments,
            utilization=percents,
            release=moments | st.just("never"),
        ),
        "process": tables(memory=sizes, utilization=percents),
        "load": tables(memory=sizes, utilization=percents),
        "fault": tables(kind=st.sampled_from(["lost", "missing", "unreadable"])),
        "xid": st.lists(
            st.fixed_dictionaries({"gpus": names, "at": moments, "codes": st.just(31)}), max_size=3
        ),
    },
    optional={"repeat": st.just("1m")},
)
steps = st.lists(
    st.tuples(
        st.floats(0.01, 40),
        st.sets(st.tuples(st.integers(1, 3), names), max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(STEADY, max_examples=150)
@given(stories, steps)
def test_readings_hold_together_at_any_time(
    table: dict[str, Any], steps: list[tuple[float, set[tuple[int, int]], bool]]
) -> None:
    fd = os.memfd_create("test")
    try:
        played = Played(CARD, fd=fd)
        played.scenario = scenario_of(table, "/nonexistent/box.toml")
        live_through(played, steps)
    finally:
        os.close(fd)


def live_through(played: Played, steps: list[tuple[float, set[tuple[int, int]], bool]]) -> None:
    uuids = [gpu.uuid for gpu in played.scenario.gpus]
    energies = dict.fromkeys(uuids, 0.0)
    told: dict[str, int] = dict.fromkeys(uuids, 0)
    clock_s = 0.0
    for passed_s, jobs, is_new_probe in steps:
        clock_s += passed_s
        if is_new_probe:
            played.new_probe()
        held = [(uuids[on], id, 100 * id, (5 + id) * GIB) for id, on in sorted(jobs)]
        for gpu in played.at(clock_s, *held):
            check(gpu)
            assert (gpu.energy_j or energies[gpu.uuid]) >= energies[gpu.uuid]
            energies[gpu.uuid] = gpu.energy_j or energies[gpu.uuid]
            told[gpu.uuid] += len(gpu.xids)
    for index, uuid in enumerate(uuids):
        assert told[uuid] <= come(played.scenario, index, clock_s)


def come(story: scenario.Scenario, index: int, clock_s: float) -> int:
    """How many XIDs of a GPU there have been."""
    rounds = 1 if story.repeat_s is None else int(clock_s // story.repeat_s) + 1
    return rounds * sum(index in xid.gpus for xid in story.xids)


def check(gpu: Gpu) -> None:
    if gpu.fault is not None:
        assert (gpu.memory_used_bytes, gpu.processes) == (None, None)
        return
    if gpu.memory_total_bytes is not None and gpu.memory_used_bytes is not None:
        taken = gpu.memory_used_bytes + (gpu.memory_reserved_bytes or 0)
        assert 0 <= taken <= gpu.memory_total_bytes
        known = sum(process.memory_bytes or 0 for process in gpu.processes or ())
        assert known <= gpu.memory_used_bytes
    if gpu.parent is None:
        assert 0 <= (gpu.utilization_percent or 0) <= 100
        assert 0 < (gpu.power_w or 0) <= (gpu.power_limit_w or 0)
        assert 30 < (gpu.temperature_c or 0) < 75
