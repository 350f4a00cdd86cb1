"""Keys that change something: what they ask of the daemon, the command line that they show for it, and
what they say where they may not."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.main import run
from gpuq.errors import GpuqError
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.key_line import KeyLine
from tests.cli.said import FakeDaemon, Said
from tests.tui.screened import NOW, Screened, screened
from tests.tui.test_kill_dialog import ANSWERS, did, runs, waits

ADMIN = {"user": "alice", "uid": 1000, "is_admin": True, "may_act": True}
DRAINED = {"actor": "alice", "reason": "new fan"}


def done(word: str, **more: Any) -> Any:
    return lambda request: {
        "jobs": [run | {"done": word, "why": None} | more for run in did(request)["jobs"]]
    }


def drained(request: Said) -> Said:
    told = None if request["off"] else {"actor": "alice", "reason": request["reason"]}
    return {"changed": True, "drained": told, "counts": {"running": 1, "queued": 2}}


ALL = ANSWERS | {
    "hold": lambda asked: done("released" if asked.get("off") else "held")(asked),
    "requeue": done("requeued"),
    "priority": lambda asked: done("changed", priority=asked["priority"], before=0)(asked),
    "move": lambda asked: done("moved", before=int(asked["before"]))(asked),
    "pause": lambda asked: done("resumed" if asked.get("off") else "paused")(asked),
    "undo": lambda asked: done("undone")(asked | {"refs": asked["refs"] or ["184"]}),
    "status": lambda asked: {
        "before": None,
        "jobs": [
            waits(number) | {"last_id": number, "queue_place": place}
            for number, place in ((184, 1), (186, 2))
        ]
        if asked.get("places")
        else [],
    },
    "drain": drained,
}


def asked_of(daemon: FakeDaemon) -> list[Said]:
    """What was asked to be changed, without what is another each time."""
    looks = {"subscribe", "consequences", "status", "show", "gpu_history", "editable"}
    return [
        {name: value for name, value in one.items() if name not in ("id", "token")}
        for one in daemon.asked
        if one["do"] not in looks
    ]


HELD = waits(185, substate="held", reason="held by alice")
PAUSED = runs(187, substate="paused")
OVER = runs(179, state="ended", outcome="failed", exit_code=1, ended_at=NOW - 5)
WAITS = [waits(184), waits(186)]
CASES = {
    "kill": ([runs(181)], "x y", "gpuq kill 181"),
    "cancel": ([waits(184, last=190)], "x y", "gpuq kill 184-190"),
    "signal": ([runs(181)], "x s i n t enter", "gpuq kill 181 --signal SIGINT"),
    "undo": ([waits(184)], "x y u", "gpuq undo 184"),
    "undo of the last": ([waits(184)], "u", "gpuq undo"),
    "hold": ([waits(184)], "h", "gpuq hold 184"),
    "release": ([HELD], "h", "gpuq release 185"),
    "requeue": ([OVER], "r", "gpuq requeue 179"),
    "requeue what runs": ([runs(181)], "r y", "gpuq requeue 181"),
    "priority": ([waits(184, priority=3)], "p plus 7 enter", "gpuq priority 10 184"),
    "lower": ([waits(184)], "p minus 5 enter", "gpuq priority -5 184"),
    "later": (WAITS, "J", "gpuq move 186 --before 184"),
    "earlier": (list(reversed(WAITS)), "G K", "gpuq move 186 --before 184"),
    "pause": ([runs(181)], "P", "gpuq pause 181"),
    "resume": ([PAUSED], "P", "gpuq resume 187"),
    "drain": ([], "D n e w space f a n enter", "gpuq drain -m 'new fan'"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_line_that_is_shown_asks_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, keys, line = CASES[name]

    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press(*keys.split())
        await screen.shows(f"{line}:")
        shown.extend(asked_of(screen.daemon)[-1:])

    shown: list[Said] = []
    screened(tmp_path, deed, jobs=jobs, answers=ALL, size=(120, 30), beside={"you": ADMIN})
    assert [asked_by_command(tmp_path, line, monkeypatch)] == shown


def asked_by_command(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> Said:
    (folder / "typed").mkdir()
    daemon = FakeDaemon(folder / "typed")
    daemon.answers |= ALL
    monkeypatch.setenv("GPUQ_SOCKET", daemon.path)
    try:
        assert run(shlex.split(line)[1:]) == 0
    finally:
        daemon.close()
    return asked_of(daemon)[-1]


def test_the_end_of_a_drain(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D")
        await screen.shows("gpuq drain --off: it starts jobs again; 2 queued")
        assert screen.daemon.requests("drain")[0]["off"] is True

    beside = {"you": ADMIN, "drained": DRAINED}
    screened(tmp_path, deed, answers=ALL, beside=beside, size=(120, 30))


def test_the_line_names_the_daemon_that_is_meant(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("h")
        await screen.shows("gpuq --state-dir '/tmp/my state' hold 184: Job 184 is held")

    options = ("--state-dir", "/tmp/my state")
    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL, size=(160, 48), daemon_options=options)


# ── undo ──


def test_a_cancel_can_be_undone_while_it_says_so(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("x", "y")
        await screen.shows("u undoes it (10 s)")
        clock[0] += 4.5
        await screen.shows("u undoes it (6 s)")
        await screen.press("u")
        await screen.shows("gpuq undo 184: Job 184 is queued again, as before")
        assert "undoes it" not in screen.text()

    clock = [NOW]
    signs = Signs(now=lambda: clock[0])
    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL, size=(120, 30), signs=signs)


def test_what_can_not_be_undone_any_more_says_why(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("x", "y")
        await screen.shows("u undoes it")
        clock[0] += 11
        await screen.until(lambda: "undoes it" not in screen.text(), "the end of the offer")
        await screen.press("u")
        await screen.shows("gpuq undo 184: Job 184: it was cancelled 11s ago")
        await screen.press("u")
        await screen.until(
            lambda: [one["refs"] for one in screen.daemon.requests("undo")] == [["184"], []],
            "what the daemon knows of",
        )

    why = "it was cancelled 11s ago, and that can be undone for 10s (undo_for)"
    clock = [NOW]
    signs = Signs(now=lambda: clock[0])
    answers = ALL | {"undo": done("refused", why=why)}
    answers["undo"] = lambda asked: done("refused", why=why)(
        asked | {"refs": asked["refs"] or ["184"]}
    )
    screened(tmp_path, deed, jobs=[waits(184)], answers=answers, size=(120, 30), signs=signs)


def test_an_hour_to_undo_is_offered_for_a_moment_and_the_key_goes_on(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("x", "y")
        await screen.shows("Job 184 cancelled: it never started · u undoes it (10 s)")
        assert " gpuq kill 184: Job 184 cancelled" in screen.text_of("#message")
        clock[0] += 11
        await screen.until(lambda: "undoes it" not in screen.text(), "the end of the offer")
        await screen.press("u")
        await screen.shows("gpuq undo 184: Job 184 is queued again, as before")

    clock = [NOW]
    signs = Signs(now=lambda: clock[0])
    beside = {"undo_for_s": 3600.0}
    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL, signs=signs, beside=beside)


# ── what asks first ──


def test_a_requeue_of_what_runs_asks_first(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("r")
        await screen.shows("This ends 1 running job, to begin anew: 181 job-181. Requeue them?")
        await screen.press("enter")
        assert screen.daemon.requests("requeue") == []

    screened(tmp_path, deed, jobs=[runs(181)], answers=ALL)


def test_a_priority_says_whom_it_passes(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("G", "p")
        await screen.shows("It is 0 now")
        await screen.press("6")
        await screen.shows("Priority 6: goes before 184,186.")
        await screen.press("x", "enter")
        await screen.shows("a whole number is wanted")
        await screen.press("escape")
        assert screen.daemon.requests("priority") == []

    jobs = [waits(183, priority=10), waits(184, priority=5), waits(186, priority=1), waits(188)]
    screened(tmp_path, deed, jobs=jobs, answers=ALL)


def test_the_first_of_all_can_go_no_earlier(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("K")
        await screen.shows("job 184: no job of the same user and priority is next before it")

    screened(tmp_path, deed, jobs=WAITS, answers=ALL, size=(120, 30))


# ── what may not be done ──


@pytest.mark.parametrize(
    ("key", "verb"),
    [
        ("x", "kill"),
        ("h", "hold"),
        ("r", "requeue"),
        ("p", "change the priority of"),
        ("J", "move"),
        ("P", "pause"),
        ("e", "edit"),
    ],
)
def test_others_jobs_are_not_touched(tmp_path: Path, key: str, verb: str) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press(key)
        await screen.shows(f"job 183 belongs to bob; only its owner or an admin may {verb} it")
        assert asked_of(screen.daemon) == []

    screened(tmp_path, deed, jobs=[waits(183, user="bob")], answers=ALL, size=(120, 30))


def test_who_is_no_admin_drains_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D")
        await screen.shows("only an admin may drain this daemon")

    screened(tmp_path, deed, answers=ALL)


def off(screen: Screened) -> set[str]:
    """The actions whose keys are shown as off."""
    bound = screen.app.screen.active_bindings.values()
    return {active.binding.action for active in bound if not active.enabled}


def test_keys_that_may_not_are_shown_as_off(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        assert "drain" in off(screen)
        assert "kill" not in off(screen)
        await screen.press("down")
        assert {"kill", "hold", "requeue", "priority", "pause"} <= off(screen)
        assert not {"undo", "detail", "help"} & off(screen)
        line = screen.app.screen.query_one(KeyLine)
        assert {entry.id for entry in line._entries if entry.is_off} >= {"kill", "hold"}

    jobs = [waits(182), waits(183, user="bob")]
    screened(tmp_path, deed, jobs=jobs, answers=ALL)


def test_a_form_is_about_the_line_under_the_cursor_and_so_is_why_it_is_off(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("down", "space", "up")
        assert "hold" in off(screen), "bob's job is marked"
        assert not {"edit", "duplicate"} & off(screen)
        await screen.press("down")
        assert {"edit", "duplicate"} <= off(screen)
        await screen.press("d")
        await screen.shows("job 183 is bob's, and what it runs is not told")
        assert screen.daemon.requests("show") == [] or "Duplicate of" not in screen.text()

    jobs = [waits(182), waits(183, user="bob", hidden=True)]
    screened(tmp_path, deed, jobs=jobs, answers=ALL, size=(120, 30))


@pytest.mark.parametrize("key", ["x", "u", "h", "r", "p", "K", "P", "D"])
def test_a_screen_that_only_looks_changes_nothing(tmp_path: Path, key: str) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        assert "read-only" in screen.text()
        await screen.press(key)
        await screen.shows("this screen only looks (--readonly)")
        assert asked_of(screen.daemon) == []

    screened(
        tmp_path, deed, jobs=[waits(184)], answers=ALL, is_readonly=True, beside={"you": ADMIN}
    )


def test_without_a_daemon_nothing_is_changed(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the loss to be noticed")
        assert {"kill", "undo", "hold", "drain"} <= off(screen)
        await screen.press("h")
        await screen.shows("not while the daemon does not answer")
        assert asked_of(screen.daemon) == []

    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL)


# ── the line of messages ──


def test_an_error_can_be_read_whole(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("h")
        await screen.shows("the end of it")
        await screen.press("M")
        await screen.shows("╭─ Messages")
        await screen.is_golden("messages_80x24", of="#box")
        await screen.press("escape", "1")
        clock[0] += 61
        await screen.until(lambda: "the end of it" not in screen.text(), "it to fade")

    clock = [NOW]
    error = GpuqError(
        "the disk is full, " + "and more is to be said of that, " * 5 + "the end of it"
    )
    signs = Signs(now=lambda: clock[0])
    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL | {"hold": error}, signs=signs)


def test_many_different_results_are_counted(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        screen.app.screen.query_one("#jobs").focus()
        await screen.press("asterisk", "h")
        await screen.shows(
            "gpuq hold 181-185: 5 jobs: 1 held, 4 refused; Jobs 182-183: why 182-183"
        )

    def answer(asked: Said) -> Said:
        refused = [
            {
                "id": n,
                "last_id": n,
                "done": "refused",
                "why": f"why {n}" if n < 184 else f"no {n} {n % 2}",
            }
            for n in range(182, 186)
        ]
        return {"jobs": [{"id": 181, "last_id": 181, "done": "held", "why": None}, *refused]}

    jobs = [waits(number) for number in range(181, 186)]
    screened(tmp_path, deed, jobs=jobs, answers=ALL | {"hold": answer}, size=(120, 30))
