"""What `gpuq why gpu:3` says is what the scheduler reckons with."""

from dataclasses import replace
from typing import Any

from gpuq.core.gpus.breaker import bar_of
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.gpu_account import GpuPast, account_lines, explain_gpu, words_of_test
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import Drain, GpuHealth, Lease, ResumeWish
from gpuq.core.policy import Policy
from tests.builders import foreign, gpu, lease, ours, request, world
from tests.core.test_breaker import NOW, aside, health

POLICY = Policy()


def said(
    card: Gpu,
    leases: list[Lease] | None = None,
    known: GpuHealth | None = None,
    past: GpuPast | None = None,
    **settings: Any,
) -> list[str]:
    known, policy = known or health(), Policy(**settings)
    seen = replace(card, bar=bar_of(card, known, policy))
    return explain_gpu(seen, leases or [], policy, known, past or GpuPast(), boottime=NOW)


def test_the_account_is_the_ledgers_own() -> None:
    """A job may be started with what is left, and not with more."""
    held = [lease(0, 7, "6G"), lease(0, 8, "2G", slot=1)]
    card = gpu(mem="24G", processes=[ours(7, "7G"), ours(8, "1G"), foreign("3G")])
    assert account_lines(card, held, POLICY) == [
        "Its memory: 24G, of which the driver keeps 0B for itself.",
        "  job 7 (sharing): declared 6G, measured 7G",
        "  job 8 (sharing): declared 2G, measured 1G",
        "  outside gpuq: 3G",
        "  kept free when it is shared: 512M",
        "  left to share: 11.5G, and 2 of at most 8 jobs are on it",
    ]
    ledger = Ledger(world(gpus=[card]).gpus or (), held, POLICY)
    assert ledger.choose(request(mem="11.5G")) == (card.uuid,)
    assert ledger.choose(request(mem="11.6G")) is None


def test_a_gpu_that_one_job_has_alone_shares_nothing() -> None:
    lines = account_lines(gpu(), [lease(0, 7, cooling_since=900.0)], POLICY)
    assert lines[1] == "  job 7 (alone, cooling): nothing declared, measured 0B"
    assert lines[-1] == "  left to share: nothing, one job has it alone"


def test_a_gpu_without_memory_of_its_own_says_so() -> None:
    assert account_lines(gpu(mem=None, used=None), [], POLICY) == [
        "It does not tell its memory, so it is given to one job at a time, as a whole."
    ]


def test_it_begins_with_whose_it_is() -> None:
    name = "GPU 0 (RTX 4090, GPU-0) is"
    assert said(gpu())[0] == f"{name} free."
    assert said(gpu(), [lease(0, 7)])[0] == f"{name} held by job 7."
    shared = [lease(0, 7, "1G"), lease(0, 8, "1G", slot=1)]
    assert said(gpu(), shared)[0] == f"{name} held by jobs 7, 8."
    assert said(gpu(fault="is lost"))[0] == f"{name} lost: is lost."
    drained = health(drain=Drain(actor="bob", reason="new fan"))
    assert said(gpu(), shared, drained)[0] == f"{name} drained by bob: new fan; held by jobs 7, 8."
    assert said(gpu(), known=aside(quarantine="XID 79"))[0] == f"{name} set aside: XID 79."
    assert said(gpu(), known=health(under_test="asked"))[0] == f"{name} being tested: asked."
    assert "(simulated, " in said(gpu(simulated=True))[0]


def test_what_is_held_against_it_says_since_when_and_what_ends_it() -> None:
    past = GpuPast(drained_s=90.0, quarantined_s=30.0, tested_s=5.0, test={"verdict": "bad"})
    drained = health(drain=Drain(actor="bob", reason="new fan"))
    assert "Drained by bob, 1:30 ago: new fan. End it: gpuq gpus resume 0" in said(
        gpu(), known=drained, past=past
    )
    lines = said(gpu(), known=aside(quarantine="XID 79"), past=past)
    assert lines[1:4] == [
        "Set aside 0:30 ago: XID 79.",
        "It is tested again in 1:00, once it is idle; now: gpuq gpus resume 0",
        "Last tested 5.0s ago: bad.",
    ]
    lasting = said(gpu(), known=aside(is_lasting=True))
    assert lasting[2].startswith("That lasts until the machine is restarted, or somebody says so")
    stands = said(gpu(defect="rows"), known=aside())
    assert stands[2].startswith("That lasts while the driver says so")
    both = said(gpu(), known=aside(drain=Drain(actor="bob", reason="fan")))
    assert "It is not tested while it is drained." in both[3]
    wished = said(gpu(), known=aside(resume=ResumeWish(actor="ann", untested=True)))
    assert wished[2] == "ann wants it given out again without a test: as soon as it is idle."
    counted = said(gpu(), known=health(fast_failures=2))
    assert "It has seen 2 of 3 quick failures in a row, after which it is tested." in counted
    assert "It warns: ECC is off." in said(gpu(warnings=("ECC is off",)))
    resumed = said(gpu(defect="rows"), known=health(accepted="rows"))
    assert "It was resumed though the driver says: rows." in resumed


def test_the_idle_rule_comes_with_its_settings_and_how_far_it_is() -> None:
    lines = said(gpu(baseline_bytes=450 * 2**20), idle_utilization_percent=5)
    assert (
        "It counts as free of others with less than 300M in use over the 450M of its own, less than "
        "5 % busy, and no process of theirs." in lines
    )
    owed = "Others were on it: 3 readings in a row over 3 s have to say so, and 1 did."
    assert owed in said(gpu(calm_samples=1))


def test_who_is_on_it_says_whether_it_counts() -> None:
    desktop = replace(foreign("80M", pid=900), command="Xorg", ignored=True)
    container = replace(foreign("3G"), unit="docker 3f2a9c1b7d44")
    card = gpu(processes=[ours(7), container, desktop])
    lines = said(card, [lease(0, 7, "2G")])
    assert lines[lines.index("On it:") + 1 :][:3] == [
        "  pid 1007 (ann, train): 1G, of job 7",
        "  pid 4242 (bob, python, docker 3f2a9c1b7d44): 3G, outside gpuq",
        "  pid 900 (bob, Xorg): 80M, ignored: it keeps no job away, and its memory counts",
    ]
    assert any("over the 0B of its own and the 80M of what is ignored" in line for line in lines)
    assert "No process is on it." in said(gpu())
    assert "The driver does not say who is on it." in said(gpu(processes=None))


def test_readings_come_last_and_absent_ones_not_at_all() -> None:
    warm = gpu(temperature_c=66, power_w=345.2, power_limit_w=400.0, utilization_percent=97)
    assert said(warm)[-1] == "Now: 97 % busy, 66 C, 345 of 400 W."
    blind = gpu(utilization_percent=None)
    assert not said(blind)[-1].startswith("Now")


def test_a_test_in_words_has_its_speeds() -> None:
    measured = {"tflops": 51.27, "memory_gb_s": 2410.0, "memory_bytes": 125 * 2**30}
    assert words_of_test({"verdict": "good", "by": "torch 2.13.0", "seconds": 4.2, **measured}) == (
        "good: 51.3 TFLOP/s, 2410 GB/s, 125G of its memory (torch 2.13.0, 4.2s)"
    )
    assert words_of_test({"verdict": "good", "by": "simulated", "memory_bytes": 2**22}) == (
        "good (simulated)"
    )
    bad = {"verdict": "bad", "trouble": "wrong sums", "by": "torch 2.13.0", "seconds": 1.0}
    assert words_of_test(bad) == "bad, wrong sums (torch 2.13.0, 1.0s)"
