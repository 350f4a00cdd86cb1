"""`hold`, `release`, `priority`, `move`, `requeue`, `undo` and the selectors of `kill`: what they ask
and how they answer."""

import json
from typing import Any

import pytest

from gpuq.errors import NothingMatched, NotPermitted
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, job, page, running


def done(number: int = 184, what: str = "held", **more: Any) -> dict[str, Any]:
    return {"id": number, "last_id": number, "done": what, "why": None} | more


DOS = ("hold", "priority", "move", "requeue", "undo")
HELD = done(by="dan")
REFUSED = done(
    181, "refused", why="it runs; a hold keeps only what has not started: gpuq pause 181"
)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["hold", "184", "12-18,20", "@", "g7"], {"do": "hold"}),
        (["release", "184"], {"do": "hold", "off": True}),
        (["priority", "-5", "184"], {"do": "priority", "priority": -5}),
        (["priority", "10", "184", "--json"], {"do": "priority", "priority": 10}),
        (["move", "184", "--front"], {"do": "move", "before": None}),
        (["move", "184", "--before", "180"], {"do": "move", "before": "180"}),
        (["requeue", "184"], {"do": "requeue"}),
        (["undo", "184"], {"do": "undo"}),
        (["undo"], {"do": "undo", "refs": []}),
    ],
)
def test_what_is_asked(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], asked: dict[str, Any]
) -> None:
    fake.answers |= {do: {"jobs": []} for do in DOS}
    assert gpuq(*words).code == 0
    refs = [word for word in words[1:] if word[0] in "1@g" and word not in ("10", "180")]
    wanted = {"refs": refs} | asked
    assert {name: fake.asked[-1].get(name) for name in wanted} == wanted


SENTENCES = [
    (["hold"], HELD, "Job 184 is held: it does not start before gpuq release 184"),
    (["hold"], HELD | {"done": "already"}, "Job 184 is held already, by dan"),
    (
        ["hold"],
        HELD | {"last_id": 199},
        "Jobs 184-199 are held: they do not start before gpuq release 184-199",
    ),
    (["release"], done(what="released"), "Job 184 waits for its turn again"),
    (["release"], done(what="already"), "Job 184 is not held"),
    (
        ["priority", "-5"],
        done(what="changed", priority=-5, before=0),
        "Job 184 has priority -5 now, it was 0",
    ),
    (
        ["move", "--front"],
        done(what="moved", before=None),
        "Job 184 goes before all others of the same user and priority. "
        "Before others' jobs an admin puts them: gpuq priority 1 184",
    ),
    (["requeue"], done(what="requeued"), "Job 184 is queued again, behind all that wait now"),
    (
        ["requeue"],
        done(what="stopping", grace_s=10.0),
        "Job 184 is being ended (KILL in 10 s), and will be queued again",
    ),
    (["undo"], done(what="undone"), "Job 184 is queued again, as before"),
    (["undo"], done(what="thawed"), "Job 184 thawed"),
]


@pytest.mark.parametrize(("words", "answer", "sentence"), SENTENCES)
def test_what_was_done_is_said(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], answer: dict[str, Any], sentence: str
) -> None:
    fake.answers |= {do: {"jobs": [answer]} for do in DOS}
    assert gpuq(*words, "184", terminal=True) == (0, f"{sentence}\n", "")


def test_what_cannot_be_done_is_said_politely_and_the_code_tells(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["hold"] = {"jobs": [REFUSED, HELD]}
    ran = gpuq("hold", "181", "184", terminal=True)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "Job 181: it runs; a hold keeps only what has not started: gpuq pause 181",
        "Job 184 is held: it does not start before gpuq release 184",
    ]


def test_on_a_pipe_each_is_a_line_of_values(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["hold"] = {"jobs": [REFUSED, HELD]}
    assert gpuq("hold", "181,184").out.splitlines() == [
        f"181\trefused\t{REFUSED['why']}",
        "184\theld\t",
    ]
    fake.answers["hold"] = {"jobs": [HELD]}
    told = json.loads(gpuq("hold", "184", "--json").out)
    assert told == {"schema": 1, "jobs": [HELD]}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotPermitted("job 181 belongs to bob; only its owner may"), 5),
        (NothingMatched("no job 814"), 3),
    ],
)
def test_what_the_daemon_refuses_has_its_own_code(
    gpuq: Gpuq, fake: FakeDaemon, error: Exception, code: int
) -> None:
    fake.answers["requeue"] = error  # type: ignore[assignment]
    ran = gpuq("requeue", "814")
    assert (ran.code, ran.out, ran.err) == (code, "", f"gpuq: {error}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["hold"],
        ["move", "184"],
        ["move", "184", "--front", "--before", "3"],
        ["priority", "high", "184"],
        ["priority", "5"],
    ],
)
def test_a_slip_asks_nothing(gpuq: Gpuq, fake: FakeDaemon, words: list[str]) -> None:
    ran = gpuq(*words)
    assert (ran.code, fake.asked) == (2, [])


# ── kill by selectors ──


def test_a_selector_of_kill_is_asked_of_the_daemon(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(7), job(8, name="other"))
    fake.answers["kill"] = {"jobs": [done(7, "cancelled", grace_s=None)]}
    ran = gpuq("kill", "-u", "bob", "-q", "night", "--tag", "x", "-s", "queued", "-n", "job-*")
    assert ran == (0, "7\tcancelled\n", "")
    asked = fake.requests("status")[0]
    selected = {name: asked[name] for name in ("user", "queue", "tag", "states", "changeable")}
    assert selected == {
        "user": "bob",
        "queue": "night",
        "tag": "x",
        "states": ["queued"],
        "changeable": True,
    }
    assert fake.requests("kill")[0]["refs"] == ["7"]


def test_a_selector_that_finds_nothing_ends_nothing(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(1))
    ran = gpuq("kill", "-n", "nobody")
    assert (ran.code, fake.requests("kill")) == (3, [])


def test_kill_tells_as_json(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer = done(7, "cancelled", grace_s=None)
    fake.answers["kill"] = {"jobs": [answer]}
    assert json.loads(gpuq("kill", "g7", "--json").out) == {"schema": 1, "jobs": [answer]}
    assert fake.requests("kill")[0]["refs"] == ["g7"]
