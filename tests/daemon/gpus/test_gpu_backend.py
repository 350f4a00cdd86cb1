"""The words for GPUs, simulated ones, and how a reading travels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.gpus import BackendSpec, GpusUnavailable, Held, parse_gpus
from gpuq.daemon.gpus.simulated.plain import SimulatedBackend, SimulatedGpu, simulated_uuid
from gpuq.daemon.gpus.wire import (
    decode_answer,
    decode_request,
    encode_reading,
    encode_request,
    encode_unavailable,
)
from gpuq.errors import UsageError

GIB = 2**30


def simulated(text: str) -> list[tuple[str, int]]:
    return [(gpu.model, gpu.memory_bytes // GIB) for gpu in parse_gpus(text).simulated]


# ── words ──


def test_the_words_for_gpus() -> None:
    assert parse_gpus("nvml") == BackendSpec(kind="nvml")
    assert parse_gpus("none") == BackendSpec(kind="none")
    assert parse_gpus("scenario:a.toml") == BackendSpec(kind="scenario", scenario="a.toml")
    assert simulated("sim:2x24G") == [("Simulated 24G", 24)] * 2
    assert simulated("sim:1x80G + 1x24GiB") == [("Simulated 80G", 80), ("Simulated 24G", 24)]
    assert simulated("sim:1x80G:H100+1x24G:RTX 4090") == [("H100", 80), ("RTX 4090", 24)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cuda",
        "sim",
        "sim:",
        "sim:4",
        "sim:4x",
        "sim:x24G",
        "sim:0x24G",
        "sim:1x0G",
        "sim:4x24",
        "sim:-1x24G",
        "sim:1x24G:",
        "sim:1x24G: ",
        "sim:1x24G:a:b",
        "sim:1x24G:\x1b[2J",
        "sim:1x24G+",
        "sim:65x24G",
        "sim:32x24G+33x80G",
        "sim:9999x24G",
        "scenario",
        "scenario:",
    ],
)
def test_other_words_are_refused_in_a_line_that_says_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_gpus(text)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert "write nvml, nvml:0-3 for some of the machine's, none, " in str(refusal.value)


@given(st.text(max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, f"sim:{text}", f"sim:1x24G:{text}"):
        try:
            parse_gpus(candidate)
        except UsageError:
            pass


# ── simulated GPUs ──


def backend(*sizes_gib: int) -> SimulatedBackend:
    return SimulatedBackend(
        [SimulatedGpu(model="Toy", memory_bytes=size * GIB) for size in sizes_gib]
    )


def test_a_simulated_gpu_is_idle_until_a_job_holds_it() -> None:
    idle = backend(24, 80).sample([])

    assert [gpu.index for gpu in idle] == [0, 1]
    assert all(gpu.simulated and gpu.cools_at_once and gpu.fault is None for gpu in idle)
    assert [gpu.memory_total_bytes for gpu in idle] == [24 * GIB, 80 * GIB]
    assert [(gpu.memory_used_bytes, gpu.utilization_percent) for gpu in idle] == [(0, 0)] * 2
    assert [gpu.processes for gpu in idle] == [(), ()]


def test_its_load_is_what_the_jobs_on_it_declare() -> None:
    uuid = simulated_uuid(1)
    held = [(uuid, 7, 700, 5 * GIB), (uuid, 8, 800, 3 * GIB), (uuid, 9, 900, None)]
    free, loaded = backend(24, 24).sample(held)

    assert (free.memory_used_bytes, free.utilization_percent) == (0, 0)
    assert loaded.memory_used_bytes == 8 * GIB
    assert loaded.utilization_percent == 90
    assert [(p.job, p.pid, p.memory_bytes) for p in loaded.processes or ()] == [
        (7, 700, 5 * GIB),
        (8, 800, 3 * GIB),
        (9, 900, None),
    ]
    assert loaded.foreign_processes == ()


def test_simulated_uuids_are_stable_and_of_the_usual_shape() -> None:
    first, second = backend(24, 24).sample([]), backend(24, 24).sample([])
    assert [gpu.uuid for gpu in first] == [gpu.uuid for gpu in second]
    assert first[1].uuid == "GPU-51750000-0000-4000-8000-000000000001"
    assert len({gpu.bus_id for gpu in first}) == 2


def test_it_warms_up_under_load_and_cools_down_again() -> None:
    toy = backend(24)
    held = [(simulated_uuid(0), 7, 700, GIB)]
    idle = toy.sample([])[0]
    warmer = [toy.sample(held)[0].temperature_c or 0 for _ in range(40)]
    cooler = [toy.sample([])[0].temperature_c or 0 for _ in range(40)]

    assert warmer == sorted(warmer)
    assert warmer[-1] > (idle.temperature_c or 0) + 20
    assert cooler[-1] == idle.temperature_c


def test_its_power_stays_below_the_limit_and_shows_the_load() -> None:
    toy = backend(80)
    idle = [toy.sample([])[0].power_w or 0 for _ in range(20)]
    busy = [toy.sample([(simulated_uuid(0), 7, 700, GIB)])[0] for _ in range(20)]

    assert max(idle) < min(gpu.power_w or 0 for gpu in busy)
    assert all((gpu.power_w or 0) < (gpu.power_limit_w or 0) for gpu in busy)
    assert len({gpu.power_w for gpu in busy}) > 1  # the screen lives


# ── on the wire ──

sizes = st.none() | st.integers(0, 2**50)
processes = st.builds(
    GpuProcess,
    pid=st.integers(1, 2**22),
    user=st.none() | st.text(),
    command=st.none() | st.text(),
    memory_bytes=sizes,
    job=st.none() | st.integers(1),
)
gpus = st.builds(
    Gpu,
    index=st.integers(0, 63),
    uuid=st.text(),
    model=st.text(),
    simulated=st.booleans(),
    bus_id=st.none() | st.text(),
    memory_total_bytes=sizes,
    memory_used_bytes=sizes,
    memory_reserved_bytes=sizes,
    power_w=st.none() | st.floats(0, 2000),
    processes=st.none() | st.lists(processes).map(tuple),
    fault=st.none() | st.text(),
)


@given(st.lists(gpus, max_size=4), st.integers(0))
def test_a_reading_arrives_as_it_left(reading: list[Gpu], number: int) -> None:
    line = encode_reading(number, reading)
    assert line.index(b"\n") == len(line) - 1
    assert decode_answer(line, number) == reading


def test_a_request_arrives_as_it_left() -> None:
    held: list[Held] = [("GPU-1", 7, 700, None), ("GPU-2", 8, 800, GIB)]
    assert decode_request(encode_request(3, held)) == (3, held, True)
    assert decode_request(encode_request(4, held, processes=False)) == (4, held, False)
    assert decode_request(b'{"sample": 5, "held": []}') == (5, [], True)  # from before an upgrade


def test_a_newer_probe_may_say_more() -> None:
    newer = (
        b'{"sample":1,"clock":5,"gpus":[{"index":0,"uuid":"GPU-1","model":"H300","simulated":false,'
        b'"fan":3,"processes":[{"pid":1,"user":null,"command":null,"memory_bytes":null,"sm":9}]}]}'
    )
    (gpu,) = decode_answer(newer, 1)
    assert (gpu.model, gpu.processes and gpu.processes[0].pid) == ("H300", 1)


def test_why_there_are_no_gpus_arrives_too() -> None:
    with pytest.raises(GpusUnavailable, match="no driver"):
        decode_answer(encode_unavailable(4, "no driver"), 4)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Killed\n",
        b"\xff\n",
        b"7\n",
        b"[]\n",
        b"{}\n",
        b'{"sample":1}\n',
        b'{"sample":2,"gpus":[]}\n',
        b'{"sample":1,"gpus":[7]}\n',
        b'{"sample":1,"gpus":[{"index":0}]}\n',
    ],
)
def test_what_is_no_answer_is_told_from_one(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_answer(line, 1)


def test_some_of_the_machines_gpus_can_be_named() -> None:
    assert parse_gpus("nvml:0-1,3").indices == {0, 1, 3}
    assert parse_gpus("nvml").indices is None
    with pytest.raises(UsageError, match="nvml:0-3"):
        parse_gpus("nvml:a")
    with pytest.raises(UsageError, match="up to 63"):
        parse_gpus("nvml:0-99999999999")
