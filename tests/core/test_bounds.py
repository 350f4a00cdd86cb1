"""What a job may use of the machine: how it is asked for, what is told, and what follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from gpuq.core.asked.spec import Spec, read_spec
from gpuq.core.ends.bounds import Bounds, CpuBound, Enforcement, MemBound, weaker_promise
from gpuq.core.ends.ending import cause_to_end
from gpuq.core.model import EndCause, Exit, Outcome
from gpuq.core.policy import Policy
from gpuq.core.states import conclude, explain, why_active
from gpuq.errors import UsageError
from tests.builders import active, stop

GIB, MIB = 2**30, 2**20
HOST_MEMORY = EndCause.HOST_MEMORY


def read(**fields: Any) -> Spec:
    wire = {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32} | fields
    return read_spec(wire, default_gpus=1, grace_s=10.0)


# ─── asked for ───────────────────────────────────────────────────────────────────────────────────


def test_only_what_somebody_names_is_a_bound() -> None:
    assert not read().bounds
    assert read().request.cpus == 1, "a slot, that nobody has asked to be held to"
    assert read(cpus=1).bounds == Bounds(cpus=1)
    assert read(mem_bytes=8 * GIB).bounds == Bounds(mem_bytes=8 * GIB)
    assert read(gpus=2, cpus=16).bounds == Bounds(cpus=16), "jobs with GPUs are held to it as well"


@pytest.mark.parametrize("size", [0, -1, MIB - 1, 2**51, 1.5, "8G", True])
def test_no_size_is_refused_with_its_name(size: Any) -> None:
    with pytest.raises(UsageError, match=r"^mem_bytes: .* is not a whole number"):
        read(mem_bytes=size)


# ─── told ────────────────────────────────────────────────────────────────────────────────────────

MEM, CPU = Bounds(mem_bytes=GIB), Bounds(cpus=2)
NOTHING_HERE = Enforcement(mem_trouble="no systemd", cpu_trouble="no systemd")
WATCHED = "--mem is watched once a second here and not enforced by the kernel"


@pytest.mark.parametrize(
    ("asked", "here", "told"),
    [
        ([], NOTHING_HERE, None),
        ([Bounds()], NOTHING_HERE, None),
        ([MEM, CPU], Enforcement(), None),
        ([MEM], NOTHING_HERE, f"{WATCHED}: no systemd"),
        ([CPU], NOTHING_HERE, "--cpus is not enforced here: no systemd"),
        ([CPU, MEM], NOTHING_HERE, f"{WATCHED}, --cpus is not enforced here: no systemd"),
        ([CPU, MEM], Enforcement(mem_trouble="no controller"), f"{WATCHED}: no controller"),
        ([MEM], Enforcement(cpu_trouble="no controller"), None),
    ],
)
def test_who_asks_for_more_than_is_enforced_is_told(
    asked: list[Bounds], here: Enforcement, told: str | None
) -> None:
    assert weaker_promise(asked, here) == told


def test_it_is_worth_asking_for_what_can_be_enforced_alone() -> None:
    both = Bounds(mem_bytes=GIB, cpus=2)
    assert Enforcement(mem_trouble="no").can_do_any_of(both)
    assert not Enforcement(mem_trouble="no").can_do_any_of(MEM)
    assert not NOTHING_HERE.can_do_any_of(both)
    assert not Enforcement().can_do_any_of(Bounds())


def test_the_words_are_those_that_are_stored() -> None:
    assert (*MemBound, *CpuBound) == ("kernel", "watched", "kernel", "nobody")


# ─── ended for it ────────────────────────────────────────────────────────────────────────────────


def test_who_was_seen_to_use_more_than_he_may_is_ended() -> None:
    job = active(7, mem_bytes=GIB, mem_used_bytes=GIB + 1)
    assert cause_to_end(job, 1000.0, Policy()) is HOST_MEMORY
    for goes_on in ({"mem_used_bytes": GIB}, {"mem_used_bytes": None}, {"mem_bytes": None}):
        assert cause_to_end(replace(job, **goes_on), 1000.0, Policy()) is None
    assert cause_to_end(replace(job, main_ended_at=990.0), 1000.0, Policy()) is None
    assert cause_to_end(replace(job, stop=stop()), 1000.0, Policy()) is EndCause.ASKED
    assert cause_to_end(replace(job, paused_since=990.0), 1000.0, Policy()) is HOST_MEMORY


@pytest.mark.parametrize("exit", [Exit(signal=15), Exit(signal=9), Exit(exit_code=0)])
def test_who_was_ended_for_it_is_out_of_memory_however_he_went(exit: Exit) -> None:
    assert conclude(exit, ending=HOST_MEMORY) is Outcome.OUT_OF_MEMORY


def words(exit: Exit, ending: EndCause | None = None, **asked: Any) -> str:
    return explain(exit, conclude(exit, ending=ending), ending=ending, **asked)


def test_the_end_is_told_with_both_numbers() -> None:
    told = words(Exit(signal=15), HOST_MEMORY, mem_bytes=8 * GIB, mem_used_bytes=int(8.3 * GIB))
    assert told == (
        "out of memory: watched, it used 8.3G of the 8G of memory that it asked for (--mem); "
        "ended by SIGTERM"
    )
    told = words(Exit(signal=9), HOST_MEMORY, mem_bytes=8 * GIB)
    assert told.startswith("out of memory: watched, it used more than all of the 8G of memory")


BY_BOUND = Exit(signal=9, oom_kills=1, bound_hits=1)


@pytest.mark.parametrize(
    ("exit", "outcome"),
    [
        (BY_BOUND, Outcome.OUT_OF_MEMORY),
        (Exit(signal=15, oom_kills=1, bound_hits=1), Outcome.OUT_OF_MEMORY),
        (Exit(exit_code=1, oom_kills=1, bound_hits=1), Outcome.OUT_OF_MEMORY),
        (Exit(exit_code=0, oom_kills=1, bound_hits=1), Outcome.SUCCEEDED),
        (Exit(exit_code=1, oom_kills=0, bound_hits=4), Outcome.FAILED),
        (Exit(exit_code=1, oom_kills=1, bound_hits=0), Outcome.FAILED),
        (Exit(signal=9, oom_kills=1, bound_hits=0), Outcome.OUT_OF_MEMORY),
        (Exit(exit_code=127, stage="executing x", oom_kills=1, bound_hits=1), Outcome.FAILED),
    ],
)
def test_its_own_bound_explains_every_failure_in_which_the_kernel_killed(
    exit: Exit, outcome: Outcome
) -> None:
    """A worker of it may have been killed, and the main process said so in its own way."""
    assert conclude(exit) is outcome


def test_the_kernels_end_is_told_with_the_bound() -> None:
    told = "it used more than the 8G of memory it asked for (--mem) (ended by SIGKILL)"
    assert words(BY_BOUND, mem_bytes=8 * GIB) == f"out of memory: {told}"
    others = words(Exit(signal=9, oom_kills=1, bound_hits=0), mem_bytes=8 * GIB)
    assert others.startswith("out of memory: the kernel ended it for want of memory")


def test_meanwhile_it_says_what_it_is_ended_for() -> None:
    told = why_active(
        unkillable=None,
        ending=HOST_MEMORY,
        killed=False,
        main_ended=False,
        paused_by=None,
        stop_actor=None,
    )
    assert told == "TERM sent: it used more memory than it asked for (--mem)"
