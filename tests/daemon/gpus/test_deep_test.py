"""The test of a GPU finds what is wrong with it, and nothing else. The GPUs are faked, and they alone:
one by torch on the CPU, one by a driver of ours, one by a scenario."""

import json
import select
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpuq.daemon.gpus.deep_test import GpuTrouble, Undecided, by_driver, simulated
from tests import stub_cuda
from tests.stub_cuda import UUID

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch without NumPy complains
    import torch
    from torch.overrides import TorchFunctionMode

    from gpuq.daemon.gpus.deep_test import by_torch

PATIENCE_S = 60.0
SMALL = by_torch.Sizes(
    reference=16, side=32, compute_s=0.0, chunk_bytes=2**12, memory_bytes=5 * 2**12
)


# ─── by torch ────────────────────────────────────────────────────────────────────────────────────


def told_by_torch() -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    by_torch.examine(lambda **facts: steps.append(facts), "cpu", SMALL)
    return steps


class Broken(TorchFunctionMode):
    """A device on which some functions of torch come out wrong: `spoil` gets the name, how often it was
    called, and the result."""

    def __init__(self, spoil: Callable[[str, int, Any], Any]) -> None:
        self.spoil = spoil
        self.calls: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        is_single = isinstance(made, torch.Tensor) and made.dtype is not torch.float64
        if not is_single:  # what the CPU reckons for comparison is right
            return made
        name = func.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        return self.spoil(name, self.calls[name], made)


def found_by_torch(spoil: Callable[[str, int, Any], Any]) -> str:
    with Broken(spoil), pytest.raises(GpuTrouble) as trouble:
        told_by_torch()
    return str(trouble.value)


def test_a_device_that_is_well_passes_and_tells_its_speeds() -> None:
    arithmetic, memory = told_by_torch()
    assert arithmetic["tflops"] > 0
    assert memory["memory_gb_s"] > 0
    assert memory["memory_bytes"] == 4 * 2**12, "one chunk is for the numbers to compare with"


def test_a_sum_that_comes_out_wrong_is_found() -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == "matmul":
            made[3, 5] += 1.0
        return made

    assert found_by_torch(spoil) == "1 of 256 sums of a matrix product came out wrong"


def test_a_sum_that_comes_out_otherwise_the_next_time_is_found() -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == "matmul" and call == 3:
            made[0, 0] -= 1.0
        return made

    assert found_by_torch(spoil) == (
        "a matrix product came out otherwise when it was computed again"
    )


def test_a_bit_of_memory_that_is_stuck_is_found_at_1_and_at_0() -> None:
    def at_1(name: str, call: int, made: Any) -> Any:
        if name == "arange" and call == 2:
            made[7] |= 1 << 40
        return made

    def at_0(name: str, call: int, made: Any) -> Any:
        if name == "bitwise_not_" and call == 1:
            made[7] &= ~(1 << 40)
        return made

    for spoil in (at_1, at_0):
        assert found_by_torch(spoil) == "1 words of its memory came back changed"


def test_memory_that_others_took_meanwhile_is_no_fault() -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == "empty" and call > left:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made

    left = 3
    with Broken(spoil):
        assert told_by_torch()[-1]["memory_bytes"] == 2 * 2**12
    left = 1
    with Broken(spoil), pytest.raises(Undecided, match="in use by others"):
        told_by_torch()


@pytest.mark.parametrize("step", ["matmul", "zeros"])
def test_memory_that_others_have_at_any_step_is_no_fault(step: str) -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == step:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made

    with Broken(spoil), pytest.raises(Undecided, match="in use by others"):
        told_by_torch()


def test_an_error_of_the_driver_is_one_of_the_gpu() -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == "arange":
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCompile with …")
        return made

    assert found_by_torch(spoil) == "CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("CUDA error: out of memory", "its memory is in use by others"),
        (
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "its memory is in use by others",
        ),
        (
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "the library that multiplies matrices could not begin",
        ),
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "it is in use by others, and in a compute mode that lets nobody in beside them",
        ),
        (
            "CUDA error: no kernel image is available for execution on the device",
            "this torch was not built for it",
        ),
        (
            "libnvrtc.so.12: cannot open shared object file: No such file or directory",
            "a library that torch needs could not be loaded",
        ),
        (
            "Could not load library libcublasLt.so.12",
            "a library that torch needs could not be loaded",
        ),
    ],
)
def test_an_error_that_is_none_of_the_gpu_is_not_held_against_it(words: str, why: str) -> None:
    def spoil(name: str, call: int, made: Any) -> Any:
        if name == "matmul":
            raise RuntimeError(f"{words}\nCompile with …")
        return made

    with Broken(spoil), pytest.raises(Undecided) as undecided:
        told_by_torch()
    assert str(undecided.value) == f"{why} ({words})"


def test_every_sum_is_exact_in_single_precision_at_full_size() -> None:
    sizes = by_torch.Sizes()
    assert by_torch.LARGEST**2 * max(sizes.side, sizes.reference) < 2**24


# ─── by the driver ───────────────────────────────────────────────────────────────────────────────

BY_DRIVER = """
import json, sys
from gpuq.daemon.gpus.deep_test import GpuTrouble, Undecided, by_driver
by_driver.CHUNK_BYTES = 2**18
try:
    by_driver.examine(sys.argv[1], lambda **facts: print(json.dumps(facts)))
except (GpuTrouble, Undecided) as error:
    print(json.dumps({type(error).__name__: str(error)}))
"""


def told_by_driver(folder: Path, fault: str = "", uuid: str = UUID) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [sys.executable, "-c", BY_DRIVER, uuid],
        env=stub_cuda.environment(folder, fault),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_memory_that_is_well_passes(tmp_path: Path) -> None:
    by, memory = told_by_driver(tmp_path)
    assert by == {"by": "the CUDA driver"}
    assert memory["memory_gb_s"] > 0
    assert memory["memory_bytes"] == 10 * 2**18, "of the nine tenths of what is free"


def test_an_instance_of_mig_answers_with_the_name_of_its_card(tmp_path: Path) -> None:
    assert told_by_driver(tmp_path, uuid="MIG-1")[-1]["memory_bytes"] == 10 * 2**18


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        ("flips", "what was written to its memory came back changed, near byte 0 of 2621440"),
        ("stuck", "what was written to its memory came back changed, near byte 0 of 2621440"),
        ("alias", "what was written to its memory came back changed, near byte 0 of 2621440"),
        ("ecc", "an error in its memory that could not be corrected"),
        ("odd", "cuMemcpyDtoH_v2: CUDA_ERROR_ILLEGAL_ADDRESS (700)"),
        ("no device", "CUDA does not find it"),
        ("mismatch", "the loaded driver and its library are of different versions: reboot"),
    ],
)
def test_what_is_wrong_with_a_memory_is_found(tmp_path: Path, fault: str, trouble: str) -> None:
    assert told_by_driver(tmp_path, fault)[-1] == {"GpuTrouble": trouble}


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("full", "its memory is in use by others"),
        (
            "exclusive",
            "it is in use by others, and in a compute mode that lets nobody in beside them",
        ),
        ("another", "CUDA shows another GPU in its place"),
    ],
)
def test_what_says_nothing_of_a_memory_is_no_fault(tmp_path: Path, fault: str, why: str) -> None:
    assert told_by_driver(tmp_path, fault)[-1] == {"Undecided": why}


def test_the_driver_too_may_have_given_memory_to_others_meanwhile(tmp_path: Path) -> None:
    assert told_by_driver(tmp_path, "taken")[-1]["memory_bytes"] == 6 * 2**18


class Memory:
    """Of a GPU by the driver. One of its bits is stuck, if any; to read a chunk back takes a second."""

    def __init__(self, *, at_1: int = 0, at_0: int = 0) -> None:
        self.at_1, self.at_0 = at_1, at_0
        self.words: dict[int, int] = {}
        self.clock_s = 0.0

    def fill(self, chunk: int, pattern: int) -> None:
        self.words[chunk] = pattern & ~self.at_0 | self.at_1

    def holds(self, chunk: int, pattern: int) -> bool:
        self.clock_s += 1.0
        return self.words[chunk] == pattern


def read_back(memory: Memory, chunks: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(by_driver, "time", SimpleNamespace(monotonic=lambda: memory.clock_s))
    return by_driver._write_and_read(cast(Any, memory), range(chunks))


@pytest.mark.parametrize("bit", range(32))
def test_the_driver_too_finds_each_bit_that_is_stuck_at_1_or_at_0(
    bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pattern has there: its opposite has the other."""
    for stuck in ({"at_1": 1 << bit}, {"at_0": 1 << bit}):
        with pytest.raises(GpuTrouble, match="near byte 0 of"):
            read_back(Memory(**stuck), 1, monkeypatch)


@pytest.mark.parametrize(("chunks", "read"), [(5, 5), (20, 20), (40, 26)])
def test_what_was_read_back_counts_once_though_the_time_ends_in_the_second_round(
    chunks: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_back(Memory(), chunks, monkeypatch)
    assert found == read * by_driver.CHUNK_BYTES


def test_the_speed_of_a_copy_is_that_of_its_quickest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    took_s = iter(0.002 - 0.0001 * number for number in range(by_driver.COPIES))
    driver = SimpleNamespace(copy_s=lambda source, target: next(took_s))
    speed = by_driver._copy_speed(cast(Any, driver), (0, 1))
    assert speed == pytest.approx(2 * by_driver.CHUNK_BYTES / 0.0001 / 1e9)


# ─── the process ─────────────────────────────────────────────────────────────────────────────────


def child(*words: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gpuq.daemon.gpus.deep_test", *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def told(*words: str, environment: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """What a child says while its stdin stays open."""
    with child(*words, environment=environment) as testing:
        assert testing.stdout is not None
        lines = testing.stdout.read().splitlines()
        assert testing.wait(PATIENCE_S) == 0
    return [json.loads(line) for line in lines]


def test_without_a_torch_that_speaks_cuda_the_driver_is_asked(tmp_path: Path) -> None:
    found = stub_cuda.environment(tmp_path, "no device", torch=True)
    by_a_torch, by_driver, verdict = told("cuda", UUID, environment=found)
    assert by_a_torch["by"].startswith("torch ")
    assert by_driver == {"by": "the CUDA driver"}
    assert verdict == {"verdict": "bad", "trouble": "CUDA does not find it"}


def test_where_neither_is_there_nothing_is_said_of_the_gpu(tmp_path: Path) -> None:
    found = stub_cuda.environment(tmp_path) | {"LD_LIBRARY_PATH": ""}
    assert told("cuda", UUID, environment=found) == [
        {
            "verdict": "undecided",
            "trouble": "there is neither torch with CUDA nor libcuda.so.1",
        }
    ]


def test_a_child_leaves_when_its_daemon_does_though_it_hangs_in_a_call(tmp_path: Path) -> None:
    found = stub_cuda.environment(tmp_path, "hangs")
    with child("cuda", UUID, environment=found) as testing:
        assert testing.stdin is not None
        assert testing.stdout is not None
        assert json.loads(testing.stdout.readline()) == {"by": "the CUDA driver"}
        assert testing.poll() is None
        testing.stdin.close()
        try:
            assert testing.wait(PATIENCE_S) == 0
        finally:
            testing.kill()


def test_it_leaves_too_where_its_daemon_was_killed_before_it_had_read_all(tmp_path: Path) -> None:
    """Then the line is reset, and does not just end."""
    ours, theirs = socket.socketpair()
    with theirs:
        testing = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpuq.daemon.gpus.deep_test", "cuda", UUID],
            env=stub_cuda.environment(tmp_path, "hangs"),
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
    with ours, testing:
        try:
            assert select.select([ours], [], [], PATIENCE_S)[0]
            ours.close()
            assert testing.communicate(timeout=PATIENCE_S)[1] == b""
            assert testing.returncode == 0
        finally:
            testing.kill()


def test_a_simulated_gpu_is_tested_in_little() -> None:
    assert told("simulated", "sim:2x24G", "0", "0") == [
        {"by": "simulated"},
        {"tflops": None},
        {"memory_gb_s": None, "memory_bytes": simulated.MEMORY_BYTES},
        {"verdict": "good"},
    ]


def test_a_scenario_says_how_the_test_of_its_gpus_goes(tmp_path: Path) -> None:
    story = tmp_path / "story.toml"
    story.write_text("""
        [[gpu]]
        count = 2
        memory = "24G"
        [[test]]
        tflops = 145
        memory_gb_s = 680
        [[test]]
        gpus = 1
        from = { file = "broken" }
        fails = "1 of 512 products was wrong"
    """)
    spec = f"scenario:{story}"
    (tmp_path / "broken").touch()
    well, ill = told("simulated", spec, "0", "0"), told("simulated", spec, "1", "0")
    assert well[1:3] == [
        {"tflops": 145.0},
        {"memory_gb_s": 680.0, "memory_bytes": simulated.MEMORY_BYTES},
    ]
    assert well[-1] == {"verdict": "good"}
    assert ill[-1] == {"verdict": "bad", "trouble": "1 of 512 products was wrong"}
    (tmp_path / "broken").unlink()
    assert told("simulated", spec, "1", "0")[-1] == {"verdict": "good"}
