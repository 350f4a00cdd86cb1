"""The pane about the job under the cursor: what each of its tabs shows, and when it asks for it."""

from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import NothingMatched
from gpuq.tui.screens import looking_into
from tests.cli.said import GIB, Said, attempt, in_full, simulated
from tests.cli.test_group import group
from tests.tui.golden import hold
from tests.tui.screened import NOW, Screened, row, screened

SIZES = {"80x24": (80, 24), "120x30": (120, 30), "160x48": (160, 48)}


def running(number: int = 183, **changes: Any) -> Said:
    told: Said = {
        "group": f"g{number}",
        "name": "eval-7",
        "state": "running",
        "attempt": 2,
        "pid": 51220,
        "gpus": [0],
        "gpu_uuids": ["GPU-0"],
        "gpu_mem_bytes": 24 * GIB,
        "exclusive": False,
        "started_at": NOW - 249,
        "submitted_at": NOW - 4000,
        "time_limit_s": 3600.0,
        "reason": None,
        "command": ["python", "eval.py", "--ckpt", "7", "--split", "test"],
        "tags": ["eval", "vit"],
        "progress": 0.61,
        "metrics": {"loss": 0.25, "acc": 0.7712},
        "log": "/state/jobs/183/2/log",
        "after": [{"jobs": "180", "when": "ok", "each": False, "state": "met"}],
    }
    return row(number, **(told | changes))


def whole(told: Said, **changes: Any) -> Said:
    """As `show` has it."""
    failed = attempt(
        started_at=NOW - 900, ended_at=NOW - 600, reason="exit code 1", gpu_peak_bytes=6 * GIB
    ) | {"error_signature": "RuntimeError: CUDA error: device-side assert"}
    now = attempt(
        attempt=2,
        started_at=NOW - 249,
        ended_at=None,
        outcome=None,
        reason=None,
        exit_code=None,
        user_s=None,
        system_s=None,
        peak_rss_bytes=None,
    )
    more = {"env_names": ["HF_HOME", "WANDB_MODE"], "needed_by": "186", "retries": 2}
    return {"job": in_full(told, attempts=[failed, now]) | more | changes}


def processes(cpu_s: float = 50.0, at: float = 100.0) -> Said:
    def one(pid: int, ppid: int, *command: str, **changes: Any) -> Said:
        plain = {"pid": pid, "ppid": ppid, "state": "S", "command": list(command), "cpu_s": cpu_s}
        return plain | {"rss_bytes": 1288490188, "gpu_memory_bytes": None} | changes

    listed = [
        one(51220, 51219, "python", "eval.py", rss_bytes=4 * GIB, gpu_memory_bytes=22 * GIB),
        one(51244, 51220, "pt_data_worker"),
        one(51245, 51220, "pt_data_worker", state="D"),
        one(51250, 51244, "gzip", "-d"),
    ]
    told = {"job": 183, "attempt": 2, "at": at, "left_out": 0, "hidden": False, "why": None}
    return told | {"processes": listed}


def series() -> Said:
    def quantity(low: float, high: float) -> Said:
        points = [[n, low + (high - low) * n / 120, high, 2] for n in range(120)]
        return {"min": low, "mean": (low + high) / 2, "max": high, "points": points}

    told = {"job": 183, "attempt": 2, "simulated": True, "why": None, "width_s": 2.0}
    known = {
        "gpu_memory_bytes": quantity(GIB, 8 * GIB),
        "gpu_utilization_percent": quantity(10, 98),
    }
    return told | {"started_at": NOW - 249, "ended_at": None, "quantities": known}


PREP = row(180, group="g180", name="prep", state="ended", outcome="succeeded", ended_at=NOW - 5000)
EVAL = running()
REPORT = row(
    186, group="g186", name="report", reason="after 183 (ok)", submitted_at=NOW - 3000,
    after=[{"jobs": "183", "when": "ok", "each": False, "state": "open"}],
)  # fmt: skip
ANSWERS: dict[str, Any] = {
    "show": lambda asked: whole(EVAL) if asked["ref"] == "183" else {"job": in_full(REPORT)},
    "processes": processes(),
    "series": series(),
    "status": lambda asked: {
        "jobs": [one for one in (PREP, REPORT) if str(one["id"]) in asked["refs"]],
        "before": None,
    },
}


async def pane_is_golden(screen: Screened, name: str) -> None:
    """The pane alone: what stands around it has tests of its own."""
    await screen.settle()
    seen = screen.app.screen.pane.region
    lines = screen.text().splitlines()[seen.y : seen.bottom]
    text = "\n".join(line[seen.x : seen.right].rstrip() for line in lines) + "\n"
    hold(text, f"{name}.txt")


def looked(tmp_path: Path, deed: Any, size: str = "80x24", **changes: Any) -> None:
    plain: dict[str, Any] = {"jobs": [EVAL, REPORT], "gpus": [simulated(0)], "answers": ANSWERS}
    screened(tmp_path, deed, size=SIZES[size], **(plain | changes))


# ─── each tab ────────────────────────────────────────────────────────────────────────────────────

TO = {
    "summary": (["enter"], "attempt 1"),
    "needs": (["enter", "t"], "waited for by"),
    "procs": (["]", "]"], "51244"),
    "env": (["]", "]", "]"], "WANDB_MODE"),
    "graph": (["["], "GPU memory"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tab", TO)
def test_a_tab_looks_as_it_should(tmp_path: Path, tab: str, size: str) -> None:
    keys, words = TO[tab]

    async def deed(screen: Screened) -> None:
        await screen.press(*keys)
        if tab == "summary" and size == "80x24":
            await pane_is_golden(screen, "detail_head_80x24")
            await screen.press("pagedown")
        await screen.shows(words)
        await pane_is_golden(screen, f"detail_{tab}_{size}")

    looked(tmp_path, deed, size)


def test_a_group_tells_what_came_of_it(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("4 succeeded")
        await pane_is_golden(screen, "detail_group_80x24")
        asked = screen.daemon.requests("group")
        assert [one["ref"] for one in asked] == ["g12", "g12"]
        assert asked[-1]["best"] == "loss:min"

    best = {"metric": "loss", "direction": "min", "value": 0.1, "job": 14, "name": "sweep-2"}
    end = {"at": NOW + 600, "earliest_at": NOW + 300, "latest_at": NOW + 900, "sureness": "fair"}
    end |= {"runs": 4, "mean_s": 300.0, "at_once": 2}
    best |= {"state": "ended", "outcome": "succeeded", "parameters": {"lr": "0.14"}}

    def of_group(asked: Said) -> Said:
        found = group(best=best if asked.get("best") else None, estimated_end=end)
        return {"group": found, "jobs": [], "after": None}

    jobs = [row(12, last=15, group="g12", name="sweep"), running(16, group="g12", name="sweep")]
    looked(tmp_path, deed, jobs=jobs, answers={"group": of_group})


# ─── when it asks ────────────────────────────────────────────────────────────────────────────────


def asked(screen: Screened, what: str) -> list[str]:
    return [one["ref"] for one in screen.daemon.requests(what)]


def test_only_what_the_open_tab_shows_is_asked_for_and_only_once(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("eval.py")
        assert (asked(screen, "show"), asked(screen, "series")) == (["183"], [])
        await screen.press("[")
        await screen.shows("GPU memory")
        assert (asked(screen, "show"), asked(screen, "series")) == (["183"], ["183"])
        assert asked(screen, "processes") == []

    looked(tmp_path, deed)


def test_who_comes_back_to_a_job_sees_at_once_what_was_known_of_it(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("python eval.py")
        await screen.until(lambda: asked(screen, "show") == ["183"], "the first question")
        await screen.press("down")
        await screen.until(lambda: asked(screen, "show") == ["183", "186"], "the second")
        await screen.press("up")
        await screen.shows("RUNNING")
        assert asked(screen, "show") == ["183", "186"]

    looked(tmp_path, deed)


def test_a_row_that_says_something_else_is_asked_for_again_but_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(looking_into, "monotonic", lambda: now[0])

    async def deed(screen: Screened) -> None:
        await screen.until(lambda: len(asked(screen, "show")) == 1, "the first question")
        screen.daemon.push(jobs=[running(progress=0.7)])
        await screen.shows("70 %")
        assert len(asked(screen, "show")) == 1
        now[0] += 1.0
        screen.app.screen._tick()
        await screen.until(lambda: len(asked(screen, "show")) == 2, "another")
        now[0] += 5.0
        screen.app.screen._tick()
        await screen.settle()
        assert len(asked(screen, "show")) == 2, "it says the same as when it was asked for"

    looked(tmp_path, deed)


def test_nobody_is_asked_while_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(looking_into, "monotonic", lambda: now[0])

    async def deed(screen: Screened) -> None:
        await screen.press("]", "]")
        await screen.until(lambda: asked(screen, "processes"), "the first question")
        screen.app.is_seen = False
        now[0] += 100.0
        screen.app.screen._tick()
        await screen.settle()
        assert len(asked(screen, "processes")) == 1
        screen.app.is_seen = True
        screen.app.screen._tick()
        await screen.until(lambda: len(asked(screen, "processes")) == 2, "another")
        await screen.press("2")
        now[0] += 100.0
        await screen.settle()
        assert len(asked(screen, "processes")) == 2

    looked(tmp_path, deed)


def test_how_busy_a_process_is_is_told_by_two_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(looking_into, "monotonic", lambda: now[0])
    answers = [processes(), processes(cpu_s=52.24, at=102.0)]

    async def deed(screen: Screened) -> None:
        await screen.press("]", "]")
        await screen.shows("cpu     –")
        now[0] += 2.0
        screen.app.screen._tick()
        await screen.shows("cpu  112%")

    looked(tmp_path, deed, answers=ANSWERS | {"processes": lambda _: answers.pop(0)})


def test_what_goes_wrong_is_said_where_the_answer_would_be(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("no job 183")
        assert "RUNNING" in screen.text(), "what was told stays"

    answers = ANSWERS | {"show": NothingMatched("no job 183 (your last is 14)")}
    looked(tmp_path, deed, answers=answers)


def test_of_others_jobs_it_is_said_whose_variables_they_are(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("]", "]", "]")
        await screen.shows("Which variables were set for it is bob's to see.")

    theirs = running(user="bob")
    answers = ANSWERS | {"show": whole(theirs, env_names=[])}
    looked(tmp_path, deed, jobs=[theirs], answers=answers)


def test_a_hidden_job_says_whose_it_is(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("what it runs and where is bob's to see")
        assert "cmd  (bob's)" in screen.text()

    theirs = running(user="bob", hidden=True, command=[], name="", tags=[], cwd="", log=None)
    looked(tmp_path, deed, jobs=[theirs], answers=ANSWERS | {"show": whole(theirs)})


# ─── room ────────────────────────────────────────────────────────────────────────────────────────


def test_in_a_small_window_it_takes_the_place_of_the_list_and_gives_it_back(
    tmp_path: Path,
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("eval-7")
        assert "RUNNING" not in screen.text()
        assert asked(screen, "show") == [], "what nobody sees is asked of nobody"
        await screen.press("enter")
        await screen.shows("RUNNING")
        assert "COMMAND" not in screen.text()
        await pane_is_golden(screen, "detail_over_40x12")
        await screen.press("escape")
        await screen.shows("eval-7")
        assert "RUNNING" not in screen.text()

    plain: dict[str, Any] = {"jobs": [EVAL], "gpus": [simulated(0)], "answers": ANSWERS}
    screened(tmp_path, deed, size=(40, 12), **plain)


def test_the_jobs_keep_their_rows(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("RUNNING")
        assert screen.app.screen.table.size.height >= 8
        await screen.pilot.resize_terminal(80, 16)
        await screen.settle()
        assert screen.app.screen.table.size.height >= 8
        assert "RUNNING" not in screen.text()
        await screen.pilot.resize_terminal(130, 16)
        await screen.shows("RUNNING")

    looked(tmp_path, deed)


def test_graph_rows_are_what_is_plotted(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert screen.app.screen.graph_rows() == []
        await screen.press("[")
        await screen.shows("GPU memory")
        rows = screen.app.screen.graph_rows()
        assert len(rows) == 120
        assert rows[1] | {"gpu_memory_bytes_mean": 0} == {
            "job": 183,
            "attempt": 2,
            "simulated": True,
            "at": NOW - 247,
            "from_s": 2.0,
            "until_s": 4.0,
            "gpu_memory_bytes_mean": 0,
            "gpu_memory_bytes_max": 8 * GIB,
            "gpu_utilization_percent_mean": pytest.approx(10.733, abs=0.01),
            "gpu_utilization_percent_max": 98,
            "memory_bytes_mean": None,
            "memory_bytes_max": None,
        }

    looked(tmp_path, deed)


def test_what_is_scrolled_by_parts_of_a_row_is_drawn_where_it_ends(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("enter")
        view = screen.app.screen.query_one("#detail")
        for y in (0.7, 1):  # as an animation goes from the first line to the second
            view.scroll_to(y=y, animate=False, immediate=True)
            await screen.settle()
        lines = ["".join(text for text, _ in line).rstrip() for line in view._lines]
        seen = [line[: view.room].rstrip() for line in screen.text_of("#detail").splitlines()]
        assert seen == lines[1 : 1 + view.size.height]

    looked(tmp_path, deed)
