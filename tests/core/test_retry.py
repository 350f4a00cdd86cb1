"""A retry is what was asked for, never more, and never the same again where that cannot help."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.ends.retry import (
    DEFAULT_BACKOFF,
    DEFAULT_ON,
    LONGEST_WAIT_S,
    Again,
    Backoff,
    Doubling,
    Ending,
    No,
    RetryRule,
    Steps,
    decide,
    delay,
    format_backoff,
    format_retry_on,
    parse_backoff,
    parse_retry_on,
)
from gpuq.core.gpus.fitting import matches, never_fits
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import Outcome, Request
from gpuq.core.policy import Policy
from tests.builders import GIB, STEADY, gpu, request, size

POLICY = Policy()
OFTEN = RetryRule(retries=1000, backoff=Steps(seconds=(4.0,)))


def ending(
    outcome: Outcome = Outcome.FAILED,
    *,
    attempt: int = 1,
    code: int | None = 1,
    wish: Request | None = None,
    **more: object,
) -> Ending:
    usual = Ending(
        outcome=outcome, attempt=attempt, exit_code=code, request=wish or request(mem="6G")
    )
    return replace(usual, **more)  # type: ignore[arg-type]


def exhausted(wish: Request, *held: Gpu, attempt: int = 1, used: str | None = None) -> Ending:
    """An attempt that a GPU had too little memory for."""
    return ending(
        Outcome.OUT_OF_MEMORY,
        attempt=attempt,
        wish=wish,
        gpu_exhausted=True,
        gpus=held,
        used_bytes=size(used),
    )


def after(
    what: Ending,
    rule: RetryRule = OFTEN,
    machine: tuple[Gpu, ...] = (gpu(),),
    luck: float = 0.5,
) -> Again | No:
    return decide(rule, what, machine, POLICY, luck)


# ── whether ──


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (Outcome.FAILED, True),
        (Outcome.OUT_OF_MEMORY, True),
        (Outcome.LOST, True),
        (Outcome.TIMED_OUT, False),
        (Outcome.SUCCEEDED, False),
        (Outcome.CANCELLED, False),
        (Outcome.SKIPPED, False),
    ],
)
def test_what_may_go_better_next_time_is_tried_again(outcome: Outcome, again: bool) -> None:
    assert isinstance(after(ending(outcome)), Again) is again


def test_nothing_is_retried_unless_it_was_asked_for() -> None:
    assert after(ending(), RetryRule()) == No()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_job_that_somebody_ended_stays_ended(outcome: Outcome) -> None:
    everything = replace(OFTEN, on=parse_retry_on("failed,oom,lost,timeout,exit:1-255"))
    assert after(ending(outcome, wished=True), everything) == No()


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.SKIPPED])
def test_a_good_or_wanted_end_is_never_retried(outcome: Outcome) -> None:
    everything = replace(OFTEN, on=parse_retry_on("failed,oom,lost,timeout,exit:1-255"))
    assert after(ending(outcome), everything) == No()


@pytest.mark.parametrize(
    ("on", "what", "again"),
    [
        ("exit:75", ending(code=75), True),
        ("exit:70-80", ending(code=75), True),
        ("exit:75", ending(code=1), False),
        ("exit:75", ending(code=None), False),
        ("exit:75", ending(Outcome.OUT_OF_MEMORY, code=75), True),
        ("exit:75", ending(Outcome.TIMED_OUT, code=75), False),
        ("exit:75", ending(Outcome.LOST, code=None), False),
        ("oom", ending(), False),
        ("oom", ending(Outcome.OUT_OF_MEMORY), True),
        ("timeout", ending(Outcome.TIMED_OUT), True),
        ("lost,exit:3", ending(code=3), True),
    ],
)
def test_only_the_ends_that_were_named_are_retried(on: str, what: Ending, again: bool) -> None:
    assert isinstance(after(what, replace(OFTEN, on=parse_retry_on(on))), Again) is again


def test_who_expected_a_retry_is_told_why_there_is_none() -> None:
    rule = RetryRule(retries=2)
    assert after(ending(Outcome.TIMED_OUT), rule) == No(
        why="not retried: timed_out is not among failed,out_of_memory,lost"
    )
    named = replace(rule, on=parse_retry_on("exit:75"))
    assert after(ending(code=3), named) == No(why="not retried: exit code 3 is not among exit:75")
    assert after(ending(attempt=3), rule) == No(why="attempt 3 of 3 was the last")


@STEADY
@given(st.integers(0, 20), st.sampled_from([Outcome.FAILED, Outcome.LOST]))
def test_there_are_no_more_retries_than_were_asked_for(retries: int, outcome: Outcome) -> None:
    rule = RetryRule(retries=retries)
    attempt = 1
    while isinstance(after(ending(outcome, attempt=attempt), rule), Again):
        attempt += 1
    assert attempt == retries + 1


# ── when ──


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("2s,4s,8s", [2, 4, 8, 8, 8]),
        ("30s", [30, 30, 30, 30, 30]),
        ("0s,1m", [0, 60, 60, 60, 60]),
        ("exp:2s", [2, 4, 8, 16, 32]),
        ("exp:1s:5s", [1, 2, 4, 4, 4]),  # and a quarter by chance
    ],
)
def test_a_wait_is_as_it_was_written(text: str, waits: list[float]) -> None:
    backoff = parse_backoff(text)
    assert [delay(backoff, retry, 0.5) for retry in range(1, 6)] == waits


def test_jobs_that_failed_together_come_back_apart() -> None:
    backoff = parse_backoff("exp:8s")
    assert [delay(backoff, 1, luck) for luck in (0.0, 0.25, 0.5, 0.75)] == [6, 7, 8, 9]
    longest = parse_backoff("exp:8s:10s")
    assert len({delay(longest, 9, luck / 10) for luck in range(10)}) == 10


def test_the_wait_of_steps_is_kept_to_exactly() -> None:
    assert {delay(parse_backoff("2s,4s"), 2, luck) for luck in (0.0, 0.5, 0.99)} == {4.0}


waits = st.integers(0, int(LONGEST_WAIT_S) * 1000).map(lambda ms: ms / 1000)
backoffs: st.SearchStrategy[Backoff] = st.lists(waits, min_size=1, max_size=9).map(
    lambda seconds: Steps(seconds=tuple(seconds))
) | st.tuples(waits, waits).filter(lambda pair: max(pair) > 0).map(
    lambda pair: Doubling(first_s=min(pair) or max(pair), most_s=max(pair))
)
lucks = st.floats(0, 1, exclude_max=True)


@STEADY
@given(backoffs, st.integers(1, 5000), lucks)
def test_no_wait_is_below_zero_or_above_the_longest(
    backoff: Backoff, retry: int, luck: float
) -> None:
    most = max(backoff.seconds) if isinstance(backoff, Steps) else backoff.most_s
    assert 0 <= delay(backoff, retry, luck) <= most


@STEADY
@given(backoffs, st.integers(1, 5000))
def test_a_doubling_wait_never_gets_shorter(backoff: Backoff, retry: int) -> None:
    if isinstance(backoff, Doubling):
        assert delay(backoff, retry, 0.5) <= delay(backoff, retry + 1, 0.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "attempt 2 of 4 at once"),
        (0.5, "attempt 2 of 4 in 0.5 s"),
        (4, "attempt 2 of 4 in 4 s"),
        (45, "attempt 2 of 4 in 45 s"),
        (600, "attempt 2 of 4 in 10:00"),
    ],
)
def test_a_retry_is_told_with_its_number_and_its_wait(seconds: float, words: str) -> None:
    rule = RetryRule(retries=3, backoff=Steps(seconds=(seconds,)))
    assert after(ending(), rule) == Again(delay_s=seconds, why=words)


# ── how it is written ──


@pytest.mark.parametrize(
    ("text", "backoff"),
    [
        ("10s", Steps(seconds=(10.0,))),
        (" 2s, 4S,1m30s ", Steps(seconds=(2.0, 4.0, 90.0))),
        ("90", Steps(seconds=(90.0,))),
        ("exp:2s", Doubling(first_s=2.0, most_s=3600.0)),
        ("EXP:2s:5m", Doubling(first_s=2.0, most_s=300.0)),
        ("exp:2h", Doubling(first_s=7200.0, most_s=7200.0)),
        ("exp:10s:10m", DEFAULT_BACKOFF),
    ],
)
def test_a_backoff_is_read_as_written(text: str, backoff: Backoff) -> None:
    assert parse_backoff(text) == backoff


@pytest.mark.parametrize(
    "text",
    ["", "2x", "exp", "exp:", "exp:2s:", "exp:1s:2s:3s", "2s,", ",", "-2s", "2s;4s", "lin:2s"],
)
def test_what_is_no_backoff_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is no backoff: write it like 10s, 2s,4s,8s or exp:2s:5m"):
        parse_backoff(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("exp:5m:2s", "no shorter"),
        ("exp:0s", "above 0"),
        ("exp:0.1ms", "above 0"),
        ("2s,366d", "longer than a year"),
        ("9" * 400, "longer than a year"),
        ("exp:2s:9999d", "longer than a year"),
        ("1s," * 100 + "1s", "more than 100 steps"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"is no backoff: .*{why}"):
        parse_backoff(text)


@STEADY
@given(backoffs)
def test_a_backoff_reads_back_to_the_same(backoff: Backoff) -> None:
    assert parse_backoff(format_backoff(backoff)) == backoff


@pytest.mark.parametrize(
    "text",
    ["2s,4s,8s", "30s", "0s", "250ms", "1h", "1500ms", "exp:2s", "exp:2s:5m", "exp:2h", "2d"],
)
def test_a_short_backoff_is_shown_as_it_was_written(text: str) -> None:
    assert format_backoff(parse_backoff(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("failed", {"failed"}),
        ("failed,oom,exit:75,timeout", {"failed", "out_of_memory", "exit:75", "timed_out"}),
        (" Lost , OUT_OF_MEMORY,timed_out", {"lost", "out_of_memory", "timed_out"}),
        ("exit:75-77,exit:1", {"exit:75", "exit:76", "exit:77", "exit:1"}),
        ("exit:003", {"exit:3"}),
    ],
)
def test_the_ends_to_retry_on_are_read_as_written(text: str, words: set[str]) -> None:
    assert parse_retry_on(text) == words


@pytest.mark.parametrize(
    "text", ["", "fail", "failed,", "cancelled", "exit", "exit:x", "exit:-1", "75"]
)
def test_what_is_no_end_is_refused_with_an_example(text: str) -> None:
    example = "is no end to retry on: write it like failed,oom,lost,timeout or exit:75"
    with pytest.raises(ValueError, match=example):
        parse_retry_on(text)


@pytest.mark.parametrize("text", ["exit:0", "exit:256", "exit:80-75", "exit:0-3"])
def test_what_is_no_exit_code_of_a_failure_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no exit code of a failure: those are 1 to 255"):
        parse_retry_on(text)


codes = st.integers(1, 255).map(lambda code: f"exit:{code}")


@STEADY
@given(st.frozensets(st.sampled_from(sorted(DEFAULT_ON | {"timed_out"})) | codes, min_size=1))
def test_the_ends_to_retry_on_read_back_to_the_same(on: frozenset[str]) -> None:
    assert parse_retry_on(format_retry_on(on)) == on


def test_the_ends_to_retry_on_are_shown_short() -> None:
    on = parse_retry_on("exit:77,exit:75,exit:76,timeout,failed,exit:3")
    assert format_retry_on(on) == "failed,timed_out,exit:3,exit:75-77"


# ── with what, after a GPU's memory was too little ──


@pytest.mark.parametrize(
    ("what", "machine", "wish", "words"),
    [
        # a share grows by half,
        (exhausted(request(mem="6G"), gpu()), [gpu()], request(mem="9G"), "with 9G instead of 6G"),
        # or to what was seen and a quarter more,
        (
            exhausted(request(mem="4G"), gpu(), used="8G"),
            [gpu()],
            request(mem="10G"),
            "with 10G instead of 4G per GPU",
        ),
        # up to what a GPU can give: headroom and what the idle GPU uses are nobody's,
        (
            exhausted(request(mem="16G"), gpu()),
            [gpu(baseline_bytes=GIB // 4, memory_reserved_bytes=GIB // 4)],
            request(mem="23G"),
            "with 23G instead of 16G per GPU",
        ),
        # on as many of them as it wants;
        (
            exhausted(request(2, "16G"), gpu(0), gpu(1, "80G")),
            [gpu(0), gpu(1, "80G")],
            request(2, "23.5G"),
            "with 23.5G instead of 16G per GPU",
        ),
        # then it gets one to itself.
        (
            exhausted(request(mem="20G"), gpu()),
            [gpu()],
            request(mem="20G", exclusive=True),
            "with a whole GPU instead of 20G per GPU",
        ),
        (
            exhausted(request(2, "12G"), gpu(0), gpu(1), used="22G"),
            [gpu(0), gpu(1)],
            request(2, "12G", exclusive=True),
            "with 2 whole GPUs instead of 12G per GPU",
        ),
        # Who had one to himself gets a larger one,
        (
            exhausted(request(), gpu(0)),
            [gpu(0), gpu(1, "79.6G")],
            request(mem="25G", exclusive=True),
            "with a whole GPU of 25G or more instead of 24G",
        ),
        # larger by its label,
        (
            exhausted(request(mem="20G", exclusive=True), gpu(0, "23.6G")),
            [gpu(0, "23.6G"), gpu(1), gpu(2, "31.7G")],
            request(mem="25G", exclusive=True),
            "with a whole GPU of 25G or more instead of 24G",
        ),
        # than the smallest that he had.
        (
            exhausted(request(2), gpu(0, "80G"), gpu(1)),
            [gpu(0, "80G"), gpu(1), gpu(2, "48G")],
            request(2, "25G", exclusive=True),
            "with 2 whole GPUs of 25G or more instead of 24G",
        ),
    ],
)
def test_a_job_that_had_too_little_memory_asks_for_more(
    what: Ending, machine: list[Gpu], wish: Request, words: str
) -> None:
    found = after(what, machine=tuple(machine))
    assert isinstance(found, Again)
    assert found.request == wish
    assert found.why.startswith("attempt 2 of 1001 in 4 s " + words)


@pytest.mark.parametrize(
    ("what", "machine", "why"),
    [
        (
            exhausted(request(), gpu()),
            [gpu(), gpu(1, "23.6G")],
            "it had a whole GPU of 24G to itself already, and none is larger",
        ),
        (
            exhausted(request(2), gpu(0), gpu(1)),
            [gpu(0), gpu(1), gpu(2, "80G")],
            "it had 2 whole GPUs of 24G to itself already, and there are no 2 larger ones",
        ),
        (
            exhausted(request(model="4090"), gpu()),
            [gpu(), gpu(1, "80G", model="H100")],
            "it had a whole GPU of 24G to itself already, and none is larger",
        ),
        (
            exhausted(request(), gpu(mem=None, used=None)),
            [gpu(mem=None, used=None), gpu(1, "80G")],
            "nobody can tell how much memory the GPU it had to itself has",
        ),
        (
            exhausted(request(), gpu()),
            [gpu(), gpu(1, mem=None, used=None)],
            "it had a whole GPU of 24G to itself already, and none is larger",
        ),
        (
            exhausted(request(mem="6G"), gpu()),
            [],
            "--gpus 1 --gpu-mem 6G can never start: this machine has no GPU",
        ),
    ],
)
def test_where_there_is_no_more_memory_another_attempt_is_not_made(
    what: Ending, machine: list[Gpu], why: str
) -> None:
    assert after(what, machine=tuple(machine)) == No(why=f"not retried: {why}")


def test_a_retry_with_more_memory_counts_as_any_other() -> None:
    rule = RetryRule(retries=2, backoff=Steps(seconds=(4.0,)))
    found = after(exhausted(request(mem="6G"), gpu()), rule)
    assert isinstance(found, Again)
    assert found.why == "attempt 2 of 3 in 4 s with 9G instead of 6G per GPU"
    assert isinstance(after(exhausted(request(mem="6G"), gpu(), attempt=3), rule), No)


def test_a_whole_gpu_is_larger_only_by_its_label() -> None:
    found = after(exhausted(request(), gpu(0)), machine=(gpu(0), gpu(1, "25G")))
    assert isinstance(found, Again)
    assert found.request is not None
    fits = {mem: matches(gpu(mem=mem), found.request) for mem in ("23.6G", "24G", "24.1G", "25G")}
    assert fits == {"23.6G": False, "24G": False, "24.1G": True, "25G": True}


@pytest.mark.parametrize(
    "what",
    [
        ending(Outcome.OUT_OF_MEMORY),  # of the machine's
        ending(Outcome.FAILED),
        ending(Outcome.OUT_OF_MEMORY, wish=request(0), gpu_exhausted=True),
    ],
)
def test_what_no_gpu_was_too_small_for_is_retried_as_it_was(what: Ending) -> None:
    assert after(what) == Again(delay_s=4.0, why="attempt 2 of 1001 in 4 s")


sizes = st.sampled_from(["8G", "11.9G", "23.6G", "24G", "48G", "79.6G", None])
machines = st.lists(sizes, min_size=1, max_size=5).map(
    lambda kinds: tuple(
        gpu(index, mem, used=None if mem is None else "0K") for index, mem in enumerate(kinds)
    )
)


@STEADY
@given(machines, st.integers(1, 3), st.integers(1, 80) | st.none(), st.booleans(), st.data())
def test_each_retry_asks_for_something_else_until_nothing_is_left(
    machine: tuple[Gpu, ...], gpus: int, mem: int | None, exclusive: bool, data: st.DataObject
) -> None:
    """On an idle machine each of them starts, wherever the scheduler puts it, and the last one had
    all that there is."""
    wish = request(gpus, None if mem is None else f"{mem}G", exclusive=exclusive or mem is None)
    if Ledger(machine, (), POLICY).choose(wish) is None:
        return
    seen = [wish]
    while True:
        fitting = [one for one in machine if matches(one, wish)]
        held = data.draw(st.permutations(fitting))[:gpus]
        used = data.draw(st.sampled_from([None, *(size(text) for text in ("1G", "9G", "30G"))]))
        what = replace(exhausted(wish, *held, attempt=len(seen)), used_bytes=used)
        found = after(what, machine=machine)
        if isinstance(found, No):
            break
        assert found.request is not None
        assert found.request not in seen
        assert replace(found.request, gpu_mem_bytes=None, exclusive=True) == replace(
            wish, gpu_mem_bytes=None, exclusive=True
        )
        assert never_fits(found.request, machine, POLICY) is None
        assert Ledger(machine, (), POLICY).choose(found.request) is not None
        wish = found.request
        seen.append(wish)
        assert len(seen) < 50
    assert wish.exclusive
    assert "whole GPU" in str(found.why) or "nobody can tell" in str(found.why)
