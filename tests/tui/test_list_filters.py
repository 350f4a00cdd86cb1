"""The words of a filter."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.errors import UsageError
from gpuq.tui.data.listing import filters
from gpuq.tui.data.listing.filters import (
    CHOICES,
    FIELDS,
    HINTS,
    Recalled,
    next_choice,
    parse_filter,
)
from tests.cli.said import ended, job, running

ROW: dict[str, Any] = running(
    184,
    name="ViT-base",
    user="bob",
    gpus=[1, 3],
    tags=["sweep", "night run"],
    queue="night",
    command=["python", "train.py", "--lr", "3e-4"],
    group="g180",
) | {"last_id": 184}
RUN = job(190, user="bobby", reason=None) | {"last_id": 196}
FAILED = ended(179) | {"last_id": 179}
TIMED_OUT = ended(178, outcome="timed_out") | {"last_id": 178}
HELD = job(176, substate="held") | {"last_id": 176}


def fits(text: str, row: dict[str, Any], reason: str | None = None) -> bool:
    return parse_filter(text).matches(row, reason)


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "vit", "VIT", "184", "train.py", "bob", "sweep", '"night run"', "lr 3e-4"),
        *("user:bob", "USER:Bob", "user:b*", "gpu:3", "gpu:0-1", "tag:sweep", 'tag:"night run"'),
        *("queue:night", "name:base", "name:vit*", "id:184", "id:180-190,7", "group:g180"),
        *("group:180", "state:running", "state:r", "state:active", "state:q,r", "!eval"),
        *("!user:alice", "!state:f", "vit user:bob !gpu:2", '!"no such"', '"train.py'),
    ],
)
def test_a_filter_finds(text: str) -> None:
    assert fits(text, ROW)


@pytest.mark.parametrize(
    "text",
    [
        *("vat", "vit eval", "!vit", "user:bo", "user:alice", "gpu:2", "gpu:13", "tag:swee"),
        *("queue:day", "name:vit-b?", "name:base*", "id:185", "id:18", "group:g184"),
        *("state:queued", "state:f", "state:ended", "!state:r", "!state:active", '"bob train"'),
        *("vit !bob", "user:bob gpu:7", "9" * 5000),
    ],
)
def test_a_filter_leaves_out(text: str) -> None:
    assert not fits(text, ROW)


def test_who_is_called_alike_is_not_meant() -> None:
    assert not fits("user:bob", RUN)
    assert fits("bob", RUN)


def test_a_run_is_found_by_each_of_its_jobs() -> None:
    assert fits("193", RUN)
    assert fits("id:193", RUN)
    assert fits("id:100-190", RUN)
    assert not fits("197", RUN)
    assert not fits("id:197-200", RUN)
    assert not fits('"193"', RUN)


def test_states_are_found_by_words_and_by_letters() -> None:
    for word in ("f", "F", "failed", "ended"):
        assert fits(f"state:{word}", FAILED)
        assert not fits(f"state:{word}", HELD)
    for word in ("t", "timeout", "timed_out"):
        assert fits(f"state:{word}", TIMED_OUT)
        assert not fits(f"state:{word}", FAILED)
    assert fits("state:h", HELD)
    assert fits("state:held", HELD)
    assert fits("state:queued", HELD)
    # Its letter is H, for that is what keeps it.
    assert not fits("state:q", HELD)


def test_the_reason_is_looked_through_as_it_is_shown() -> None:
    assert fits("behind 184", RUN, "behind 184")
    assert not fits("behind", RUN)


def test_a_filter_that_asks_for_ended_jobs_says_so() -> None:
    assert parse_filter("state:f").names_ended
    assert parse_filter("state:oom x").names_ended
    assert not parse_filter("!state:f").names_ended
    assert not parse_filter("state:r,q failed").names_ended


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("usr:bob", "'usr' is no field: did you mean user?"),
        ("stat:f", "'stat' is no field: did you mean state?"),
        ("state:runing", "'runing' is no state: did you mean running?"),
        ("zz:bob", "'zz' is no field: user, state, gpu, tag, queue, name, id, group"),
        ("state:zzz", "'zzz' is no state: "),
        ("gpu:a", "gpu: 'a' is neither a number nor a range like 12-18, as in gpu:0-3"),
        ("id:9-3", "id: '9-3' runs backwards"),
        ("vit user:", "user: is to be followed by what is wanted, as in user:bob"),
    ],
)
def test_a_wrong_filter_says_how_it_should_be(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_filter(text)
    assert said in str(error.value)


def test_each_hint_is_a_filter() -> None:
    assert HINTS.keys() == FIELDS.keys()
    for hint in HINTS.values():
        for one in hint.split(" or "):
            parse_filter(one)


WORDS = st.sampled_from(
    [*FIELDS, "!", ":", '"', " ", "-", ",", "*", "[", "f", "1", "9" * 5000, "²"]
)


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_nothing_that_is_typed_raises(text: str) -> None:
    try:
        asked = parse_filter(text)
    except UsageError:
        return
    for row in (ROW, RUN, FAILED, HELD):
        asked.matches(row, None)


@given(st.text(alphabet="abvit :!\"'18", max_size=12))
def test_what_is_quoted_is_looked_for_as_it_is(text: str) -> None:
    if '"' not in text and text:
        assert fits(f'"{text}"', ROW) is not fits(f'!"{text}"', ROW)


def test_choices_of_states_go_round() -> None:
    word, seen = "all", []
    for _ in CHOICES:
        seen.append(word)
        word = next_choice(word)
    assert word == "all"
    assert seen == list(CHOICES)
    assert next_choice("all", -1) == seen[-1]
    assert filters.state_test("all") is None
    for choice in seen[1:]:
        assert filters.state_test(choice) is not None


def test_used_filters_are_recalled_each_once() -> None:
    used = Recalled(most=2)
    for text in ("a", "b", "", "a", "c"):
        used.add(text)
    assert [used.at(0), used.at(1), used.at(2), used.at(-1)] == ["c", "a", None, None]
