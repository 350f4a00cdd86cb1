"""Commands that are given a group, or a selector: summaries, logs one after the other, and one line
for all to which the same was done."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, attempt, ended, in_full, job, page, running
from tests.cli.test_jobs import Terminal

GRID = {"array_index": 2, "parameters": {"lr": "0.1", "seed": "2"}}


def grid(number: int, view: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """An element of an array, the first of which is 88."""
    one = {"name": "grid", "group": "g88", "array_index": number - 88}
    return (view or job(number)) | one | {"differs_in": []} | changes


def succeeded(number: int) -> dict[str, Any]:
    return grid(number, ended(number, outcome="succeeded", exit_code=0, reason="exit code 0"))


def failed(number: int) -> dict[str, Any]:
    return grid(number, ended(number))


@pytest.fixture
def g88(fake: FakeDaemon) -> FakeDaemon:
    """Six that failed, 194 that succeeded, three that wait: 88 to 290."""
    over = [failed(n) for n in range(88, 94)] + [succeeded(n) for n in range(94, 288)]
    fake.answers["status"] = page(*over, grid(288) | {"last_id": 290})
    return fake


def test_what_is_said_of_each_is_said_of_all(gpuq: Gpuq, fake: FakeDaemon) -> None:
    reason = "cancelled by bob while it was queued"
    never = {"outcome": "cancelled", "exit_code": None, "reason": reason}
    fake.answers["status"] = page(grid(88, ended(88, **never)), grid(89, ended(89, **never)))
    fake.answers["wait"] = {"timed_out": False, "ended": "88-89"}
    ran = gpuq("wait", "g88", terminal=True)
    assert ran.out == "Jobs 88-89 cancelled by bob while they were queued\n"
    assert "2 cancelled by bob while they were queued (88-89)." in gpuq("why", "g88").out


# ── why ──


def test_why_of_a_group_is_a_summary_by_reason(gpuq: Gpuq, g88: FakeDaemon) -> None:
    assert gpuq("why", "g88", terminal=True).out.splitlines() == [
        "g88 (grid) is 203 jobs: 88-290.",
        "6 failed (88-93): exit code 1.",
        "194 succeeded (94-287).",
        "3 wait (288-290): wants 1 GPU, 0 free.",
        "Why one of them: gpuq why 88",
    ]
    assert g88.requests("status")[0]["runs"] is True


def test_a_summary_has_an_end(gpuq: Gpuq, fake: FakeDaemon) -> None:
    odd = [grid(n, ended(n, reason=f"ended by {n}"), exit_code=n) for n in range(88, 188, 2)]
    fake.answers["status"] = page(*odd)
    lines = gpuq("why", "g88").out.splitlines()
    assert lines[0] == "g88 (grid) is 50 jobs: 88,90,92,94,96,98,100,102,…."
    assert lines[-2:] == [
        "38 more for other reasons: gpuq status g88",
        "Why one of them: gpuq why 88",
    ]


def test_of_very_many_only_the_last_are_looked_at(
    gpuq: Gpuq, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuq.cli.several.MOST_RUNS", 2)
    fake.answers["status"] = page(failed(88), failed(89), failed(90))
    lines = gpuq("why", "g88").out.splitlines()
    assert lines[0] == "g88 (grid) is more than 2 jobs: 89-90."
    assert "Those before 89 were not looked at." in lines


@pytest.mark.parametrize("ref", ["@", "g184"])
def test_a_group_of_one_is_that_job(gpuq: Gpuq, fake: FakeDaemon, ref: str) -> None:
    fake.answers |= {"status": page(job(184)), "show": {"job": in_full(job(184))}, "gpus": page()}
    assert gpuq("why", ref).out.startswith("Job 184 (job-184) waits")
    assert gpuq("show", ref).out.startswith("job\t184 job-184\n")


def test_a_number_is_asked_about_once(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers |= {"show": {"job": in_full(job(184))}, "gpus": page()}
    gpuq("why", "184")
    assert fake.requests("status") == []


# ── show ──


def test_show_says_what_a_group_is(gpuq: Gpuq, fake: FakeDaemon) -> None:
    lr = [{"lr": "0.1"}, {"lr": "0.01"}]
    two = [grid(88, running(88), parameters=lr[0]), grid(89, parameters=lr[1])]
    fake.answers["status"] = page(*two)
    assert gpuq("show", "g88", terminal=True).out.splitlines() == [
        "g88 (grid) is 2 jobs: 88-89.",
        "1 runs (88).",
        "1 waits (89): wants 1 GPU, 0 free.",
        "",
        "ID  STATE    NAME     PARAMS   COMMAND",
        "88  running  grid[0]  lr=0.1   python train.py",
        "89  queued   grid[1]  lr=0.01  python train.py",
        "all about the first: gpuq show 88",
    ]
    piped = [line.split("\t")[0] for line in gpuq("show", "g88").out.splitlines()]
    assert piped == ["jobs"] * 3 + ["job"] * 2


def test_show_as_json_has_all_of_them_in_full(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(grid(88) | {"last_id": 90})
    fake.answers["show"] = lambda asked: {"job": in_full(grid(int(asked["ref"])))}
    jobs = json.loads(gpuq("show", "--json", "g88").out)["jobs"]
    assert [one["id"] for one in jobs] == [88, 89, 90]
    assert all("attempts" in one for one in jobs)
    fake.answers["status"] = page(grid(88) | {"last_id": 1_000_087})
    ran = gpuq("show", "--json", "g88")
    assert (ran.code, ran.out) == (2, "")
    assert "gpuq status --json g88" in ran.err


def test_what_is_of_one_job_is_not_shown_of_several(gpuq: Gpuq, g88: FakeDaemon) -> None:
    ran = gpuq("show", "--diff", "g88")
    assert ran.code == 2
    assert "g88 (grid) is 203 jobs: 88-290" in ran.err


# ── logs ──


@pytest.fixture
def logged(fake: FakeDaemon, tmp_path: Path) -> FakeDaemon:
    """Of 88 and 89 there are logs, that of 90 is gone, and 91 to 99 wait."""
    (tmp_path / "88").write_bytes(b"one\ntwo\n")
    (tmp_path / "89").write_bytes(b"three")
    views = {}
    for number in (88, 89, 90):
        log = str(tmp_path / str(number))
        view = grid(number, ended(number, log=log))
        views[str(number)] = in_full(view, attempts=[attempt(log=log)])
    fake.answers["show"] = lambda asked: {"job": views[asked["ref"]]}
    fake.answers["status"] = page(*views.values(), grid(91) | {"last_id": 99})
    return fake


def test_logs_of_a_group_come_one_after_the_other(gpuq: Gpuq, logged: FakeDaemon) -> None:
    ran = gpuq("logs", "g88")
    assert ran.out == "==> 88 grid[0] <==\none\ntwo\n\n==> 89 grid[1] <==\nthree"
    assert ran.code == 1
    assert ran.err.startswith("gpuq: there is no log of job 90 at ")
    assert gpuq("logs", "-n", "1", "g88").out.count("one") == 0
    assert len(gpuq("logs", "--path", "g88").out.splitlines()) == 3


def test_one_of_a_group_is_to_be_chosen_to_follow(gpuq: Gpuq, logged: FakeDaemon) -> None:
    ran = gpuq("logs", "-f", "g88")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "gpuq: --follow follows one job, and g88 (grid) is 12 jobs: 88-99. Choose one, as in "
        "gpuq logs -f 88: 91-99 wait, 88-90 have ended\n"
    )


def test_a_group_of_which_none_has_started_has_no_logs(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(grid(88, log="/named/by/submit") | {"last_id": 99})
    ran = gpuq("logs", "g88")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("none has a log yet. See: gpuq why g88\n")


# ── floods ──


def test_wait_tells_those_together_that_ended_alike(gpuq: Gpuq, fake: FakeDaemon) -> None:
    again = {"attempt": 2}
    over = [failed(n) for n in (88, 89, 91)] + [succeeded(90), succeeded(92) | again]
    fake.answers["status"] = page(*over, succeeded(93) | again)
    fake.answers["wait"] = {"timed_out": False, "ended": "88-93"}
    assert gpuq("wait", "g88", terminal=True).out.splitlines() == [
        "Jobs 88-89,91 failed: exit code 1",
        "Job 90 succeeded",
        "Jobs 92-93 succeeded, on their 2nd attempt",
    ]
    assert len(gpuq("wait", "g88").out.splitlines()) == 6


def done(number: int, what: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "last_id": number, "done": what, "why": None} | more


def test_what_was_done_alike_is_told_together_on_a_terminal(gpuq: Gpuq, fake: FakeDaemon) -> None:
    why = "it has ended; gpuq requeue {id} runs it again"
    refused = [done(n, "refused", why=why.replace("{id}", str(n))) for n in (88, 89)]
    fake.answers["hold"] = {"jobs": [*refused, done(90, "held"), done(91, "held")]}
    ran = gpuq("hold", "g88", terminal=True)
    assert ran.out.splitlines() == [
        "Jobs 88-89: they have ended; gpuq requeue 88-89 runs them again",
        "Jobs 90-91 are held: they do not start before gpuq release 90-91",
    ]
    assert len(gpuq("hold", "g88").out.splitlines()) == 4
    assert len(json.loads(gpuq("hold", "g88", "--json").out)["jobs"]) == 4


def test_a_line_can_be_read_and_copied(gpuq: Gpuq, fake: FakeDaemon) -> None:
    every_other = [done(n, "stopping", grace_s=10.0) for n in range(2, 26, 2)]
    fake.answers["kill"] = {"jobs": every_other}
    assert gpuq("kill", "g2", terminal=True).out.splitlines() == [
        "Jobs 2,4,6,8,10,12,14,16 stopping, KILL in 10 s",
        "Jobs 18,20,22,24 stopping, KILL in 10 s",
    ]


# ── selectors ──


@pytest.mark.parametrize(
    ("words", "do", "states"),
    [
        (["hold", "-q", "night"], "hold", ["queued"]),
        (["release", "-q", "night"], "hold", ["held"]),
        (["priority", "-5", "-q", "night"], "priority", ["queued"]),
        (["requeue", "-q", "night", "-s", "failed"], "requeue", ["failed"]),
        (["hold", "-q", "night", "-s", "delayed"], "hold", ["delayed"]),
        (["kill", "-q", "night"], "kill", []),
    ],
)
def test_selectors_choose_among_the_jobs_named(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], do: str, states: list[str]
) -> None:
    view = ended(90) if states == ["failed"] else job(90)
    fake.answers["status"] = page(view | {"last_id": 93})
    fake.answers[do] = {"jobs": []}
    assert gpuq(*words, "g88").code == 0
    (asked,) = fake.requests("status")
    told = {name: asked[name] for name in ("refs", "queue", "states", "changeable", "runs")}
    assert told == {
        "refs": ["g88"],
        "queue": "night",
        "states": states,
        "changeable": True,
        "runs": True,
    }
    assert fake.requests(do)[0]["refs"] == ["90-93"]


def test_a_name_chooses_by_what_is_shown(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(grid(88), grid(89), job(90))
    fake.answers["hold"] = {"jobs": []}
    gpuq("hold", "-n", "grid[[]1]")
    assert fake.requests("hold")[0]["refs"] == ["89"]
    assert gpuq("status", "-n", "grid*").out.count("\n") == 2


def test_what_has_ended_is_meant_only_where_that_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(ended(88), job(89))
    fake.answers["requeue"] = {"jobs": []}
    gpuq("requeue", "-m", "g88")
    gpuq("requeue", "-m", "-s", "failed,queued", "g88")
    assert [asked["refs"] for asked in fake.requests("requeue")] == [["89"], ["88-89"]]
    fake.answers["status"] = page(ended(88))
    ran = gpuq("kill", "-s", "failed", "g88")
    assert (ran.code, fake.requests("kill")) == (3, [])
    assert ran.err.startswith("gpuq: no job of g88 matches that may be changed.")


def test_a_requeue_that_ends_several_is_asked_about(
    gpuq: Gpuq, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["status"] = page(running(1), running(2), ended(3))
    fake.answers["requeue"] = {"jobs": []}
    ran = gpuq("requeue", "-s", "running,failed", "1-3")
    assert (ran.code, fake.requests("requeue")) == (2, [])
    assert "This ends 2 running jobs, to begin anew: 1 job-1, 2 job-2. Requeue them?" in ran.err
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert gpuq("requeue", "-s", "running,failed", "1-3").code == 1
    assert gpuq("requeue", "-s", "running,failed", "-y", "1-3").code == 0
    assert fake.requests("requeue")[0]["refs"] == ["1-3"]


def test_however_many_are_found_they_are_named_in_few_words(gpuq: Gpuq, fake: FakeDaemon) -> None:
    """Newest first, as they are listed, with one of another's in between."""
    fake.answers["status"] = page(*(job(number) for number in range(900, 100, -1) if number != 500))
    fake.answers["hold"] = {"jobs": []}
    gpuq("hold", "--mine")
    assert fake.requests("hold")[0]["refs"] == ["101-499", "501-900"]


@pytest.mark.parametrize("words", [["hold"], ["release"], ["requeue"], ["priority", "5"]])
def test_nothing_named_is_nothing_asked(gpuq: Gpuq, fake: FakeDaemon, words: list[str]) -> None:
    ran = gpuq(*words)
    assert (ran.code, fake.asked) == (2, [])
    assert "what? Give jobs, or a selector such as --mine." in ran.err


# ── the list ──


def test_elements_are_told_apart_in_the_list(gpuq: Gpuq, fake: FakeDaemon) -> None:
    two = running(90, **GRID)
    own = running(91, name="g-3", **GRID) | {"differs_in": ["name", "command"]}
    fake.answers["status"] = page(two | {"differs_in": []}, own)
    lines = gpuq("status", terminal=True).out.splitlines()
    assert lines[1].split()[2] == "job-90[2]"
    assert lines[1].endswith("lr=0.1 seed=2: python train.py")
    assert (lines[2].split()[2], lines[2].endswith("  python train.py")) == ("g-3", True)
    out = gpuq("status", "-o", "id,index,params,log,place").out
    assert out.splitlines()[0] == "90\t2\tlr=0.1 seed=2\t\t"


def test_what_is_next_is_asked_of_the_daemon_and_shown_in_its_order(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["status"] = page(job(7) | {"queue_place": 2}, job(9) | {"queue_place": 1})
    lines = gpuq("status", "--sort", "next", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["9", "7"]
    assert lines[-1] == "not in this order: what runs, is held, not due yet or waits for other jobs"
    (asked,) = fake.requests("status")
    assert (asked["next"], asked["places"], asked["fold"], asked["limit"]) == (
        True,
        True,
        False,
        26,
    )
    assert gpuq("status", "--sort", "next", "-o", "id,place").out == "9\t1\n7\t2\n"
    gpuq("status", "-o", "place", terminal=True)
    assert fake.asked[-1]["fold"] is False
    assert (fake.asked[-1]["next"], fake.asked[-1]["places"]) == (False, True)


@pytest.mark.parametrize("words", [["--sort", "next", "--fold"], ["--sort=-next"]])
def test_what_is_next_has_one_order(gpuq: Gpuq, fake: FakeDaemon, words: list[str]) -> None:
    assert (gpuq("status", *words).code, fake.asked) == (2, [])
