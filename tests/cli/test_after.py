"""What --after says, in our words and in Slurm's."""

from typing import Any

import pytest

from gpuq.cli.after import read_after, read_dependency
from gpuq.cli.job_page import job_fields
from gpuq.cli.job_text import job_table
from gpuq.cli.render import Look
from gpuq.cli.submit_again import submit_line
from gpuq.errors import UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, ended, in_full, job, page


def need(jobs: str, when: str = "ok", each: bool = False) -> dict[str, Any]:
    return {"jobs": jobs, "when": when, "each": each}


@pytest.mark.parametrize(
    ("said", "needs"),
    [
        (["12"], [need("12")]),
        (["12-18,20:any"], [need("12-18,20", "any")]),
        (["12:ok,13,14:fail"], [need("12"), need("13,14", "fail")]),
        (["@~2:any", "g12"], [need("@~2", "any"), need("g12")]),
        (["g12:ok:each"], [need("g12", each=True)]),
        (["g12:each"], [need("g12", each=True)]),
        ([], []),
    ],
)
def test_conditions_are_for_the_jobs_since_the_one_before(
    said: list[str], needs: list[dict[str, Any]]
) -> None:
    assert read_after(said) == needs


@pytest.mark.parametrize("said", ["12:okay", ":ok", "12,:any", "12:ok:any", "12:each:each", ""])
def test_what_it_cannot_mean_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="write it like"):
        read_after([said])


def test_slurms_words() -> None:
    assert read_dependency("afterok:7:8,afterany:9,afternotok:10") == [
        need("7,8"),
        need("9", "any"),
        need("10", "fail"),
    ]
    assert read_dependency("aftercorr:7") == [need("g7", each=True)]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("singleton", "'singleton' is not known here"),
        ("after:7", "'after' is not known here"),
        ("afterok:7?afterok:8", "waits for all of them"),
        ("afterok", "names no job"),
        ("afterok:x", "names no job"),
    ],
)
def test_what_slurm_can_and_gpuq_cannot_is_said(said: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_dependency(said)


def test_both_spellings_reach_the_daemon(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["submit"] = {"first": 9, "count": 1, "group": "g9", "entries": [[9, 9]]}
    fake.answers["status"] = page(job(9))
    assert gpuq("submit", "--after", "7", "--dependency", "afterany:8", "true").code == 0
    (sent,) = fake.requests("submit")[0]["jobs"]
    assert sent["after"] == [need("7"), need("8", "any")]
    assert gpuq("submit", "true").code == 0
    assert "after" not in fake.requests("submit")[1]["jobs"][0]


def test_the_page_of_a_job_tells_them_and_the_line_asks_for_the_same() -> None:
    after = [
        need("12-18") | {"state": "met"},
        need("20", "any") | {"state": "open"},
        need("3-4", each=True) | {"state": "open"},
    ]
    waiting = in_full(job(after=after)) | {"needed_by": "190-192"}
    fields = dict(job_fields(waiting))
    assert fields["after"] == "12-18 (ok, met), 20 (any), 3-4 (ok)"
    assert fields["needed by"] == "190-192"
    line = " ".join(submit_line(waiting))
    assert "--after 12-18:ok --after 20:any --after 3-4:ok:each" in line


def test_a_kill_says_on_stderr_who_waits_in_vain(gpuq: Gpuq, fake: FakeDaemon) -> None:
    told = "186 waits for 184 and will never start"
    done = [{"id": 184, "done": "cancelled", "grace_s": None}]
    fake.answers["kill"] = {"jobs": done, "stranded": [told]}
    ran = gpuq("kill", "184")
    assert ran.out.startswith("184\tcancelled")
    assert told in ran.err


def test_the_list_says_why_a_job_was_skipped() -> None:
    """It never ran, so what it would have run says nothing about it."""
    said = "skipped: 12 failed (exit code 1), and it was to succeed first"
    skipped = ended(13, outcome="skipped", exit_code=None, started_at=None, reason=said)
    look = Look(terminal=True, width=140, user="alice", now=2000.0)
    assert job_table([skipped], look)[-1].endswith(said)
