"""What is asked for beside the command itself: the CPU after a while, a command for the end, and a
container."""

from typing import Any

import pytest

from gpuq.core.asked.spec import Spec, read_spec
from gpuq.errors import UsageError


def read(*, default_gpus: int = 1, **fields: Any) -> Spec:
    wire = {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32} | fields
    return read_spec(wire, default_gpus=default_gpus, grace_s=10.0)


def test_how_long_it_waits_for_gpus_is_a_part_of_what_it_asks_for() -> None:
    assert read(cpu_after_s=600).request.cpu_after_s == 600.0
    assert read().request.cpu_after_s is None


@pytest.mark.parametrize("seconds", [0, -1, "10m", True])
def test_that_is_a_length_of_time(seconds: object) -> None:
    with pytest.raises(UsageError, match=r"cpu.after"):
        read(cpu_after_s=seconds)


def test_who_wants_no_gpu_waits_for_none() -> None:
    with pytest.raises(UsageError, match="--gpus 0 takes no --cpu-after: it gets no GPU"):
        read(gpus=0, cpu_after_s=600)


def test_where_there_is_no_gpu_it_has_come_to_that_already() -> None:
    request = read(default_gpus=0, cpu_after_s=600).request
    assert (request.gpus, request.cpu_after_s) == (0, None)


def test_a_command_for_the_end_is_taken_byte_for_byte() -> None:
    assert read(on_kill="echo 'a b' \udcff").on_kill == b"echo 'a b' \xff"
    for text in ("", " \n", 7, ["true"]):
        with pytest.raises(UsageError, match="--on-kill"):
            read(on_kill=text)


def test_a_container_that_would_leave_its_job_at_once_is_refused() -> None:
    with pytest.raises(UsageError, match="Leave out -d"):
        read(argv=["docker", "run", "-d", "image"])
    with pytest.raises(UsageError, match="--cidfile"):
        read(argv=["podman", "run", "--cidfile=x", "image"])
    assert read(argv=["docker", "run", "image", "-d"])


def test_a_script_of_that_name_is_no_client() -> None:
    assert read(argv=["docker", "run", "-d"], script="#!/bin/sh\ntrue", interpreter=["/bin/sh"])
