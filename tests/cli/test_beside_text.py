"""What people read of a job that makes do with the CPU, is a container, or wants something done when it
is ended; and that it can be submitted like that again."""

import shlex
from typing import Any

from gpuq.cli.job_page import job_fields
from gpuq.cli.job_text import gpus_of, why_lines
from gpuq.cli.render import Look
from gpuq.cli.submit_again import submit_line
from tests.cli.said import GIB, in_full, job, running

LOOK = Look(width=100, user="alice", now=2000.0)
ASKED: dict[str, Any] = {
    "gpus": 2,
    "gpu_mem_bytes": 8 * GIB,
    "exclusive": False,
    "gpu_model": "H100",
    "gpu_ids": [],
    "exclude_gpus": [],
    "max_util": None,
}
FALLEN: dict[str, Any] = {
    "gpu_count": 0,
    "gpus": [],
    "gpu_mem_bytes": None,
    "exclusive": True,
    "device": "cpu",
    "cpu_after_s": 600.0,
    "cpu_fallback": ASKED,
}


def test_the_list_marks_who_makes_do_with_the_cpu() -> None:
    assert gpus_of(running(7, **FALLEN)) == "cpu"
    assert gpus_of(job(7, gpu_count=0)) == "-"


def test_why_says_what_it_waited_for_and_how_to_ask_for_it_again() -> None:
    for one in (running(7, **FALLEN), job(7, **FALLEN)):
        lines = why_lines(in_full(one), LOOK, simulated=False)
        assert lines[1] == (
            "It waited 10:00 for 2 GPUs and makes do with the CPU now. "
            "To ask for them again: gpuq requeue 7."
        )


def test_in_full_it_says_so_too() -> None:
    fields = dict(job_fields(in_full(running(7, **FALLEN), **FALLEN)))
    assert fields["cpu fallback"] == "it asked for 2 GPUs; gpuq requeue 7 asks for them again"
    assert fields["device"] == "cpu"


def test_it_is_submitted_again_with_all_that_it_asked_for() -> None:
    command = "echo 'a b' >there"
    line = shlex.join(submit_line(in_full(job(7, **FALLEN), **FALLEN, on_kill=command)))
    assert "submit -g 2 " in line
    assert "--gpu-mem 8G --gpu-model H100" in line
    assert "--cpu-after 10m" in line
    assert f"--on-kill {shlex.quote(command)}" in line
