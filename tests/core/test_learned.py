"""A command is known again, and asks for what it used, with some room."""

import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.asked.spec import Spec, read_spec
from gpuq.core.gpus.learned import (
    FADING,
    STEP_BYTES,
    Known,
    note,
    program_words,
    remember,
    resolve,
)
from gpuq.core.model import Request
from gpuq.core.policy import Policy
from gpuq.errors import UsageError
from tests.builders import GIB, MIB, STEADY, gpu

POLICY = Policy()
MACHINE = [gpu(0, "24G"), gpu(1, "24G")]
ASKS = Request(gpus=1)


def known(peak: float, runs: int = 3) -> Known:
    return Known(peak_bytes=int(peak * GIB), runs=runs, last_job=181)


# ─── which command it is ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("./train --lr 1", "./train"),
        ("python train.py --lr 1", "python train.py"),
        ("python -u -X dev train.py out.py", "python train.py"),
        ("/usr/bin/python3.11 -m pkg.train --lr 1", "/usr/bin/python3.11 -m pkg.train"),
        ("python -c 'import a; a.run()'", "python -c 'import a; a.run()'"),
        ("python", "python"),
        ("python tool --lr 1", "python tool"),
        ("bash run.sh 1", "bash run.sh"),
        ("/bin/sh -c 'make && ./a.out'", "/bin/sh -c 'make && ./a.out'"),
        ("bash -lc ./a.out", "bash -lc ./a.out"),
        ("torchrun --nproc_per_node 4 --nnodes=1 train.py --lr 1", "torchrun train.py"),
        ("torchrun --nproc_per_node 4 -m pkg.train", "torchrun -m pkg.train"),
        ("python -m torch.distributed.run --nproc_per_node 4 train.py", "python train.py"),
        ("accelerate launch --config_file four.yaml train.py", "accelerate train.py"),
        ("uv run --with torch python train.py", "uv train.py"),
        ("uv run tool --lr 1", "uv tool"),
        ("env A=1 nice -n 5 ./a.out", "env ./a.out"),
        ("nice -n 5 ./a.out", "nice ./a.out"),
    ],
)
def test_a_command_is_what_it_runs_with_whatever_options(line: str, words: str) -> None:
    argv = [word.encode() for word in shlex.split(line)]
    assert program_words(argv) == tuple(word.encode() for word in shlex.split(words))


@STEADY
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=8))
def test_every_command_has_a_name_that_is_part_of_it(argv: list[bytes]) -> None:
    words = program_words(argv)
    assert words[0] == argv[0]
    assert set(words) <= {*argv, b""}


# ─── what is remembered ──────────────────────────────────────────────────────────────────────────


def test_the_first_run_is_remembered_as_it_was() -> None:
    assert remember(6 * GIB, None, job=7) == Known(peak_bytes=6 * GIB, runs=1, last_job=7)


def test_a_larger_run_counts_at_once_and_an_older_one_fades() -> None:
    more = remember(8 * GIB, known(6), job=182)
    assert more == Known(peak_bytes=8 * GIB, runs=4, last_job=182)
    less = remember(2 * GIB, known(6), job=182)
    assert less.peak_bytes == int(6 * GIB * FADING)


# ─── what is asked for ───────────────────────────────────────────────────────────────────────────


def test_who_is_unknown_has_his_gpu_alone() -> None:
    resolved = resolve(Request(gpus=1, max_util=50), None, MACHINE, POLICY)
    assert resolved.request == Request(gpus=1), "who is alone needs no --max-util"
    assert resolved.words == (
        "--gpu-mem auto: nothing is known of this command yet, so it has its GPU alone"
    )
    assert not resolved.is_known
    several = resolve(Request(gpus=2), None, MACHINE, POLICY)
    assert several.words.endswith("so it has its GPUs alone")


def test_who_is_known_asks_for_what_he_used_and_some_more() -> None:
    resolved = resolve(ASKS, known(6), MACHINE, POLICY)
    assert resolved.request == Request(gpus=1, gpu_mem_bytes=int(7.5 * GIB), exclusive=False)
    assert resolved.words == "asks for 7.5G: it used 6G at most before (job 181, 3 runs)"
    once = resolve(ASKS, known(6, runs=1), MACHINE, POLICY)
    assert once.words.endswith("(job 181, 1 run)")


@STEADY
@given(st.integers(1, 20 * GIB))
def test_what_is_asked_for_is_more_than_was_used_and_in_whole_steps(peak: int) -> None:
    resolved = resolve(ASKS, Known(peak_bytes=peak, runs=1, last_job=1), [gpu(0, "80G")], POLICY)
    asked = resolved.request.gpu_mem_bytes
    assert asked is not None
    assert asked % STEP_BYTES == 0
    assert peak * 1.2 + 256 * MIB <= asked < peak * 1.2 + 512 * MIB + 1


def test_nobody_asks_for_more_than_a_share_of_the_largest_gpu_can_be() -> None:
    """Else he would wait for ever: the ledger keeps some of each GPU."""
    resolved = resolve(ASKS, known(20), [gpu(0, "8G"), gpu(1, "24G")], POLICY)
    assert resolved.request.gpu_mem_bytes == 24 * GIB - POLICY.headroom_bytes
    two = resolve(Request(gpus=2), known(7), [gpu(0, "8G"), gpu(1, "24G")], POLICY)
    assert two.request.gpu_mem_bytes == 8 * GIB - POLICY.headroom_bytes


def test_who_used_more_than_any_share_has_his_gpu_alone() -> None:
    resolved = resolve(ASKS, known(23.8), MACHINE, POLICY)
    assert resolved.request == ASKS
    assert resolved.words == (
        "has its GPU alone: it used 23.8G at most before (job 181, 3 runs), "
        "and no share of a GPU is as large"
    )
    unified = resolve(ASKS, known(6), [gpu(0, mem=None, used=None)], POLICY)
    assert unified.request == ASKS, "a GPU without memory of its own cannot be shared by it"


def test_before_any_gpu_is_known_nothing_bounds_the_size() -> None:
    assert resolve(ASKS, known(100), [], POLICY).request.gpu_mem_bytes == int(120.25 * GIB)


# ─── the note ────────────────────────────────────────────────────────────────────────────────────


def noted(*peaks: float | None) -> str | None:
    asked = [None if peak is None else known(peak) for peak in peaks]
    return note([resolve(ASKS, one, MACHINE, POLICY) for one in asked])


def test_one_job_has_its_own_words_and_none_has_none() -> None:
    assert noted() is None
    assert noted(6) == "asks for 7.5G: it used 6G at most before (job 181, 3 runs)"


def test_several_jobs_are_counted_in_one_note() -> None:
    assert noted(6, 6) == "--gpu-mem auto: 2 jobs ask for 7.5G, by what was used before"
    assert noted(1, 6, None, None, 23.8) == (
        "--gpu-mem auto: 2 jobs ask for 1.5G to 7.5G, by what was used before; "
        "2 jobs have GPUs alone, since nothing is known of the command yet; "
        "1 job has GPUs alone, since more was used before than any share can be"
    )
    assert noted(None, 6) == (
        "--gpu-mem auto: 1 job asks for 7.5G, by what was used before; "
        "1 job has GPUs alone, since nothing is known of the command yet"
    )


# ─── on the wire ─────────────────────────────────────────────────────────────────────────────────


def read(**fields: Any) -> Spec:
    wire = {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32} | fields
    return read_spec(wire, default_gpus=1, grace_s=10.0)


def test_who_asks_for_what_was_learned_gets_that_looked_up() -> None:
    spec = read(gpu_mem="auto")
    assert spec.gpu_mem_auto
    assert (spec.request, spec.gpu_mem_from) == (Request(gpus=1), None)
    assert not read().gpu_mem_auto
    assert read(gpu_mem="auto", max_util=50).request.max_util == 50


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"exclusive": True}, "--exclusive gives a job its GPU alone and --gpu-mem auto a share"),
        ({"gpu_mem_bytes": GIB}, "gpu_mem is auto and gpu_mem_bytes is a size"),
        ({"gpus": 0}, "--gpus 0 takes no --gpu-mem auto"),
        ({"gpu_mem": "20G"}, "gpu_mem: '20G' is not auto; a size stands in gpu_mem_bytes"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)):
        read(**{"gpu_mem": "auto"} | fields)
