"""`--begin` and `--dry-run` on the command line, and how jobs look that are not to start yet."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import main
from gpuq.cli.job_text import letter
from gpuq.cli.moments import Moment, read_moment
from gpuq.cli.submit_again import submit_line
from gpuq.errors import NeverFits, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, in_full, job, page

STARTS = {
    "count": 1,
    "starting": 1,
    "gpus": [4, 5],
    "gpu_uuids": ["GPU-4", "GPU-5"],
    "reason": None,
    "waits_for": [],
    "expected_start_at": None,
    "words": "would start now on GPUs 4,5",
}


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the clock is put forward on 2026-03-29 at 2:00, and back on 2026-10-25 at 3:00."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def at(text: str) -> float:
    """The moment in Berlin of a time with its offset."""
    return datetime.fromisoformat(text).timestamp()


# ── the moment ──


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "text", "moment"),
    [
        ("2026-07-30T17:30", "18:00", "2026-07-30T18:00+02:00"),
        ("2026-07-30T17:30", "tomorrow 08:00", "2026-07-31T08:00+02:00"),
        ("2026-07-30T17:30", "2026-12-01T08:00", "2026-12-01T08:00+01:00"),
        ("2026-07-30T17:30", "2026-07-31T08:00Z", "2026-07-31T08:00+00:00"),
        # An hour that is left out, and the day on which that is so.
        ("2026-03-28T20:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-03-28T20:00", "tomorrow 18:00", "2026-03-29T18:00+02:00"),
        # An hour that comes twice.
        ("2026-10-25T01:50", "02:50", "2026-10-25T02:50+02:00"),
    ],
)
def test_a_time_of_day_is_that_of_who_types_it(now: str, text: str, moment: str) -> None:
    read = read_moment("--begin", text, datetime.fromisoformat(now))
    assert read == Moment(at(moment))


@pytest.mark.usefixtures("berlin")
def test_in_the_second_of_two_hours_with_one_name_that_one_is_meant() -> None:
    now = datetime(2026, 10, 25, 2, 45, fold=1)
    assert read_moment("--begin", "02:50", now) == Moment(at("2026-10-25T02:50+01:00"))


def test_a_length_of_time_is_no_moment() -> None:
    assert read_moment("--from", "+2h") == Moment(None, 7200.0)
    assert read_moment("--from", "now") == Moment(None, 0.0)


def test_what_is_no_moment_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"--from: 'soon' is no moment: write it like 18:00"):
        read_moment("--from", "soon")


@pytest.mark.parametrize("command", ["submit", "run"])
def test_the_daemon_is_told_when(gpuq: Gpuq, fake: FakeDaemon, command: str) -> None:
    fake.answers["submit"] = NeverFits("not today")
    for text in ("+2h", "2026-07-31T18:00Z", "now"):
        gpuq(command, "--begin", text, "true")
    asked = [request["jobs"][0] for request in fake.requests("submit")]
    told = [{k: v for k, v in one.items() if k.startswith("begin")} for one in asked]
    assert told == [
        {"begin_in_s": 7200.0},
        {"begin_at": at("2026-07-31T18:00+00:00")},
        {"begin_in_s": 0.0},
    ]


def test_a_slip_queues_nothing(gpuq: Gpuq, fake: FakeDaemon) -> None:
    ran = gpuq("submit", "--begin", "25:00", "true")
    assert (ran.code, ran.err) == (2, "gpuq: --begin: '25:00': 25:00 is no time of day\n")
    assert fake.requests("submit") == []


# ── as it is shown ──


def later(now: float, **more: Any) -> dict[str, Any]:
    said = {"substate": "delayed", "delayed_until": now + 3600, "reason": "not before 18:00"}
    return job(184, **said, **more)


@pytest.mark.usefixtures("berlin")
def test_the_list_shows_when_it_may_begin(gpuq: Gpuq, fake: FakeDaemon) -> None:
    now = at("2026-07-30T17:00+02:00")
    fake.answers["status"] = page(later(now))
    row = gpuq("status", terminal=True, now=now).out.splitlines()[1].split()
    left, reason = row[-5:-3], row[-3:]
    assert (row[:2], left, reason) == (["184", "D"], ["from", "18:00"], ["not", "before", "18:00"])
    assert letter(later(now))[0] == "D"


@pytest.mark.usefixtures("berlin")
def test_its_page_says_so_and_the_line_that_submits_it_again_too(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    now = at("2026-07-30T17:00+02:00")
    fake.answers["show"] = {"job": in_full(later(now))}
    lines = gpuq("show", "184", now=now).out.splitlines()
    assert "not before\t2026-07-30 18:00:00" in lines
    assert not any(line.startswith("next attempt") for line in lines)
    words = submit_line(later(now))
    assert words[words.index("--begin") + 1] == "2026-07-30T16:00:00Z"
    assert "--begin" not in submit_line(job(184))


# ── a dry run ──


def test_a_dry_run_says_the_verdict_in_a_line_and_queues_nothing(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["dry_run"] = {"dry": True, "verdict": [STARTS], "note": None}
    ran = gpuq("submit", "--dry-run", "-g", "2", "true")
    assert ran == (0, "would start now on GPUs 4,5\n", "")
    assert gpuq("submit", "--dry-run", "-g", "2", "true", terminal=True) == ran
    (first, _) = fake.requests("dry_run")
    assert first["jobs"][0]["gpus"] == 2
    assert not first.keys() & {"token", "environment"}
    assert fake.requests("submit") == []


def test_a_dry_run_as_json_is_the_daemons_own_verdict(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["dry_run"] = {"dry": True, "verdict": [STARTS], "note": "a note"}
    ran = gpuq("submit", "--dry-run", "--json", "true")
    assert json.loads(ran.out) == {"schema": 1, "dry_run": True, "verdict": [STARTS]}
    assert ran.err == "gpuq: a note\n"


def test_a_dry_run_that_can_never_start_has_that_code(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["dry_run"] = NeverFits("--gpus 9 can never start. Nothing was queued.")
    assert gpuq("submit", "--dry-run", "-g", "9", "true").code == 6


def test_what_is_going_to_fail_is_said_in_a_dry_run_too(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["dry_run"] = {"dry": True, "verdict": [STARTS], "note": None}
    ran = gpuq("submit", "--dry-run", "no-such-program-at-all")
    assert ran.err == "gpuq: 'no-such-program-at-all' is no program that can be found at present\n"


@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_there_is_nothing_to_wait_for(gpuq: Gpuq, fake: FakeDaemon, option: str) -> None:
    ran = gpuq("submit", "--dry-run", option, "true")
    assert (ran.code, "queues nothing" in ran.err) == (2, True)
    assert fake.asked == []


def test_a_dry_run_starts_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUQ_AUTOSTART")
    state = tmp_path / "none"
    assert main.run(["--state-dir", str(state), "submit", "--dry-run", "true"]) == 4
    assert not state.exists()
