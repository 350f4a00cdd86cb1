"""`pause`, `resume`, `drain`, `events` and `why pid:`: what they ask and how they answer."""

import json

from gpuq.errors import NothingMatched
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, event, in_full, job, page, running

# ── pause and resume ──


def test_a_paused_job_is_said_to_keep_its_memory(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["pause"] = {"jobs": [{"id": 181, "done": "paused"}]}
    said = gpuq("pause", "181", terminal=True)
    assert said.out == (
        "Job 181 stands still; its memory, and that of its GPUs, stays in use. "
        "Go on: gpuq resume 181\n"
    )
    assert fake.asked[-1]["refs"] == ["181"]
    assert not fake.asked[-1].get("off")


def test_resume_asks_for_the_opposite(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["pause"] = {"jobs": [{"id": 181, "done": "resumed"}]}
    assert gpuq("resume", "181").out == "181\tresumed\n"
    assert fake.asked[-1]["off"] is True


def test_what_does_not_run_cannot_be_paused_and_the_code_says_so(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["pause"] = {"jobs": [{"id": 184, "done": "not_running"}]}
    said = gpuq("pause", "184", terminal=True)
    assert (said.code, said.out) == (1, "Job 184 does not run, so there is nothing to pause\n")


# ── drain ──


def test_drain_tells_what_goes_on_and_what_waits(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["drain"] = {
        "changed": True,
        "drained": {"actor": "alice", "reason": "riser swap"},
        "counts": {"running": 1, "queued": 3, "queued_yours": 3},
    }
    said = gpuq("drain", "-m", "riser swap")
    assert said.out == "drained: riser swap. 1 job running, 3 queued will wait\n"
    assert fake.asked[-1]["reason"] == "riser swap"


def test_off_says_whether_it_was_drained(gpuq: Gpuq, fake: FakeDaemon) -> None:
    counts = {"running": 0, "queued": 2, "queued_yours": 2}
    fake.answers["drain"] = {"changed": False, "drained": None, "counts": counts}
    assert gpuq("drain", "--off").out == "it was not drained; 2 queued\n"
    assert gpuq("drain", "--off", "-m", "why").code == 2


def test_status_shows_a_drained_queue(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(184), drained={"actor": "bob", "reason": "riser swap"})
    last = gpuq("status", terminal=True).out.splitlines()[-1]
    assert last == "drained by bob: riser swap. It starts nothing: gpuq drain --off"


# ── time left ──


def test_status_shows_what_is_left_of_a_limit_and_of_a_wait(gpuq: Gpuq, fake: FakeDaemon) -> None:
    limited = running(
        181, time_limit_s=600.0, paused_s=30.0
    )  # has run for a minute, 30 s of it not
    waits = job(
        184, substate="backoff", delayed_until=2004.0, reason="exit code 1; attempt 2 in 9 s"
    )
    fake.answers["status"] = page(limited, waits, running(185))
    rows = [line.split()[:6] for line in gpuq("status", terminal=True).out.splitlines()[1:4]]
    assert [row[5] for row in rows] == ["9:30", "4.0s", "-"]


# ── events ──


def test_events_of_a_job_come_from_the_first_on(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answers = [{"events": [event(7), event(9, "pruned", job=None)], "last": 9}]
    fake.answers["events"] = lambda _: answers.pop(0) if answers else {"events": [], "last": 9}
    assert gpuq("events", "181").out == (
        "7\t1970-01-01T00:33:10Z\tended\t181\t1\t\t\texit code 1\n"
        "9\t1970-01-01T00:33:10Z\tpruned\t\t1\t\t\texit code 1\n"
    )
    assert [(asked["since"], asked["refs"]) for asked in fake.asked] == [(0, ["181"]), (9, ["181"])]


def test_events_as_json_are_one_a_line(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answers = [{"events": [event(7), event(8)], "last": 8}]
    fake.answers["events"] = lambda _: answers.pop(0) if answers else {"events": [], "last": 8}
    lines = gpuq("events", "--since", "6", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [7, 8]
    assert all(json.loads(line)["schema"] == 1 for line in lines)


def test_without_a_word_only_the_last_events_are_shown(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["events"] = {"events": [], "last": 1000}
    gpuq("events")
    assert [asked["since"] for asked in fake.asked] == [None, 950]


def test_of_the_last_events_those_are_shown_that_are_kept(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["events"] = {"events": [], "last": 1000, "removed_to": 990}
    gpuq("events")
    assert [asked["since"] for asked in fake.asked] == [None, 990]


def test_events_since_a_moment_are_asked_for_once_and_then_from_the_cursor(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["events"] = lambda asked: {
        "events": [event(7)] if "since_at" in asked else [],
        "last": 7,
    }
    assert gpuq("events", "--since", "30m").out.startswith("7\t")
    first, second = fake.asked
    assert (first["since_at"], second["since"], "since_at" in second) == (200.0, 7, False)
    ran = gpuq("events", "--since", "soon")
    assert (ran.code, ran.err.startswith("gpuq: --since: 'soon' is neither")) == (2, True)


# ── why ──


def test_why_explains_a_process(gpuq: Gpuq, fake: FakeDaemon) -> None:
    said = ["sleep (pid 40121) of carol has run since then", "it does not belong to gpuq"]
    fake.answers["explain"] = {"sentences": said, "found": True, "job": None}
    assert gpuq("why", "pid:40121", "--watch", "2s").out.splitlines() == said
    assert (fake.asked[-1]["pid"], fake.asked[-1]["watch_s"]) == (40121, 2.0)


def test_a_number_that_is_no_job_is_taken_for_a_process(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["show"] = NothingMatched("there is no job 40121")
    fake.answers["explain"] = {"sentences": ["it is a process"], "found": True, "job": None}
    assert gpuq("why", "40121").out == "it is a process\n"
    fake.answers["explain"] = {"sentences": ["no"], "found": False, "job": None}
    assert gpuq("why", "40121").err == "gpuq: there is no job 40121\n"


def test_a_job_and_a_process_are_not_mixed_up(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers |= {"show": {"job": in_full(job(184))}, "gpus": {"gpus": []}}
    assert gpuq("why", "184").out.startswith("Job 184 (job-184) waits")
    assert gpuq("why", "184", "--watch", "2s").code == 2
    assert gpuq("why", "pid:x").code == 2


# ── submit ──


def test_what_ends_a_job_is_asked_for_in_numbers(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["submit"] = {"first": 9, "count": 1, "group": "g9", "note": None}
    words = "-t 1:30:00 --heartbeat 5m --grace 20s --stop-to main --key nightly"
    retries = "--retries 3 --backoff 2s,4s --retry-on failed,exit:75"
    assert gpuq("submit", *words.split(), *retries.split(), "true").out == "9\n"
    asked = fake.requests("submit")[-1]["jobs"][0]
    assert (
        asked
        | {
            "time_limit_s": 5400.0,
            "heartbeat_s": 300.0,
            "grace_s": 20.0,
            "stop_to": "main",
            "key": "nightly",
            "retries": 3,
            "backoff": "2s,4s",
            "retry_on": "failed,exit:75",
        }
        == asked
    )


def test_how_to_retry_without_retries_is_a_mistake(gpuq: Gpuq, fake: FakeDaemon) -> None:
    said = gpuq("submit", "--backoff", "2s", "true")
    assert (said.code, "Add --retries" in said.err) == (2, True)
    assert fake.asked == []
