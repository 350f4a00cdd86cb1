"""`gpuq output`: the path of a job's results, and a window onto it where there is one to be had."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.results import output
from gpuq.errors import NothingMatched
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, attempt, ended, in_full, job, page
from tests.conftest import BIN

FIRST, LAST = "/state/jobs/179/1/output", "/state/jobs/179/2/output"


def tried_twice(**changes: Any) -> dict[str, Any]:
    attempts = [attempt(attempt=n, output_dir=place) for n, place in ((1, FIRST), (2, LAST))]
    return in_full(ended(179, attempt=2, output_dir=LAST), attempts=attempts) | changes


def one_by_one(*jobs: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What `show` says of each by its number."""
    known = {str(one["id"]): one for one in jobs}
    return lambda request: {"job": known[request["ref"]]}


def test_it_prints_the_directory_of_the_last_attempt(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["show"] = {"job": tried_twice()}
    assert gpuq("output", "179") == (0, f"{LAST}\n", "")
    assert gpuq("output", "--attempt", "1", "179") == (0, f"{FIRST}\n", "")


def test_an_attempt_that_was_not(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["show"] = {"job": tried_twice()}
    told = "gpuq: job 179 has no attempt 3. See: gpuq show 179\n"
    assert gpuq("output", "179", "--attempt", "3") == (3, "", told)


def test_a_job_that_has_not_started_has_none(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["show"] = {"job": in_full(job(184))}
    told = "gpuq: job 184 has no output yet: wants 1 GPU, 0 free. See: gpuq why 184\n"
    assert gpuq("output", "184") == (1, "", told)


def test_what_is_hidden_is_said_to_be(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["show"] = {"job": in_full(ended(179, user="bob", hidden=True))}
    assert gpuq("output", "179") == (
        5,
        "",
        "gpuq: the output of job 179 is readable to bob alone\n",
    )


def test_one_that_went_with_its_log_is_not_named_as_if_it_were_there(
    fake: FakeDaemon, gpuq: Gpuq, tmp_path: Path
) -> None:
    gone = {"files_removed_at": 2000.0 + 86400, "output_dir": str(tmp_path / "output")}
    fake.answers["show"] = {"job": tried_twice(**gone)}
    told = gpuq("output", "179")
    assert (told.code, told.out) == (1, "")
    assert told.err.endswith("it went with the job's log, 24:00:00 after the end\n")
    (tmp_path / "output").mkdir()
    assert gpuq("output", "179") == (0, f"{tmp_path}/output\n", "")


def test_a_group_has_a_line_for_each_that_has_started(fake: FakeDaemon, gpuq: Gpuq) -> None:
    jobs = [ended(n, output_dir=f"/state/jobs/{n}/1/output") for n in (179, 180)]
    fake.answers["status"] = page(*jobs, job(181))
    fake.answers["show"] = one_by_one(*(in_full(one) for one in jobs))
    lines = "/state/jobs/179/1/output\n/state/jobs/180/1/output\n"
    assert gpuq("output", "g179") == (0, lines, "")


def test_what_one_of_a_group_lacks_keeps_none_of_the_others_back(
    fake: FakeDaemon, gpuq: Gpuq
) -> None:
    jobs = [tried_twice(), in_full(ended(180), attempts=[attempt()])]
    fake.answers["status"] = page(ended(179, attempt=2), ended(180))
    fake.answers["show"] = one_by_one(*jobs)
    told = gpuq("output", "--attempt", "2", "g179")
    assert (told.code, told.out) == (3, f"{LAST}\n")
    assert "job 180 has no attempt 2" in told.err


def test_of_a_group_that_has_not_started_there_is_none(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["status"] = page(job(184), job(185))
    told = gpuq("output", "g184")
    assert (told.code, told.out) == (1, "")
    assert told.err.endswith("none has started yet. See: gpuq why g184\n")


def test_a_word_that_names_nothing(fake: FakeDaemon, gpuq: Gpuq) -> None:
    fake.answers["show"] = NothingMatched("no job 814 (your last is 184). See: gpuq status -a")
    assert gpuq("output", "814").code == 3


# ── in a window ──


def test_on_a_pipe_nothing_is_opened(gpuq: Gpuq) -> None:
    told = "gpuq: --open is for a person at a terminal. Without it the path is printed\n"
    assert gpuq("output", "--open", "179") == (2, "", told)


def on_terminal(fake: FakeDaemon, folder: Path, **variables: str) -> tuple[int, str, list[str]]:
    """The code, what was printed, and what a desktop was asked to open."""
    opened = folder / "opened"
    opener = folder / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" >> {opened}\nexit "${{OPENS:-0}}"\n')
    opener.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k not in output.DISPLAYS}
    main, end = pty.openpty()
    ran = subprocess.run(
        [BIN / "gpuq", "--socket", fake.path, "output", "--open", "179"],
        env=kept | {"PATH": f"{folder}:/usr/bin:/bin"} | variables,
        stdin=end,
        stdout=end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(end)
    os.close(main)
    return ran.returncode, ran.stderr, opened.read_text().split() if opened.exists() else []


def test_a_desktop_shows_it(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.answers["show"] = {"job": tried_twice()}
    assert on_terminal(fake, tmp_path, DISPLAY=":0") == (0, "", [LAST])


def test_without_a_desktop_nothing_is_opened(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.answers["show"] = {"job": tried_twice()}
    code, told, opened = on_terminal(fake, tmp_path)
    assert (code, opened) == (2, [])
    assert "needs a desktop, and here is none" in told


@pytest.mark.parametrize("code", [1, 4])
def test_a_desktop_that_cannot_is_told_of(fake: FakeDaemon, tmp_path: Path, code: int) -> None:
    fake.answers["show"] = {"job": tried_twice()}
    told = on_terminal(fake, tmp_path, DISPLAY=":0", OPENS=str(code))
    assert told[:2] == (1, f"gpuq: xdg-open could not show {LAST}: it ended with {code}\n")
