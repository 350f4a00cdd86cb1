"""Which GPUs could ever serve a request, and how what can never start is told."""

import pytest

from gpuq.core.gpus.fitting import find_gpus, is_allowed, is_meant, matches, never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.hours import parse_hours
from gpuq.core.model import Request
from gpuq.core.policy import Policy
from gpuq.errors import UsageError
from tests.builders import GIB, gpu, request

POLICY = Policy(cpu_slots=8)


# ── could it ever run? ──


@pytest.mark.parametrize(
    ("total", "asked", "fits"),
    [("79.6G", "80G", True), ("79.6G", "81G", False), ("24G", "24G", True), ("23G", "24G", False)],
)
def test_who_asks_for_a_whole_gpu_reads_the_label(total: str, asked: str, fits: bool) -> None:
    assert matches(gpu(mem=total), request(mem=asked, exclusive=True)) is fits


def test_who_shares_a_gpu_can_have_no_more_than_there_is() -> None:
    card = gpu(mem="80G", memory_reserved_bytes=GIB)
    assert matches(card, request(mem="79G"))
    assert not matches(card, request(mem="80G"))


def test_a_model_is_known_by_a_part_of_its_name_in_any_case() -> None:
    card = gpu(model="NVIDIA A100-SXM4-80GB")
    assert matches(card, request(model="a100"))
    assert not matches(card, request(model="H100"))


def test_a_gpu_that_tells_no_memory_can_be_had_whole_but_not_shared() -> None:
    mute = gpu(mem=None, used=None)
    assert matches(mute, request())
    assert matches(mute, request(mem="8G", exclusive=True))
    assert not matches(mute, request(mem="8G"))


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (request(3), "--gpus 3 can never start: this machine has 2 GPUs"),
        (
            request(2, "60G"),
            "--gpus 2 --gpu-mem 60G can never start: 1 of this machine's 2 GPUs would do "
            "(1 x RTX 4090 with 24G, 1 x RTX 4090 with 80G)",
        ),
        (
            request(model="A100"),
            "--gpus 1 --gpu-model A100 can never start: 0 of this machine's 2 GPUs would do "
            "(1 x RTX 4090 with 24G, 1 x RTX 4090 with 80G)",
        ),
        (request(0, cpus=9), "--cpus 9 can never start: this machine has 8 CPU slots"),
        (request(2), None),
        (request(0, cpus=8), None),
        (request(1, cpus=99), None),
    ],
)
def test_what_can_never_start_is_told_in_the_words_of_the_asker(
    wish: Request, sentence: str | None
) -> None:
    assert never_fits(wish, [gpu(0), gpu(1, "80G")], POLICY) == sentence


def test_a_machine_without_gpus_says_so() -> None:
    assert never_fits(request(), [], POLICY) == (
        "--gpus 1 can never start: this machine has no GPU"
    )


def test_a_gpu_that_is_lost_now_could_run_it_one_day() -> None:
    assert never_fits(request(), [gpu(fault="has fallen off the bus")], POLICY) is None


def test_an_instance_of_mig_is_for_jobs_of_one_gpu() -> None:
    """CUDA shows a process one of them, whatever it is given."""
    part = gpu(parent="GPU-card")
    assert matches(part, request())
    assert not matches(part, request(2))
    assert "a job of several GPUs gets no MIG instances" in str(
        never_fits(request(2), [part, part, gpu(1)], POLICY)
    )


def test_a_job_can_name_the_gpus_it_wants_and_those_it_does_not() -> None:
    assert matches(gpu(1), request(gpu_ids=("GPU-1",)))
    assert not matches(gpu(0), request(gpu_ids=("GPU-1",)))
    assert not matches(gpu(1), request(exclude_gpus=("GPU-1",)))
    assert matches(gpu(0), request(exclude_gpus=("GPU-1",)))


# ── names ──

CARD = gpu(3, uuid="GPU-1a2b3c4d-0000", bus_id="00000000:3B:00.0")
PART = gpu(9, uuid="MIG-77aa", parent="GPU-1a2b3c4d-0000")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("3", True),
        ("03", True),
        ("2-3", True),
        ("4-9", False),
        ("3-", False),
        ("4", False),
        ("GPU-1a2b3c4d-0000", True),
        ("gpu-1A2b", True),
        ("GPU-", False),
        ("GPU-1a2b3c4d-00001", False),
        ("00000000:3B:00.0", True),
        ("3b:00.0", True),
        ("3b", False),
        ("", False),
    ],
)
def test_a_gpu_has_many_names(word: str, meant: bool) -> None:
    assert is_meant(CARD, word) is meant


def test_a_part_of_a_card_is_meant_by_the_name_of_the_card() -> None:
    assert is_meant(PART, "GPU-1a2b3c4d")
    assert is_meant(PART, "MIG-77")
    assert not is_meant(CARD, "MIG-77")
    assert find_gpus(["GPU-1a2b"], [CARD, PART]) == (CARD.uuid, PART.uuid)


def test_a_name_that_is_nobodys_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no GPU '7' here: it is an index \(0, 1\), a UUID or a"):
        find_gpus(["7"], [gpu(0), gpu(1)])
    with pytest.raises(UsageError, match="this machine has none"):
        find_gpus(["0"], [])


def test_the_beginning_of_two_names_is_nobodys() -> None:
    twins = [gpu(0, uuid="GPU-aa1"), gpu(1, uuid="GPU-aa2")]
    with pytest.raises(UsageError, match="'GPU-aa' could be any of 2: write more of it"):
        find_gpus(["GPU-aa"], twins)


def test_a_range_names_all_of_its_gpus_or_none() -> None:
    machine = [gpu(0), gpu(1), gpu(2)]
    assert find_gpus(["0-1"], machine) == ("GPU-0", "GPU-1")
    assert find_gpus(["1-2", "0"], machine) == ("GPU-1", "GPU-2", "GPU-0")
    for missing in ("1-3", "2-1"):
        with pytest.raises(UsageError, match=f"no GPU '{missing}' here"):
            find_gpus([missing], machine)


# ── what gpuq may give out ──


@pytest.mark.parametrize(
    ("allow", "deny", "allowed"),
    [
        ((), (), [0, 1, 2]),
        (("0", "2"), (), [0, 2]),
        ((), ("1",), [0, 2]),
        (("0", "1"), ("GPU-1",), [0]),
        (("9",), (), []),
    ],
)
def test_the_settings_say_which_gpus_are_gpuqs(
    allow: tuple[str, ...], deny: tuple[str, ...], allowed: list[int]
) -> None:
    policy = Policy(allow_gpus=allow, deny_gpus=deny)
    three: list[Gpu] = [gpu(0), gpu(1), gpu(2)]
    assert [one.index for one in three if is_allowed(one, policy)] == allowed


def test_what_is_not_gpuqs_to_give_serves_nobody() -> None:
    policy = Policy(deny_gpus=("1",))
    assert never_fits(request(1), [gpu(0), gpu(1)], policy) is None
    assert never_fits(request(2), [gpu(0), gpu(1)], policy) == (
        "--gpus 2 can never start: 1 of this machine's 2 GPUs would do "
        "(2 x RTX 4090 with 24G); 1 gpuq may not give out (allow_gpus, deny_gpus)"
    )


def test_what_is_always_left_to_others_serves_nobody() -> None:
    policy = Policy(reserve_idle=1)
    assert never_fits(request(1), [gpu(0), gpu(1)], policy) is None
    assert never_fits(request(2), [gpu(0), gpu(1)], policy) == (
        "--gpus 2 can never start: this machine has 2 GPUs; "
        "reserve_idle leaves 1 of them to people outside gpuq"
    )
    by_day = Policy(reserve_idle=1, reserve_hours=parse_hours("09:00-18:00"))
    assert never_fits(request(2), [gpu(0), gpu(1)], by_day) is None


def test_gpus_of_another_kind_may_be_those_that_are_left() -> None:
    mixed = [gpu(0, model="T4"), gpu(1, model="A100")]
    assert never_fits(request(model="A100"), mixed, Policy(reserve_idle=1)) is None


def test_a_share_that_the_ledger_never_has_can_never_start() -> None:
    assert never_fits(request(mem="23.5G"), [gpu(0), gpu(1)], POLICY) is None
    assert never_fits(request(mem="24G"), [gpu(0), gpu(1)], POLICY) == (
        "--gpus 1 --gpu-mem 24G can never start: 0 of this machine's 2 GPUs would do "
        "(2 x RTX 4090 with 24G); a job that shares one gets 23.5G at most (headroom): "
        "add --exclusive for one to itself"
    )
    assert never_fits(request(mem="24G", exclusive=True), [gpu(0)], POLICY) is None


def test_a_name_of_thousands_of_digits_is_nobodys() -> None:
    assert not is_meant(CARD, "9" * 5000)
