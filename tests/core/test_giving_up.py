"""When a group is given up: after so many failures and no success."""

import pytest

from gpuq.core.asked.spec import read_spec
from gpuq.core.results.giving_up import (
    format_on_failure,
    is_given_up,
    parse_on_failure,
    why_given_up,
)
from gpuq.errors import UsageError


@pytest.mark.parametrize(("text", "number"), [("continue", 0), ("stop:1", 1), (" STOP:30 ", 30)])
def test_a_rule_is_read_as_it_is_written(text: str, number: int) -> None:
    assert parse_on_failure(text) == number
    assert parse_on_failure(format_on_failure(number)) == number


@pytest.mark.parametrize(
    "text", ["", "stop", "stop:0", "stop:-1", "stop:x", "go", "stop:10001", f"stop:{'9' * 5000}"]
)
def test_what_is_no_rule_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(
        ValueError, match="neither continue nor stop:N, like stop:3, with N up to 10,000"
    ):
        parse_on_failure(text)


def test_so_many_failures_end_a_group_and_one_success_saves_it() -> None:
    assert not is_given_up(3, failed=2, succeeded=False)
    assert is_given_up(3, failed=3, succeeded=False)
    assert not is_given_up(3, failed=30, succeeded=True)


def test_the_reason_says_how_many_and_by_which_rule() -> None:
    assert why_given_up(12, 3, 3) == (
        "not begun: 3 of g12 failed and none succeeded (on_failure stop:3)"
    )


def test_a_submit_says_it_in_those_words() -> None:
    wire = {"argv": ["true"], "cwd": "/", "env_hash": "ab" * 32}
    said = (None, "continue", "stop:3")
    found = [
        read_spec(wire | {"on_failure": text}, default_gpus=1, grace_s=10.0).stop_after
        for text in said
    ]
    assert found == [None, 0, 3]
    with pytest.raises(UsageError, match="--on-failure: 'stop' is neither"):
        read_spec(wire | {"on_failure": "stop"}, default_gpus=1, grace_s=10.0)
