"""The probe as a real process, and what the daemon does when it hangs, dies or finds nothing."""

import asyncio
import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal as signals
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.gpus import Held, Probe, keeper, parse_gpus
from gpuq.daemon.gpus.probe import _Reader
from gpuq.daemon.gpus.simulated.plain import SimulatedBackend, simulated_uuid
from gpuq.daemon.gpus.wire import encode_request
from gpuq.daemon.linux import processes

GIB = 2**30


class Heard:
    """What a Probe told, and a way to wait for it."""

    def __init__(self) -> None:
        self.readings: list[list[Gpu]] = []
        self.times: list[float] = []
        self.troubles: list[str | None] = []
        self.started: list[tuple[int, int]] = []
        self.overlaps = 0  # probes started while an earlier one lived

    def reading(self, gpus: list[Gpu]) -> None:
        self.readings.append(gpus)
        self.times.append(time.monotonic())

    def start(self, pid: int, start: int) -> None:
        self.overlaps += any(processes.is_alive(*one) for one in self.started)
        self.started.append((pid, start))

    @property
    def trouble(self) -> str:
        return (self.troubles[-1] if self.troubles else None) or ""

    async def until(self, condition: Callable[["Heard"], object], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition(self):
            said = (len(self.readings), self.troubles, self.started)
            assert time.monotonic() < deadline, f"it never came true: {said}"
            await asyncio.sleep(0.005)


def probe(heard: Heard, spec: str = "sim:2x24G", **options: Any) -> Probe:
    return Probe(spec, heard.reading, heard.troubles.append, heard.start, **options)


@contextlib.asynccontextmanager
async def running(one: Probe) -> AsyncIterator[Probe]:
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run_with(play: Callable[[Probe, Heard], Awaitable[None]], **options: Any) -> Heard:
    """Runs `play` beside a Probe, and sees to it that none outlives the test."""
    heard = Heard()

    async def scene() -> None:
        async with running(probe(heard, **options)) as one:
            await play(one, heard)

    asyncio.run(scene())
    assert not any(processes.is_alive(*identity) for identity in heard.started)
    assert heard.overlaps == 0
    return heard


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs that a test can wait for."""
    monkeypatch.setattr(keeper, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(keeper, "UNAVAILABLE_BACKOFF_S", 0.02)


# ── readings ──


def test_it_reads_at_once_and_then_at_every_interval() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.1
        await heard.until(lambda heard: len(heard.readings) >= 4)

    heard = run_with(play)
    assert [gpu.model for gpu in heard.readings[0]] == ["Simulated 24G"] * 2
    assert heard.troubles == []
    assert len(heard.started) == 1
    assert heard.times[3] - heard.times[1] >= 0.19


def test_a_new_pace_counts_at_once() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        one.interval_s = 0.05
        await heard.until(lambda heard: len(heard.readings) == 2)

    run_with(play)


def test_whoever_asks_gets_a_reading_at_once_and_only_one() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        for _ in range(3):
            before = len(heard.readings)
            for _ in range(100):
                one.ask()
            await heard.until(lambda heard: len(heard.readings) > before)  # noqa: B023
        await asyncio.sleep(4 * keeper.PAUSE_S)  # time enough for one too many

    assert len(run_with(play).readings) == 4


def test_however_often_somebody_asks_the_driver_has_a_pause() -> None:
    heard = Heard()

    async def play() -> None:
        one = probe(heard)

        def ask_again(gpus: list[Gpu]) -> None:
            heard.reading(gpus)
            one.ask()

        one._on_reading = ask_again
        async with running(one):
            await heard.until(lambda heard: len(heard.readings) >= 8)

    asyncio.run(play())
    assert heard.times[7] - heard.times[2] >= 5 * keeper.PAUSE_S * 0.9


def test_what_jobs_hold_is_the_load_of_simulated_gpus() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        one.held = lambda: [(simulated_uuid(1), 7, 700, 5 * GIB)]
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 2)

    heard = run_with(play)
    assert [gpu.memory_used_bytes for gpu in heard.readings[0]] == [0, 0]
    assert [gpu.memory_used_bytes for gpu in heard.readings[1]] == [0, 5 * GIB]
    assert [[p.job for p in gpu.processes or ()] for gpu in heard.readings[1]] == [[], [7]]


def test_the_largest_machine_full_of_jobs_is_read_too() -> None:
    held = [
        (simulated_uuid(index), 10**9 + index * 8 + slot, 2**22 - slot, 10 * GIB)
        for index in range(64)
        for slot in range(8)
    ]

    async def play(one: Probe, heard: Heard) -> None:
        one.held = lambda: held
        await heard.until(lambda heard: heard.readings)

    heard = run_with(play, spec="sim:64x80G")
    assert [len(gpu.processes or ()) for gpu in heard.readings[0]] == [8] * 64


# ── how it leaves ──


def test_the_probe_leaves_by_itself_when_it_is_no_longer_wanted() -> None:
    async def play() -> "asyncio.Future[int | None]":
        heard = Heard()
        one = probe(heard)
        async with running(one):
            await heard.until(lambda heard: heard.readings)
            assert one._child is not None
            return one._child.gone

    assert asyncio.run(play()).result() == 0


DAEMON = """
import asyncio, sys
from gpuq.daemon.gpus import Probe

def started(pid, start):
    print(pid, start, flush=True)

asyncio.run(Probe("sim:1x24G", lambda gpus: print("read", flush=True), print, started).run())
"""


def test_the_probe_leaves_when_the_daemon_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        pid, start = map(int, daemon.stdout.readline().split())
        assert daemon.stdout.readline() == b"read\n"
        assert processes.is_alive(pid, start)
        daemon.kill()

    async def play() -> None:
        await Heard().until(lambda _: not processes.is_alive(pid, start))

    asyncio.run(play())


def test_a_probe_that_does_not_leave_is_killed() -> None:
    script = "import time\nprint('nonsense', flush=True)\ntime.sleep(3600)"

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.trouble)

    heard = run_with(play, command=[sys.executable, "-c", script])
    assert heard.troubles == ["the GPU probe gave Expecting value: line 1 column 1 (char 0)"]


def test_ctrl_c_in_the_terminal_is_for_the_daemon() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        os.kill(heard.started[0][0], signals.SIGINT)
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 2)

    heard = run_with(play)
    assert (heard.troubles, len(heard.started)) == ([], 1)


def test_what_a_library_prints_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    script = """
import sys, gpuq.daemon.gpus.simulated.plain as simulated
from gpuq.daemon.gpus.probe import main
read = simulated.SimulatedBackend.sample
def noisy(self, held, **wishes):
    print("a greeting from the driver", flush=True)
    return read(self, held, **wishes)
simulated.SimulatedBackend.sample = noisy
sys.argv = ["probe", "sim:1x24G"]
main()
"""

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.readings)

    assert run_with(play, command=[sys.executable, "-c", script]).troubles == []
    assert "a greeting from the driver" in capfd.readouterr().err


# ── trouble ──


@pytest.mark.usefixtures("impatient")
def test_a_killed_probe_is_replaced() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        os.kill(heard.started[0][0], signals.SIGKILL)
        await heard.until(lambda heard: len(heard.readings) == 2)
        assert one._failures == 0

    heard = run_with(play)
    assert len(heard.started) == 2
    assert heard.troubles == ["the GPU probe was killed by signal 9", None]


# Answers while there is no file, hangs in the "driver" while there is one.
HANGS = """
import json, os, sys, time
for line in sys.stdin:
    while os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print(json.dumps({"sample": json.loads(line)["sample"], "gpus": []}), flush=True)
"""


def hanging(flag: Path) -> list[str]:
    return [sys.executable, "-c", HANGS, str(flag)]


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    flag = tmp_path / "hang"

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.05
        await heard.until(lambda heard: heard.readings)
        flag.touch()
        await heard.until(lambda heard: len(heard.started) == 2)
        assert heard.trouble == "the GPU driver does not answer (no reading for 0.3 s)"
        before = len(heard.readings)
        flag.unlink()
        await heard.until(lambda heard: len(heard.readings) > before)

    assert run_with(play, command=hanging(flag), deadline_s=0.3).troubles[-1] is None


def test_a_driver_that_takes_its_time_to_wake_up_is_waited_for(tmp_path: Path) -> None:
    flag = tmp_path / "hang"
    flag.touch()

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.trouble)  # it is told of, but the probe lives
        flag.unlink()
        await heard.until(lambda heard: heard.readings)

    heard = run_with(play, command=hanging(flag), deadline_s=0.3)
    assert heard.troubles == ["the GPU driver does not answer (no reading for 0.3 s)", None]
    assert len(heard.started) == 1


@pytest.mark.usefixtures("impatient")
def test_no_second_probe_is_started_beside_one_that_cannot_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in D state, where SIGKILL waits for the driver: here it is just not sent."""
    flag = tmp_path / "hang"
    flag.touch()
    monkeypatch.setattr(keeper._Child, "kill", lambda self: None)
    monkeypatch.setattr(keeper, "LEAVE_S", 0.05)

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: "even killed" in heard.trouble)
        ((pid, start),) = heard.started
        await asyncio.sleep(0.5)  # many back-offs
        assert heard.started == [(pid, start)]
        assert processes.is_alive(pid, start)
        assert (
            heard.trouble
            == f"the GPU driver does not answer (probe {pid} hangs in it, even killed)"
        )
        flag.unlink()
        os.kill(pid, signals.SIGKILL)
        await heard.until(lambda heard: heard.readings)
        assert len(heard.started) == 2

    run_with(play, command=hanging(flag), deadline_s=0.05)


def test_a_daemon_that_was_stopped_itself_does_not_blame_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer has come in time, but when the loop wakes up the deadline is over too."""
    request = keeper._Child.request

    def stopped_after(
        self: keeper._Child, held: Sequence[Held], processes: bool
    ) -> "asyncio.Future[bytes]":
        if self.requests == 1:
            asyncio.get_running_loop().call_soon(time.sleep, 1.2)
        return request(self, held, processes)

    monkeypatch.setattr(keeper._Child, "request", stopped_after)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.05
        await heard.until(lambda heard: len(heard.readings) >= 2)

    heard = run_with(play, deadline_s=1.0)
    assert (heard.troubles, len(heard.started)) == ([], 1)


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_cannot_be_started_is_explained() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.trouble)

    heard = run_with(play, command=["/nonexistent/python"])
    assert heard.troubles == ["the GPU probe could not be started: No such file or directory"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("impatient")
def test_out_of_descriptors_a_probe_is_tried_again_until_there_are_some() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        before = open_files()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            os.kill(heard.started[0][0], signals.SIGKILL)
            await heard.until(lambda heard: one._failures > 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await heard.until(lambda heard: len(heard.readings) == 2)
        assert open_files() == before

    heard = run_with(play)
    assert heard.troubles[1:] == [
        "the GPU probe could not be started: Too many open files",
        None,
    ]


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_takes_the_last_descriptors_is_known_by_its_start() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        hog = os.open("/dev/null", os.O_RDONLY)  # all numbers below it are taken
        os.close(hog)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hog + 2, limits[1]))
        try:
            os.kill(heard.started[0][0], signals.SIGKILL)
            await heard.until(lambda heard: len(heard.readings) == 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert len(run_with(play).started) == 2


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_cannot_be_watched_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[int] = []
    spawn = keeper._spawn

    def note(*arguments: Any) -> int:
        spawned.append(spawn(*arguments))
        return spawned[-1]

    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def play(one: Probe, heard: Heard) -> None:
        before = open_files()
        with monkeypatch.context() as without:
            without.setattr(keeper, "_spawn", note)
            without.setattr(os, "pidfd_open", refuse)
            await heard.until(lambda heard: one._failures > 2)
        assert heard.troubles == ["the GPU probe could not be started: Too many open files"]
        assert spawned
        assert not [pid for pid in spawned if os.path.exists(f"/proc/{pid}")]
        assert open_files() <= before
        await heard.until(lambda heard: heard.readings)

    run_with(play)


@pytest.mark.usefixtures("impatient")
def test_a_probe_that_ends_at_once_is_explained() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: len(heard.started) == 3)

    heard = run_with(play, command=[sys.executable, "-c", "raise SystemExit(3)"])
    assert heard.troubles == ["the GPU probe ended with exit code 3"]


def test_pauses_between_tries_grow_and_a_good_reading_resets_them() -> None:
    one = probe(Heard())
    assert [one._fail("why", 1.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    one._failures = 0
    assert [one._fail("why", 5.0) for _ in range(6)] == [5, 10, 20, 40, 60, 60]


def has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
@pytest.mark.usefixtures("impatient")
def test_a_machine_without_a_driver_is_asked_again_and_again() -> None:
    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: len(heard.started) == 3)

    heard = run_with(play, spec="nvml")
    assert heard.readings == []
    (trouble,) = heard.troubles
    assert trouble is not None
    assert trouble.startswith("no NVIDIA driver on this machine")
    assert "sim:4x24G" in trouble


# ── the probe of an earlier daemon ──


def test_a_probe_that_an_earlier_daemon_left_is_ended_first() -> None:
    with subprocess.Popen(["sleep", "3600"]) as left:
        previous = processes.identity(left.pid)
        assert previous is not None

        heard = Heard()
        heard.started.append(previous)  # so that a second one beside it would be noticed

        async def scene() -> None:
            async with running(probe(heard, previous=previous)):
                await heard.until(lambda heard: heard.readings)

        asyncio.run(scene())
        assert heard.overlaps == 0
        assert left.wait() == -signals.SIGKILL


def test_a_process_that_only_has_its_pid_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "3600"]) as stranger:
        identity = processes.identity(stranger.pid)
        assert identity is not None

        async def play(one: Probe, heard: Heard) -> None:
            await heard.until(lambda heard: heard.readings)

        run_with(play, previous=(identity[0], identity[1] - 1))
        assert processes.is_alive(*identity)
        stranger.kill()


def test_none_is_started_while_one_of_an_earlier_daemon_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "send", lambda *_, **__: True)  # as if in D state
    monkeypatch.setattr(keeper, "LEAVE_S", 0.05)
    with subprocess.Popen(["sleep", "3600"]) as left:
        previous = processes.identity(left.pid)
        assert previous is not None

        async def play(one: Probe, heard: Heard) -> None:
            await heard.until(lambda heard: "of an earlier daemon hangs" in heard.trouble)
            assert heard.started == []
            left.kill()
            await heard.until(lambda heard: heard.readings)

        heard = run_with(play, previous=previous)
    assert heard.troubles[-1] is None


# ── who computes, when it is wanted ──

# Answers with no GPU, and keeps the requests.
LISTENS = """
import json, sys
with open(sys.argv[1], "a") as kept:
    for line in sys.stdin:
        request = json.loads(line)
        print(request["processes"], file=kept, flush=True)
        print(json.dumps({"sample": request["sample"], "gpus": []}), flush=True)
"""


def test_processes_are_wanted_after_a_change_and_not_by_the_clock(tmp_path: Path) -> None:
    kept = tmp_path / "requests"

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.02
        await heard.until(lambda heard: len(heard.readings) >= 3)
        one.interval_s = 3600
        before = len(heard.readings)
        one.ask()
        await heard.until(lambda heard: len(heard.readings) > before)
        one.processes_wanted = True  # by whoever looks at them
        before = len(heard.readings)
        one.interval_s = 0.02
        await heard.until(lambda heard: len(heard.readings) > before)

    run_with(play, command=[sys.executable, "-c", LISTENS, str(kept)])
    wishes = kept.read_text().split()
    asked = wishes.index("True")
    assert asked >= 3
    assert set(wishes[:asked]) == {"False"}
    assert wishes[-1] == "True"


def test_the_probe_hands_the_wish_for_processes_on() -> None:
    wishes = []

    class Listening(SimulatedBackend):
        def sample(self, held: Sequence[Held], *, processes: bool = True) -> list[Gpu]:
            wishes.append(processes)
            return []

    reader = _Reader(parse_gpus("nvml"))
    reader._backend = Listening([])
    for wish in (True, False):
        reader.answer(encode_request(1, (), processes=wish))
    assert wishes == [True, False]


# ── the driver's library, through the dynamic linker ──

Build = Callable[..., None]
STUB = Path(__file__).with_name("libnvidia_stub.c")


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds a libnvidia-ml.so.1 that every probe finds. `told` is its environment."""

    def build(*without: str, **told: object) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("NOT TESTED: the library of the driver is built with cc, and there is none")
        macros = [f"-DWITHOUT_{name}" for name in without]
        library = tmp_path / "libnvidia-ml.so.1"
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *macros]
        subprocess.run([*command, "-o", library, STUB], check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        for name, value in told.items():
            monkeypatch.setenv(f"STUB_{name}", str(value))

    return build


# The probe as on the host, also where these tests run in a container: its pids are the driver's.
ON_THE_HOST = """
import sys
from gpuq.daemon.gpus.nvml import occupants
from gpuq.daemon.gpus.probe import main
occupants.sees_pids_of_the_driver = lambda proc: True
sys.argv = ["probe", "nvml"]
main()
"""


def read_driver() -> list[Gpu]:
    """The first reading that a probe gives of the driver's library."""

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.readings)

    heard = run_with(play, command=[sys.executable, "-c", ON_THE_HOST])
    assert heard.troubles == []
    return heard.readings[0]


def test_the_drivers_library_is_found_loaded_and_read(stub: Build) -> None:
    stub(XID=31)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 3600
        await heard.until(lambda heard: heard.readings)
        one.ask()
        await heard.until(lambda heard: len(heard.readings) == 2)

    heard = run_with(play, spec="nvml")
    assert heard.troubles == []
    one, other = heard.readings[0]
    assert (one.index, one.uuid, one.bus_id) == (0, "GPU-stub-0", "00000000:17:00.0")
    assert (other.index, other.uuid, other.bus_id) == (1, "GPU-stub-1", "00000000:65:00.0")
    assert (one.model, one.utilization_percent, one.fault) == ("NVIDIA Stub", 37, None)
    assert (one.memory_total_bytes, one.memory_used_bytes) == (80 * GIB, 3 * GIB)
    assert one.memory_reserved_bytes == 600 * 2**20
    assert (one.temperature_c, one.power_w, one.energy_j) == (None, None, None)  # it has no such
    # The driver numbers them the other way round, and an event comes with the handle of its GPU.
    assert [[gpu.xids for gpu in gpus] for gpus in heard.readings] == [[(31,), ()], [(), ()]]


@pytest.mark.parametrize("stride", [16, 24, 32])
def test_records_of_every_layout_that_drivers_had_are_told_apart(stub: Build, stride: int) -> None:
    with subprocess.Popen(["sleep", "3600"]) as sleeper:
        try:
            stub(PIDS=f"{os.getpid()},{sleeper.pid}", STRIDE3=stride)
            idle, used = read_driver()
        finally:
            sleeper.kill()
    assert idle.processes == ()
    assert {p.pid: (p.memory_bytes, p.command) for p in used.processes or ()} == {
        os.getpid(): (GIB, Path(sys.orig_argv[0]).name),
        sleeper.pid: (GIB, "sleep"),
    }


def test_where_no_layout_fits_nobody_is_named(stub: Build) -> None:
    stub(PIDS=f"{os.getpid()},{os.getppid()}", STRIDE2=16, STRIDE3=32)
    idle, used = read_driver()
    assert (idle.processes, used.processes) == ((), None)
    assert (used.fault, used.memory_used_bytes) == (None, 3 * GIB)


def test_a_library_without_the_newest_calls_is_read_by_the_older(stub: Build) -> None:
    stub("V3", "MEMORY_V2", PIDS=os.getpid())
    _, used = read_driver()
    assert [process.pid for process in used.processes or ()] == [os.getpid()]
    assert (used.memory_used_bytes, used.memory_reserved_bytes) == (3 * GIB + 600 * 2**20, None)


def test_a_gpu_that_is_lost_in_the_library_leaves_the_other(stub: Build) -> None:
    stub(LOST=0)
    well, lost = read_driver()
    assert (well.fault, well.memory_used_bytes) == (None, 3 * GIB)
    assert (lost.uuid, lost.is_lasting) == ("GPU-stub-1", True)
    assert "fallen off the bus" in (lost.fault or "")


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_was_upgraded_under_its_library_is_explained(stub: Build) -> None:
    stub(INIT=18)

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: len(heard.started) == 2)

    assert run_with(play, spec="nvml").troubles == [
        "the NVIDIA driver was upgraded while it was loaded: reboot, or reload the kernel module"
    ]


@pytest.mark.usefixtures("impatient")
def test_a_call_that_hangs_in_the_library_hangs_the_probe_alone(
    stub: Build, tmp_path: Path
) -> None:
    flag = tmp_path / "hang"
    stub(HANG=flag)

    async def play(one: Probe, heard: Heard) -> None:
        one.interval_s = 0.05
        await heard.until(lambda heard: heard.readings)
        flag.touch()
        await heard.until(lambda heard: len(heard.started) == 2)
        flag.unlink()
        before = len(heard.readings)
        await heard.until(lambda heard: len(heard.readings) > before)

    heard = run_with(play, spec="nvml", deadline_s=0.5)
    assert "the GPU driver does not answer (no reading for 0.5 s)" in heard.troubles
    assert heard.troubles[-1] is None


# ── thrift ──


def test_the_probe_imports_little_and_stays_small() -> None:
    script = """
import sys
import gpuq.daemon.gpus.probe, gpuq.daemon.gpus.simulated
heavy = {"asyncio", "pynvml", "psutil", "ctypes", "subprocess", "threading", "socket", "apsw"}
print(sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"

    async def play(one: Probe, heard: Heard) -> None:
        await heard.until(lambda heard: heard.readings)
        status = Path(f"/proc/{heard.started[0][0]}/status").read_text()
        (resident,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        assert int(resident.split()[1]) < 20_000  # kB
        assert "Threads:\t1\n" in status

    run_with(play, spec="sim:8x80G")
