"""The list of jobs on the screen: how it looks, and what its keys do."""

from pathlib import Path
from typing import Any

import pytest

from gpuq.tui.looks import Signs
from gpuq.tui.widgets.filter_line import FilterInput
from gpuq.tui.widgets.job_table import JobTable
from tests.cli.said import Said
from tests.tui.screened import NOW, Screened, row, screened

RUNS: Said = {"state": "running", "reason": None, "attempt": 1}


def runs(number: int, *, since: float = 60.0, **changes: Any) -> Said:
    return row(number, **(RUNS | {"started_at": NOW - since, "gpus": [0]} | changes))


def over(number: int, outcome: str = "failed", **changes: Any) -> Said:
    ended = {"state": "ended", "outcome": outcome, "reason": "exit code 1", "exit_code": 1}
    times = {"started_at": NOW - 500.0, "ended_at": NOW - 440.0}
    return row(number, **(ended | times | changes))


def run(first: int, last: int, indices: str | None = None, **changes: Any) -> Said:
    return row(first, last=last, array_index=0, **changes) | {"indices": indices}


def element(number: int, index: int, made: Said) -> Said:
    return made | {"group": f"g{number - index}", "array_index": index, "name": "grid"}


EVERY_STATE = [
    runs(181, since=7980.0, name="vit-b", gpus=[0, 1], time_limit_s=86400.0, progress=0.61),
    runs(182, since=260.0, name="llm-ft", user="erin", gpus=[7], priority=-5, progress=0.07),
    row(183, state="starting", reason=None, gpus=[2], name="eval-7", user="bob"),
    row(184, name="sweep-3", priority=10, gpu_count=2, expected_start=NOW + 400.0),
    row(185, name="tomorrow", expected_start=NOW + 80000.0, reason="behind 184"),
    row(186, name="later", substate="delayed", delayed_until=NOW + 3 * 86400.0, reason="not yet"),
    row(187, name="again", substate="backoff", delayed_until=NOW + 95.0, reason="2 of 5"),
    row(188, name="big", user="dan", substate="held", reason="held by dan", gpu_count=4),
    runs(189, name="still", substate="paused", reason="paused by bob"),
    runs(190, name="going", substate="stopping", reason="asked to stop, KILL in 8 s"),
    runs(191, name="stuck", substate="unkillable", reason="survives KILL", idle=True),
    runs(192, name="slacker", idle=True, gpus=[3], contended_now=True),
    row(193, name="cpu", gpu_count=0, hidden=True, user="carol", reason=None, command=[]),
    over(170, name="bad"),
    over(171, "timed_out", name="slow", signal=15, exit_code=None, reason="time limit"),
    over(172, "out_of_memory", name="fat", signal=9, exit_code=None, reason="out of memory"),
    over(173, "lost", name="gone", exit_code=None, reason="the machine was switched off"),
    over(174, "succeeded", name="fine", exit_code=0, reason="exit code 0"),
    over(175, "cancelled", name="off", exit_code=None, started_at=None, reason="cancelled by bob"),
    over(176, "skipped", name="no", exit_code=None, started_at=None, reason="170 failed"),
]
HOSTILE = [
    runs(1, name="日本語の名前はとても長い", user="名無し"),
    row(2, name="a\u0301e\u0301 \u0e01\u0e33 ❤\ufe0f👍🏽", reason="👩\u200d🔬 wartet"),
    row(3, name="\x1b[31mred\x07\n\t\x9b", user="m\u202eal", reason="\x1b]0;title\x07"),
    row(4, name="שלום עולם", reason="مرحبا بالعالم"),
    row(5, name="\udcff\udcfe", reason="[bold]no markup[/] \\[x]"),
    row(6, name="", user="", reason=None, command=["python", "a b", "$'x'"]),
    row(7, name="n" * 200, reason="r" * 300, priority=123456),
    over(8, name="ᄀ\u1161\u11a8 한글", signal=64, exit_code=None),
]
FOLDED = [
    element(200, 0, over(200, "succeeded", exit_code=0)),
    element(201, 1, over(201)),
    element(202, 2, runs(202, gpus=[1])),
    element(203, 3, runs(203, gpus=[2])),
    run(204, 1000203, "4-1000003", name="grid", group="g200"),
    run(1000300, 1000309, "0-9", name="alike", group="g1000300"),
    row(1000400, name="one/train", group="g1000400"),
    row(1000401, name="one/eval", group="g1000400"),
]
SIZES = [(40, 12), (80, 24), (120, 30), (160, 48)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["states", "hostile", "folded"])
def test_it_looks_so(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    async def deed(screen: Screened) -> None:
        if name == "states":
            await screen.press("c")
        if name == "folded":
            await screen.press("right")
        assert all(line.isprintable() for line in screen.text().splitlines())
        await screen.is_golden(f"list-{name}-{size[0]}x{size[1]}", of="#list")
        if name == "states" and size == (120, 30):
            await screen.is_svg_golden("list")

    jobs = {"states": EVERY_STATE, "hostile": HOSTILE, "folded": FOLDED}[name]
    screened(tmp_path, deed, size=size, jobs=jobs)


# ── keys ──


def lines_of(screen: Screened) -> list[str]:
    """The ids in the list, those that are seen, each behind the signs for cursor and mark."""
    seen = screen.text_of("#jobs").splitlines()
    return [line[:2].strip() + line[2:].split()[0] for line in seen if line.strip()]


def table_of(screen: Screened) -> JobTable:
    return screen.app.screen.query_one(JobTable)


async def typed(screen: Screened, text: str) -> None:
    """All of it at once, as one pastes it."""
    screen.app.screen.query_one(FilterInput).value = text
    await screen.settle()


def status_of(screen: Screened) -> str:
    return screen.text_of("#message")


@pytest.mark.parametrize("at", [0, 2, 5])
def test_the_cursor_goes_to_the_neighbour_of_a_job_that_leaves(tmp_path: Path, at: int) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press(*["down"] * at)
        screen.daemon.push(jobs=[over(at + 1, "cancelled")])
        await screen.until(lambda: len(lines_of(screen)) == 5, "it to leave")
        entry = table_of(screen).entry
        assert entry is not None
        assert entry.job == (at + 2 if at < 5 else 5)

    screened(tmp_path, deed, jobs=[row(number) for number in range(1, 7)])


def test_the_cursor_finds_a_neighbour_when_hundreds_leave(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        table_of(screen).move_to(1000)
        screen.daemon.push(jobs=[over(number, "cancelled") for number in range(801, 1801)])
        await screen.until(lambda: table_of(screen).lines == 1000, "them to leave")
        entry = table_of(screen).entry
        assert entry is not None
        assert entry.job == 1801

    screened(tmp_path, deed, jobs=[row(number) for number in range(1, 2001)])


def test_the_cursor_follows_its_job_however_the_rows_move(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "down")
        assert lines_of(screen) == ["1", "2", ">3", "4"]
        screen.daemon.push(jobs=[row(2, state="ended", outcome="failed"), row(9)])
        await screen.until(lambda: lines_of(screen) == ["1", ">3", "4", "9", "2"], "the move")
        await screen.press("o", "o")  # by priority, and the highest first
        screen.daemon.push(jobs=[row(3, priority=5)])
        await screen.until(lambda: lines_of(screen) == [">3", "1", "4", "9", "2"], "the order")
        screen.daemon.push(jobs=[], looked_at=[[3, 3]])
        await screen.until(lambda: lines_of(screen) == [">1", "4", "9", "2"], "the neighbour")

    screened(tmp_path, deed, jobs=[row(n) for n in (1, 2, 3, 4)])


def test_the_cursor_is_on_the_group_when_its_job_is_folded(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "right", "down", "down")
        assert lines_of(screen) == ["1", "2…4", "2", ">3", "4", "5"]
        assert "grid[1]" in screen.text()
        screen.daemon.push(jobs=[element(2, 0, runs(2))])
        await screen.until(lambda: "▶R" in screen.text(), "it to run")
        assert lines_of(screen)[3] == ">3"
        await screen.press("left")
        assert lines_of(screen) == ["1", ">2…4", "5"]
        screen.daemon.push(jobs=[], looked_at=[[2, 3]])
        await screen.until(lambda: lines_of(screen) == ["1", ">4", "5"], "the last of them")

    grid = [element(n, n - 2, row(n)) for n in (2, 3, 4)]
    screened(tmp_path, deed, jobs=[row(1), *grid, row(5)])


def test_the_cursor_stays_with_the_first_of_a_run_that_splits(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert table_of(screen).current["jobs"] == "5-9"
        screen.daemon.push(jobs=[runs(5) | {"group": "g5"}, run(6, 9, "1-4", group="g5")])
        await screen.until(lambda: "▶R" in screen.text(), "it to start")
        assert lines_of(screen) == [">5…9"]
        await screen.press("right", "down", "down")
        assert lines_of(screen) == ["5…9", "5", ">6…9"]
        screen.daemon.push(jobs=[runs(6) | {"group": "g5"}, run(7, 9, "2-4", group="g5")])
        await screen.until(lambda: lines_of(screen) == ["5…9", "5", ">6", "7…9"], "the next")

    screened(tmp_path, deed, jobs=[run(5, 9, "0-4", group="g5")])


def test_marks_stay_on_their_jobs_and_vanish_with_them(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert table_of(screen).chosen().words == "1"
        await screen.press("space", "down", "space")
        assert lines_of(screen) == ["*1", "2", "*3…6", ">7"]
        assert "5 marked: 1 3-6" in status_of(screen)
        chosen = table_of(screen).chosen()
        assert (chosen.words, len(chosen), chosen.is_marked) == ("1,3-6", 5, True)
        screen.daemon.push(jobs=[row(3, priority=9, group="g3")], looked_at=[[1, 1]])
        await screen.until(lambda: "4 marked: 3-6" in status_of(screen), "the mark to vanish")
        assert table_of(screen).chosen().rows[0]["priority"] == 9
        assert len(chosen.rows) == 2
        assert chosen.rows[0]["id"] == 1
        await screen.press("escape")
        assert "marked" not in status_of(screen)
        assert table_of(screen).chosen().words == "7"

    screened(tmp_path, deed, jobs=[row(1), row(2), run(3, 6, group="g3"), row(7)])


def test_space_takes_a_mark_away_and_a_group_shows_that_some_are_marked(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("right", "down", "space")
        assert lines_of(screen) == ["+2…4", "*2", ">3", "4"]
        await screen.press("g", "space")
        assert table_of(screen).chosen().words == "2-4"
        await screen.press("g", "space")
        assert not table_of(screen).chosen().is_marked

    screened(tmp_path, deed, jobs=[element(n, n - 2, row(n)) for n in (2, 3, 4)])


def test_a_range_is_marked_from_the_first_v_to_the_cursor(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "down", "v")
        assert "range from 3: v marks up to the cursor" in status_of(screen)
        screen.daemon.push(jobs=[row(2, state="ended", outcome="failed")])
        await screen.until(lambda: lines_of(screen)[1] == ">3", "another order")
        await screen.press("down", "down", "v")
        assert table_of(screen).chosen().words == "3-5"
        await screen.press("escape", "v", "escape", "up", "v")
        assert not table_of(screen).chosen().is_marked

    screened(tmp_path, deed, jobs=[row(n) for n in range(1, 7)])


def test_all_that_are_shown_are_marked_and_none_else(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("slash")
        await typed(screen, "user:bob")
        await screen.press("enter", "asterisk")
        assert table_of(screen).chosen().words == "2,4"
        await screen.press("slash", "escape", "m")
        assert lines_of(screen) == ["1", ">3"]
        assert "2 marked: 2 4 (2 not shown)" in status_of(screen)

    jobs = [row(n, user="alice" if n % 2 else "bob") for n in range(1, 5)]
    screened(tmp_path, deed, jobs=jobs)


def test_the_list_is_filtered_while_one_types(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("down", "down", "slash", *"ev")
        assert lines_of(screen) == [">2"]
        await typed(screen, "vi")
        assert lines_of(screen) == ["1", ">3"]
        await typed(screen, "vi state:zz")
        assert "'zz' is no state" in screen.text()
        assert lines_of(screen) == ["1", ">3"]
        await screen.press("enter")
        assert "'zz' is no state" in screen.text()
        await typed(screen, "vi")
        await screen.press("enter")
        assert "filter: vi ·" in status_of(screen)
        assert table_of(screen).has_focus

    names = {1: "vit", 2: "eval", 3: "vivit"}
    screened(tmp_path, deed, size=(120, 24), jobs=[row(n, name=name) for n, name in names.items()])


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
def test_what_is_wrong_with_a_filter_can_be_read_whole_in_a_small_window(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("slash")
        await typed(screen, "statex:zz")
        await screen.shows(
            "'statex' is no field: did you mean state?; to look for the text, quote it"
        )
        await screen.shows("f1 Help")
        await typed(screen, "vi")
        assert "is no field" not in screen.text()
        assert screen.app.screen.query_one("#filter").size.height == 1
        await typed(screen, "statex:")
        await screen.press("escape")
        assert "is no field" not in screen.text()

    screened(tmp_path, deed, size=size, jobs=[row(1)])


def test_earlier_filters_are_recalled(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("slash", "a", "enter", "slash", "backspace", "b", "enter", "slash")
        await screen.press("up", "up")
        assert "filter: a" in " ".join(screen.app.screen.status_words())
        await screen.press("down", "enter")
        assert "filter: b" in status_of(screen)
        await screen.press("slash", "escape")
        assert "filter: none" in status_of(screen)

    screened(tmp_path, deed, jobs=[row(1)])


def test_escape_forgets_the_marks_first_and_then_the_filter(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("slash", "j", "enter", "space", "tab", "escape")
        assert table_of(screen).has_focus
        assert "1 marked" in status_of(screen)
        await screen.press("escape")
        assert "marked" not in status_of(screen)
        assert "filter: j" in status_of(screen)
        await screen.press("escape")
        assert "filter: none" in status_of(screen)

    screened(tmp_path, deed, jobs=[row(1), row(2)])


def test_finished_states_mine_and_order_are_said_below(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert "sort: id ▲ · 3 jobs (4 done today hidden: c)" in status_of(screen)
        await screen.press("c")
        assert lines_of(screen) == [">3", "4", "2", "1"]
        await screen.press("m", "s", "o")
        assert "mine · state: active · filter: none · sort: start ▲ · 1 job" in status_of(screen)
        await screen.press("O")
        assert "sort: start ▼" in status_of(screen)
        assert "mine" in screen.text_of("#top")

    jobs = [over(1, "succeeded"), over(2), row(3), row(4, user="bob")]
    beside = {"finished": {"succeeded": 4, "failed": 1}}
    screened(tmp_path, deed, size=(100, 24), jobs=jobs, beside=beside)


def test_a_frozen_list_stands_still_and_says_what_it_missed(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("z")
        screen.daemon.push(jobs=[row(1, name="renamed"), row(2)])
        screen.daemon.push(jobs=[row(3)])
        await screen.until(lambda: "frozen at 14:13:20, 3 changes since" in status_of(screen), "it")
        assert lines_of(screen) == [">1", "2"]
        assert "renamed" not in screen.text_of("#jobs")
        assert screen.app.picture.rows.at(3) is not None
        await screen.press("z")
        assert lines_of(screen) == [">1", "2", "3"]
        assert "renamed" in screen.text_of("#jobs")
        assert "frozen" not in screen.text()

    screened(tmp_path, deed, jobs=[row(1), row(2)])


# ── time ──


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


def test_a_second_draws_no_more_than_the_times_that_go_on(tmp_path: Path) -> None:
    clock = Clock()

    async def deed(screen: Screened) -> None:
        table, drawn = table_of(screen), []
        table.refresh = lambda *regions, **_: drawn.extend(regions)  # type: ignore[method-assign]
        table._tick()
        assert drawn == []
        clock.at += 1.0
        table._tick()
        assert [(one.y, one.height) for one in drawn] == [(1, 1), (2, 1)]
        assert all(one.width <= 17 for one in drawn)  # time and what is left, no more

    jobs = [row(1), runs(2), runs(3, time_limit_s=3600.0), runs(4, since=8000.0), over(5)]
    screened(tmp_path, deed, jobs=jobs, signs=Signs(now=clock))


@pytest.mark.parametrize("why", ["nothing runs", "another screen", "no focus", "frozen"])
def test_the_clock_stands_where_nobody_sees_it(tmp_path: Path, why: str) -> None:
    async def deed(screen: Screened) -> None:
        table = table_of(screen)
        if why == "another screen":
            await screen.press("2")
        elif why == "no focus":
            screen.app.app_focus = False
        elif why == "frozen":
            await screen.press("z")
        table._tick()
        assert not table.is_ticking
        if why == "another screen":
            await screen.press("1")
            assert table.is_ticking

    screened(tmp_path, deed, jobs=[row(1) if why == "nothing runs" else runs(1)])


def test_the_head_stands_above_its_columns_when_the_list_outgrows_its_room(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("c")
        head, first, *_ = screen.text_of("#list").splitlines()
        assert head.index("USER") == first.index("alice")

    ended = [over(number) for number in range(10, 40)]
    screened(tmp_path, deed, jobs=[runs(1, name="vit-b"), *ended])
