"""The screen of the GPUs: graphs, all about one of them, and taking one out of use."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from textual.widgets import Input

from gpuq.cli.gpu_text import GPU_COLUMNS, gpu_row
from gpuq.errors import NotPermitted
from gpuq.tui.data.gpus.detail import gpu_detail
from gpuq.tui.data.gpus.graphs import WHAT, pace_s, scale_label, top_of_scale
from gpuq.tui.deeds.gpus import LONGEST_REASON, checked_reason, consequence
from gpuq.tui.export import files
from gpuq.tui.screens.gpus import GpusScreen
from gpuq.tui.widgets.gpu_plots import LABEL_CELLS, GpuPlots
from tests.cli.said import GIB, Said, gpu, process, simulated
from tests.tui.golden import hold
from tests.tui.screened import NOW, Screened, row, screened

ADMIN = {"user": "alice", "uid": 1000, "is_admin": True, "may_act": True}
JOBS = [
    row(181, name="vit-b", state="running", started_at=NOW - 600.0, gpus=[0]),
    row(183, name="eval-7", user="bob", state="running", started_at=NOW - 30.0, gpus=[2]),
]
OURS = process(4711, user="alice", ours=True, job=181, memory_bytes=60 * GIB)
GPUS = [
    gpu(
        0,
        state="leased",
        jobs=[181],
        exclusive=True,
        memory_used_bytes=71 * GIB,
        processes=[OURS, process()],
        utilization_percent=97,
        temperature_c=71,
        power_w=388.0,
    ),
    gpu(1, state="drained", reason="drained by dan: riser swap"),
    simulated(2, state="leased", jobs=[183], memory_used_bytes=GIB),
]
GPUS[1]["drained"] = {"actor": "dan", "reason": "riser swap", "at": NOW - 3600.0}


def history(steps: int = 100, step_s: float = 3.0) -> Said:
    """Of GPU 0 a slope, of GPU 2 a gap, of GPU 1 nothing."""
    slope = [n * 100.0 / (steps - 1) for n in range(steps)]
    gapped = [None if 40 <= n < 60 else 50.0 for n in range(steps)]

    def read(values: list[float | None]) -> Said:
        return {
            "utilization_percent": values,
            "memory_used_bytes": [None if v is None else round(v * GIB / 5) for v in values],
            "power_w": [None if v is None else v * 4 for v in values],
            "temperature_c": [None] * steps,
        }

    gpus = {"GPU-0": read(list(slope)), "GPU-1": read([None] * steps), "GPU-2": read(gapped)}
    return {"begin_at": NOW - steps * step_s, "step_s": step_s, "gpus": gpus}


def body_of(screen: Screened) -> str:
    """Without the lines that all screens have."""
    return "\n".join(screen.text().splitlines()[1:-2]) + "\n"


def on_gpus(tmp_path: Path, deed: Any, **how: Any) -> None:
    """Before the screen of the GPUs, with its graphs drawn."""

    async def opened(screen: Screened) -> None:
        await screen.press("2")
        await screen.shows(" a step")
        await deed(screen)

    answers = {"gpu_history": history()} | how.pop("answers", {})
    beside = {"you": ADMIN}
    usual = {"jobs": JOBS, "gpus": GPUS, "answers": answers, "beside": beside}
    screened(tmp_path, opened, **(usual | how))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 30)])
def test_it_looks_as_it_is_written_down(tmp_path: Path, size: tuple[int, int]) -> None:
    async def deed(screen: Screened) -> None:
        hold(body_of(screen), f"gpus_screen_{size[0]}.txt")
        if size == (120, 30):
            await screen.is_svg_golden("gpus")

    on_gpus(tmp_path, deed, size=size)


def test_what_is_plotted_can_be_switched(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        asked = len(screen.daemon.requests("gpu_history"))
        for title, top in (("memory", "80G"), ("power", "400W"), ("temperature", "100C")):
            await screen.press("w")
            assert f" {title}, last 5 min" in screen.text()
            assert f" {top}" in screen.text()
        await screen.press("w")
        await screen.shows(" utilisation, last 5 min")
        assert len(screen.daemon.requests("gpu_history")) == asked, "all of it is there already"

    on_gpus(tmp_path, deed)


def test_how_far_back_it_goes_can_be_switched(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        def windows() -> list[float]:
            return [one["window_s"] for one in screen.daemon.requests("gpu_history")]

        for key, window_s in (
            ("greater_than_sign", 3600.0),
            ("plus", 21600.0),
            ("plus", 86400.0),
            ("less_than_sign", 21600.0),
        ):
            await screen.press(key)
            await screen.until(lambda: windows()[-1] == window_s, f"{window_s} to be asked for")  # noqa: B023
        await screen.press("plus", "plus", "plus")
        assert "last 24 h" in screen.text()
        asked = [one["buckets"] for one in screen.daemon.requests("gpu_history")[1:]]
        assert set(asked) == {2 * (80 - LABEL_CELLS)}, "as many as there are dots"

    on_gpus(tmp_path, deed)


def test_the_cursor_stays_on_its_gpu(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        plots = screen.app.screen.query_one(GpuPlots)
        await screen.press("j", "j")
        assert plots.current is not None
        assert plots.current["uuid"] == "GPU-2"
        await screen.shows("183 eval-7 (bob), for 0:30")
        screen.daemon.push(gpu_order=["GPU-0", "GPU-2"])
        await screen.until(lambda: len(screen.app.picture.gpus) == 2, "one to go")
        await screen.settle()
        assert plots.current["uuid"] == "GPU-2"
        await screen.press("k", "G", "g")
        assert plots.current["uuid"] == "GPU-0"

    on_gpus(tmp_path, deed)


def test_graphs_are_rows_for_who_wants_the_numbers(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        shown = screen.app.screen
        assert isinstance(shown, GpusScreen)
        rows = shown.graph_rows()
        assert len(rows) == 100 + 80, "a row for each step in which anything was read"
        assert rows[0] == {
            "at": NOW - 300.0,
            "gpu": 0,
            "uuid": "GPU-0",
            "simulated": False,
            "utilization_percent": 0.0,
            "memory_used_bytes": 0,
            "power_w": 0.0,
            "temperature_c": None,
        }
        assert {one["simulated"] for one in rows if one["gpu"] == 2} == {True}

    on_gpus(tmp_path, deed)


def test_who_does_not_look_is_asked_for_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        shown = screen.app.screen
        assert isinstance(shown, GpusScreen)
        assert shown._timer is not None
        await screen.press("1")
        assert shown._timer is None
        await screen.press("2")
        assert shown._timer is not None

    on_gpus(tmp_path, deed)


# ─── taking one out of use ───────────────────────────────────────────────────────────────────────


def drained(**changes: Any) -> Said:
    usual = {"index": 0, "uuid": "GPU-0", "simulated": False, "done": "drained", "jobs": [181]}
    return {"gpus": [usual | changes]}


def test_a_gpu_is_drained_for_a_reason_and_the_consequence_is_said(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D")
        await screen.shows("1 job on it (181) goes on. It is given to nobody else")
        await screen.press(*"new", "space", *"fan")
        await screen.shows("gpuq gpus drain 0 -m 'new fan'")
        assert not screen.daemon.requests("drain_gpus")
        await screen.press("enter")
        await screen.shows("GPU 0 is drained: new fan; 1 job on it (181) goes on")
        (asked,) = screen.daemon.requests("drain_gpus")
        assert (asked["refs"], asked["reason"]) == (["GPU-0"], "new fan")

    answers = {"drain_gpus": drained(reason="new fan")}
    on_gpus(tmp_path, deed, size=(120, 30), answers=answers)


def test_who_leaves_the_question_drains_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D", "x", "escape")
        assert isinstance(screen.app.screen, GpusScreen)
        assert not screen.daemon.requests("drain_gpus")

    on_gpus(tmp_path, deed)


def test_the_gpu_that_was_asked_about_is_drained_whatever_moves(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D")
        screen.daemon.push(gpu_order=["GPU-2"])
        await screen.settle()
        await screen.press("enter")
        await screen.until(lambda: screen.daemon.requests("drain_gpus"), "it to be asked")
        (asked,) = screen.daemon.requests("drain_gpus")
        assert (asked["refs"], asked["reason"]) == (["GPU-0"], None)

    answers = {"drain_gpus": drained(reason="no reason was given")}
    on_gpus(tmp_path, deed, answers=answers)


def test_one_that_is_drained_is_given_out_again(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("j", "D")
        await screen.shows("gpuq gpus resume 1: GPU 1 is given out again")
        (asked,) = screen.daemon.requests("resume_gpus")
        assert asked["refs"] == ["GPU-1"]

    resumed = drained(index=1, uuid="GPU-1", done="resumed", reason=None, jobs=[])
    on_gpus(tmp_path, deed, size=(120, 30), answers={"resume_gpus": resumed})


def test_who_may_not_is_told_so_by_the_daemon(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("j", "D")
        await screen.shows("only an admin may resume a GPU")

    answers = {"resume_gpus": NotPermitted("only an admin may resume a GPU")}
    on_gpus(tmp_path, deed, size=(120, 30), answers=answers)


def test_who_is_no_admin_is_told_so_before_anything_is_written(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        shown = screen.app.screen
        bound = shown.active_bindings.values()
        assert [one.enabled for one in bound if one.binding.action == "drain"] == [False]
        assert "gives it out again" not in screen.text()
        for key in ("D", "j", "D"):
            await screen.press(key)
        await screen.shows("only an admin may drain or resume a GPU")
        assert screen.app.screen is shown
        assert not screen.daemon.requests("drain_gpus") + screen.daemon.requests("resume_gpus")

    on_gpus(tmp_path, deed, size=(120, 30), beside={})


def test_who_only_looks_drains_nothing(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("D", "enter")
        await screen.press("j", "D")
        assert not screen.daemon.requests("drain_gpus") + screen.daemon.requests("resume_gpus")
        assert "--readonly" in screen.text()

    on_gpus(tmp_path, deed, size=(120, 30), is_readonly=True)


# ─── what is taken along ─────────────────────────────────────────────────────────────────────────


def test_what_identifies_a_gpu_is_copied(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("y")
        await screen.shows("Copy of GPU 0")
        for words in ("its index 0", "its uuid GPU-0", "its model NVIDIA H100", "gpuq why gpu:0"):
            await screen.shows(words)
        await screen.shows("gpuq gpus drain 0")
        await screen.press("u")
        await screen.shows("copied (uuid, 5 signs)")
        assert screen.app.clipboard == "GPU-0"
        await screen.press("j", "y", "d")
        assert screen.app.clipboard == "gpuq gpus resume 1", "it is drained"
        await screen.press("j", "y")
        await screen.shows("Copy of GPU 2 (simulated)")
        await screen.press("escape")
        assert screen.app.clipboard == "gpuq gpus resume 1"

    on_gpus(tmp_path, deed, size=(100, 30))


def test_where_there_is_no_gpu_none_is_copied(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("2", "y")
        await screen.shows("there is no GPU to copy anything of")

    screened(tmp_path, deed)


def test_the_gpus_are_saved_with_the_columns_of_a_pipe(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="gpuq", dir="/tmp") as folder:  # which finds room in a dialog
        path = Path(folder) / "gpus.csv"

        async def deed(screen: Screened) -> None:
            await screen.press("ctrl+s")
            await screen.shows("table as CSV 3 rows")
            await screen.press("t")
            await screen.until(lambda: screen.app.screen.query(Input), "a name to be asked for")
            screen.app.screen.query_one(Input).value = str(path)
            await screen.press("enter")
            await screen.until(path.exists, "the file to be written")

        on_gpus(tmp_path, deed, size=(100, 30))
        rows = list(csv.DictReader(path.read_text().splitlines()))
    assert tuple(rows[0]) == GPU_COLUMNS
    assert [one["uuid"] for one in rows] == ["GPU-0", "GPU-1", "GPU-2"]
    assert [one["kind"] for one in rows] == ["real", "real", "simulated"]
    assert rows[1]["reason"] == "drained by dan: riser swap"
    told = gpu_row(GPUS[0]).split("\t")
    assert (rows[0]["index"], rows[0]["jobs"]) == (told[0], told[10]) == ("0", "181")


def test_a_table_of_no_gpu_is_a_head() -> None:
    assert files.gpu_table([]).text == ",".join(GPU_COLUMNS) + "\n"


def test_what_draining_would_do_is_said_for_any_number_of_jobs() -> None:
    assert consequence(gpu(0)).startswith("Nothing runs on it.")
    assert consequence(gpu(0, jobs=[7, 8, 9])).startswith("3 jobs on it (7-9) go on.")


def test_a_reason_that_is_too_long_is_refused_before_it_is_asked() -> None:
    assert checked_reason(gpu(3), "") == ["gpuq gpus drain 3"]
    with pytest.raises(ValueError, match="up to 200 signs, this has 201"):
        checked_reason(gpu(3), "x" * (LONGEST_REASON + 1))


# ─── graphs and details ──────────────────────────────────────────────────────────────────────────


def test_a_scale_ends_at_what_the_gpu_has() -> None:
    utilisation, memory, power, temperature = WHAT
    assert top_of_scale(gpu(0), utilisation, [3.0]) == 100.0
    assert scale_label(memory, top_of_scale(gpu(0), memory, [3.0])) == "80G"
    assert scale_label(power, top_of_scale(gpu(0), power, [420.0])) == "420W", "more than its limit"
    bare = gpu(0, power_limit_w=None, memory_total_bytes=None)
    assert top_of_scale(bare, power, [30.0, None]) == 30.0
    assert top_of_scale(bare, memory, []) == 1.0
    assert scale_label(temperature, top_of_scale(bare, temperature, [60.0])) == "100C"


def test_a_graph_is_looked_at_again_when_it_can_show_something_new() -> None:
    assert pace_s(300.0, 600) == 2.0
    assert pace_s(86400.0, 144) == 600.0


def told(one: Said, *jobs: Any) -> str:
    lines = gpu_detail(one, jobs, now=NOW, width=100, unicode=True, key="D")
    return "\n".join("".join(text for text, _ in line) for line in lines)


def test_all_that_is_known_of_a_gpu_is_told() -> None:
    test = {"verdict": "good", "tflops": 51.3, "seconds": 4.2, "by": "torch 2.13.0"}
    one = gpu(
        3,
        state="quarantined",
        reason="set aside: XID 79",
        quarantine="XID 79 (fallen off the bus)",
        quarantined_at=NOW - 60.0,
        tested_at=NOW - 30.0,
        test=test,
        under_test="a matrix is multiplied",
        warnings=["12 pages are to be retired"],
        locked_by="the daemon of user 1001",
        processes=[process()],
        reservations=[{"user": "erin", "begin_at": NOW + 3600, "end_at": NOW + 7200}],
    )
    text = told(one)
    for words in (
        "GPU 3  NVIDIA H100 80GB HBM3  set aside: XID 79",
        "set aside 14:12:20: XID 79 (fallen off the bus) · D has it tested",
        "tested    14:12:50: good: 51.3 TFLOP/s",
        "testing   a matrix is multiplied",
        "warning   12 pages are to be retired",
        "locked    by the daemon of user 1001",
        "reserved for erin 15:13-16:13",
        "40121",
        "outside gpuq",
    ):
        assert words in text


def test_absent_readings_are_not_told_as_nothing() -> None:
    names = ("memory_used_bytes", "utilization_percent", "temperature_c", "power_w")
    text = told(gpu(6, state="lost", reason="it is gone", **dict.fromkeys(names)))
    assert "lost: it is gone" in text
    assert "–/80G\n" in text
    assert "0%" not in text


def test_jobs_share_what_they_asked_for() -> None:
    sharing = row(183, user="bob", started_at=NOW - 30.0, gpu_mem_bytes=8 * GIB, exclusive=False)
    text = told(gpu(0, state="leased", jobs=[183, 200]), sharing, None)
    assert "183 job-183 (bob), for 0:30, with 8G of its memory" in text
    assert "200" in text
