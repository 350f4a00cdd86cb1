"""When a job will start, as people are told it."""

import time

import pytest

from gpuq.cli.expected_text import expected_start, runs_about, starts_at
from gpuq.cli.job_page import job_fields
from gpuq.cli.job_text import greeting, job_table, why_lines
from gpuq.cli.render import Look
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, in_full, job, page, running

# A Friday, wherever this runs.
NOON = time.mktime((2026, 7, 31, 12, 0, 0, 0, 0, -1))
HOUR, DAY = 3600.0, 86400.0
LOOK = Look(terminal=True, width=120, user="alice", now=NOON)
BY_LIMIT = "by the time limits of 181, 182"


def waits(after_s: float | None, rests_on: str | None = BY_LIMIT) -> dict:
    at = None if after_s is None else NOON + after_s
    return job(184, expected_start=at, expected_start_from=rests_on)


@pytest.mark.parametrize(
    ("after_s", "words"),
    [
        (2 * HOUR + 20 * 60, "~14:20"),
        (-5.0, "~12:00"),
        (DAY + 2 * HOUR, "~Sat 14:00"),
        (13 * HOUR, "~Sat 01:00"),
        (10 * DAY, "~2026-08-10 12:00"),
        (None, None),
    ],
)
def test_a_moment_says_no_more_of_its_day_than_it_must(
    after_s: float | None, words: str | None
) -> None:
    assert starts_at(waits(after_s), NOON) == words


def test_who_runs_has_started() -> None:
    assert starts_at(running(181, expected_start=NOON + HOUR), NOON) is None


def test_the_list_shows_it_in_place_of_what_is_left() -> None:
    header, line, unknown = job_table([waits(HOUR), waits(None)], LOOK)
    at = header.index("LEFT") + len("LEFT")
    assert line[:at].endswith("~13:00")
    assert unknown[:at].endswith(" -")


def test_a_list_in_which_nobody_knows_has_no_such_column() -> None:
    assert "LEFT" not in job_table([waits(None)], LOOK)[0]


def test_the_greeting_says_it() -> None:
    assert greeting(waits(HOUR), simulated=False, now=NOON) == (
        "Job 184 queued: wants 1 GPU, 0 free; expected start ~13:00"
    )
    assert greeting(waits(None), simulated=False, now=NOON) == (
        "Job 184 queued: wants 1 GPU, 0 free"
    )


def test_show_and_why_say_what_it_rests_on() -> None:
    shown = dict(job_fields(in_full(waits(HOUR)), NOON))
    assert shown["expected start"] == "~13:00 (by the time limits of 181, 182)"
    assert not {"expected start from", "expected start is guess"} & shown.keys()
    lines = why_lines(in_full(waits(HOUR)), LOOK, simulated=False)
    assert "It is expected to start at ~13:00 (by the time limits of 181, 182)." in lines


def test_where_it_is_unknown_they_say_why() -> None:
    unknown = waits(None, "181 has no time limit")
    assert expected_start(unknown, NOON) == "unknown: 181 has no time limit"
    lines = why_lines(in_full(unknown), LOOK, simulated=False)
    assert "Nobody can say when it will start: 181 has no time limit." in lines
    silent = waits(None, None)
    assert "expected start" not in dict(job_fields(in_full(silent), NOON))
    assert len(why_lines(in_full(silent), LOOK, simulated=False)) == 1


def test_show_says_how_long_its_command_ran_before() -> None:
    known = in_full(job()) | {"ran_before": {"longest_s": 720.0, "runs": 3}}
    assert dict(job_fields(known))["runs"] == "about 12:00 (learned from 3 runs)"
    assert "ran before" not in dict(job_fields(known))
    assert runs_about(job()) is None


def test_submit_says_it_on_a_terminal(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    fake.answers["status"] = page(waits(HOUR))
    ran = gpuq("submit", "train.py", terminal=True, now=NOON)
    assert "expected start ~13:00" in ran.out, ran
