"""What has ended, as it was asked for: filters, pages, totals."""

from typing import Any

import pytest

from gpuq.cli.render import Look
from gpuq.errors import UsageError
from gpuq.tui.data.history.past import CHOICES, DAY_S, Past, Wanted, window_start, with_filter
from gpuq.tui.data.history.totals import as_line, as_table, totals_of
from gpuq.tui.data.wrapping import wrapped
from tests.cli.said import ended
from tests.tui.screened import NOW

LOOK_WIDE = 60


def over(number: int, **changes: Any) -> dict[str, Any]:
    """A job that ended as many seconds after the epoch as its id."""
    return ended(number, ended_at=float(number), **changes) | {"last_id": number}


def asked(text: str, **wanted: Any) -> dict[str, Any]:
    return with_filter(Wanted(**wanted), text, NOW).request(NOW)


def past(*numbers: int) -> Past:
    made = Past(lambda row: True)
    made.add_page([over(number) for number in numbers], [float(numbers[-1]), numbers[-1]])
    return made


def ids(made: Past) -> list[int]:
    return [row["id"] for row in made.rows]


def test_the_daemon_is_asked_what_it_can_answer() -> None:
    assert asked("user:bob tag:sweep queue:night vit", window="all") == {
        "user": "bob",
        "tag": "sweep",
        "queue": "night",
    }
    assert asked("state:f,oom", window="all") == {"states": ["failed", "out_of_memory"]}
    assert asked("state:ended", window="all", choice="bad") == {"states": list(CHOICES["bad"])}
    assert asked("since:24h", window="all") == {"since": NOW - DAY_S}
    assert asked("since:24h", window="7 days") == {"since": NOW - DAY_S}
    assert asked("since:30d", window="7 days") == {"since": NOW - 7 * DAY_S}


@pytest.mark.parametrize("text", ["user:b*", "!user:bob", "!state:failed", "name:vit", "gpu:0"])
def test_what_it_cannot_answer_is_looked_for_in_what_is_here(text: str) -> None:
    assert asked(text, window="all") == {}


def test_rows_are_filtered_by_all_words() -> None:
    wanted = with_filter(Wanted(choice="bad"), "name:VIT user:bob", NOW)
    assert wanted.holds(over(1, name="vit-b", user="bob"))
    assert not wanted.holds(over(1, name="vit-b", user="alice"))
    assert not wanted.holds(over(1, name="vit-b", user="bob", outcome="succeeded", exit_code=0))


def test_nothing_that_ended_runs() -> None:
    assert with_filter(Wanted(), "state:running", NOW).is_none


def test_a_wrong_word_says_how_it_should_be() -> None:
    with pytest.raises(UsageError, match="since: 'soon' is neither"):
        with_filter(Wanted(), "since:soon", NOW)
    with pytest.raises(UsageError, match="'colour' is no field"):
        with_filter(Wanted(), "colour:red", NOW)


def test_today_begins_at_midnight() -> None:
    assert window_start("all", NOW) is None
    today = window_start("today", NOW)
    assert today is not None
    assert 0 <= NOW - today < DAY_S + 3600


def test_pages_follow_each_other_until_one_is_empty() -> None:
    made = past(9, 8, 7)
    made.add_page([over(7), over(6)], [6.0, 6])
    assert ids(made) == [9, 8, 7, 6]
    assert not made.is_all
    made.add_page([], None)
    assert made.is_all


def test_new_ends_come_in_above() -> None:
    made = past(9, 8, 7, 6)
    made.put_newest([over(12), over(11), over(9)], [9.0, 9])
    assert ids(made) == [12, 11, 9, 8, 7, 6]
    assert made.after == [6.0, 6]


def test_where_more_ended_than_a_page_holds_nothing_is_left_out_between() -> None:
    made = past(9, 8)
    made.put_newest([over(30), over(29)], [29.0, 29])
    assert ids(made) == [30, 29]
    assert made.after == [29.0, 29]


def test_who_is_in_the_queue_again_leaves() -> None:
    made = past(9, 8, 7)
    assert made.drop({8})
    assert not made.drop({8})
    assert ids(made) == [9, 7]


def fared(user: str | None, jobs: int, failed: int) -> dict[str, Any]:
    return {"key": user, "jobs": jobs + 3, "queued": 2, "running": 1, "failed": failed}


def had(user: str, gpu_s: float) -> dict[str, Any]:
    return {"user": user, "leased_gpu_s": gpu_s}


TOTALS = totals_of(
    {"stats": [fared("alice", 30, 3), fared("bob", 11, 2), fared("carol", 0, 0)]},
    {
        "users": [had("alice", 1800.0), had("bob", 7200.0), had("carol", 0.0)],
        "total": {"leased_gpu_s": 9000.0, "simulated_gpu_s": 9000.0, "cost": None},
    },
    NOW,
)


def test_totals_are_of_those_who_ended_the_most_hours_first() -> None:
    assert as_table(TOTALS, Look(width=LOOK_WIDE)) == [
        "USER   ENDED  FAILED  GPU HOURS",
        "bob       11       2       2.00",
        "alice     30       3       0.50",
        "all       41       5       2.50",
    ]
    assert "all on simulated GPUs" in TOTALS.simulated


def test_totals_fit_in_a_line() -> None:
    told = "41 ended, 5 failed, 2.50 GPU hours (simulated)"
    assert as_line(TOTALS, 90) == f"{told}; bob 11 (2.00), alice 30 (0.50)"
    assert as_line(TOTALS, 72) == f"{told}; bob 11 (2.00), +1 user"
    assert as_line(TOTALS, 40).endswith("…")


@pytest.mark.parametrize(
    ("text", "room", "lines"),
    [
        ("a bc def", 4, ["a bc", "def"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("一二三", 4, ["一二", "三"]),
        ("", 4, [""]),
        ("abc d", 3, ["abc", "d"]),
    ],
)
def test_lines_break_at_spaces_and_are_never_too_wide(
    text: str, room: int, lines: list[str]
) -> None:
    assert wrapped(text, room) == lines
