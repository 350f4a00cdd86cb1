"""GPUs as people read them; what is simulated says so."""

from gpuq.cli.gpu_text import census, gpu_row, gpu_table, process_row, process_table
from gpuq.cli.render import Look
from tests.cli.said import GIB, gpu, process, running, simulated

LOOK = Look(width=80, user="alice", now=2000.0)


def shown(*gpus: dict[str, object], jobs: list | None = None, full: bool = False) -> str:
    return "\n".join(gpu_table(gpus, jobs or [], LOOK, full=full))


def test_each_gpu_says_whose_it_is() -> None:
    vit, evaluation = running(181, name="vit-b"), running(183, name="eval-7", user="bob")
    busy = {"memory_used_bytes": int(71.2 * GIB), "utilization_percent": 97}
    gpus = [
        gpu(0, state="leased", jobs=[181], exclusive=True, **busy),
        gpu(2, state="leased", jobs=[183], memory_used_bytes=int(21.9 * GIB)),
        gpu(
            3, state="foreign", processes=[process(40121)], reason="", temperature_c=66, power_w=345
        ),
        gpu(4),
        gpu(5, state="drained", reason="drained by dan: riser swap"),
    ]
    assert (
        shown(*gpus, jobs=[vit, evaluation])
        == """\
GPU       MEM              UTIL  TEMP    W  JOB
0    71.2/80G  ████████▉░   97%   34C   61  181 vit-b (alice)
2    21.9/80G  ██▊░░░░░░░    0%   34C   61  183 eval-7 (bob), shared
3       0/80G  ░░░░░░░░░░    0%   66C  345  ! outside gpuq: pid 40121 carol
4       0/80G  ░░░░░░░░░░    0%   34C   61  free
5       0/80G  ░░░░░░░░░░    0%   34C   61  drained by dan: riser swap"""
    )


def test_every_row_of_a_simulated_gpu_says_so() -> None:
    lines = shown(simulated(0), simulated(1, state="leased", jobs=[7])).splitlines()
    assert all("simulated" in line for line in lines[1:])
    full = shown(simulated(0), full=True).splitlines()
    assert "simulated" in full[1]


def test_absent_readings_are_dashes_and_readings_that_nobody_gives_no_column() -> None:
    blind = {
        "utilization_percent": None,
        "temperature_c": None,
        "power_w": None,
        "memory_used_bytes": None,
    }
    assert shown(gpu(0, **blind)).splitlines() == ["GPU    MEM  JOB", "0    –/80G  free"]
    assert shown(gpu(0, **blind), gpu(1)).splitlines()[1].split() == [
        "0",
        "–/80G",
        "–",
        "–",
        "–",
        "free",
    ]


def test_somebody_else_beside_our_job_is_named() -> None:
    held = gpu(0, state="leased", jobs=[7], exclusive=True, utilization_percent=None)
    line = shown(held | {"processes": [process(1), process(2)]})
    assert line.endswith("  7, ! outside gpuq: pid 1 carol and 1 more")
    line = shown(held | {"processes": [process(1, user=None)]})
    assert line.endswith("  7, ! outside gpuq: pid 1")


def test_a_gpu_that_is_lost_under_its_job_says_so() -> None:
    held = gpu(0, state="lost", jobs=[7], exclusive=True, reason="fallen off the bus")
    assert shown(held).endswith("  7, ! lost: fallen off the bus")
    drained = gpu(0, state="drained", jobs=[7], exclusive=True, reason="drained by dan: riser swap")
    assert shown(drained).endswith("  7, drained by dan: riser swap")


def test_on_a_pipe_a_gpu_has_the_same_columns_always() -> None:
    assert gpu_row(simulated(1, power_w=None)) == (
        f"1\tGPU-1\tSimulated 24G\tsimulated\tfree\t0\t{24 * GIB}\t0\t34\t\t\t"
    )


def test_processes_say_which_job_they_belong_to() -> None:
    ours = process(4711, user="alice", ours=True, job=181, memory_bytes=GIB)
    lines = process_table([gpu(0, processes=[ours, process(40121)])], LOOK)
    assert [line.split() for line in lines] == [
        ["GPU", "PID", "USER", "MEM", "JOB", "COMMAND"],
        ["0", "4711", "alice", "1G", "181", "python"],
        ["0", "40121", "carol", "40G", "outside", "gpuq", "python"],
    ]
    assert process_row(gpu(0), process(1)) == f"0\tGPU-0\treal\t1\tcarol\t{40 * GIB}\t\tpython\t"


def test_the_census_tells_real_from_simulated() -> None:
    assert census([gpu(0), gpu(1)]) == "2 GPUs"
    assert census([simulated(0)]) == "1 simulated GPU"
    assert census([gpu(0), simulated(1), simulated(2)]) == "1 GPU and 2 simulated GPUs"
