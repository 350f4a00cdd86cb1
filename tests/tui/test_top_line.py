"""The line at the top: numbers, what holds everything up, and how old the picture is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gpuq.client import Client
from gpuq.tui.app import GpuqApp
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.top_line import Piece, age_words, fitting
from tests.cli.said import gpu, in_full, simulated
from tests.tui.screened import NOW, Screened, row, screened

BUSY = {
    "counts": {"running": 2, "queued": 14, "queued_yours": 3, "held": 1},
    "finished": {"failed": 1, "out_of_memory": 1, "succeeded": 7, "cancelled": 2},
}


def top_of(tmp_path: Path, size: int = 80, beside: Any = None, **how: Any) -> str:
    seen: list[str] = []

    async def deed(screen: Screened) -> None:
        seen.append(screen.text().splitlines()[0])

    screened(
        tmp_path,
        deed,
        size=(size, 24),
        jobs=[row(181)],
        beside=BUSY if beside is None else beside,
        answers={"show": {"job": in_full(row(181))}},
        **{"gpus": [gpu(0)]} | how,
    )
    return seen[0]


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (40, " box7  2 running  14 queued    14:13:20"),
        (60, " box7  2 running  14 queued  2 failed today        14:13:20"),
    ],
)
def test_in_a_narrow_window_the_numbers_stay_longest(tmp_path: Path, size: int, line: str) -> None:
    assert top_of(tmp_path, size) == line


def test_at_80_columns_it_has_all_numbers(tmp_path: Path) -> None:
    seen = top_of(tmp_path)
    assert seen.startswith(" gpuq  box7  2 running  14 queued  1 held  2 failed today  ")
    assert seen.endswith("  14:13:20")


def test_in_a_wide_window_it_has_the_screens_the_view_and_whether_it_is_live(
    tmp_path: Path,
) -> None:
    seen = top_of(tmp_path, 160)
    assert "  1 GPU  2 running  14 queued  1 held  2 failed today  " in seen
    assert "  [1 Jobs]  2 GPUs  3 History  " in seen
    assert seen.endswith("  live  14:13:20")


def test_which_screen_is_open_is_said_longer_than_which_others_there_are(tmp_path: Path) -> None:
    beside = {"counts": {"running": 200, "queued": 1400, "held": 100}, "finished": {"failed": 2000}}
    seen = top_of(tmp_path, 120, beside=beside, gpus=[simulated(0)])
    assert "  [1 Jobs]" in seen
    assert "History" not in seen


def test_zeroes_are_left_out(tmp_path: Path) -> None:
    seen = top_of(tmp_path, beside={"finished": {"succeeded": 3}})
    assert "running" not in seen
    assert "failed" not in seen
    assert "nothing runs or waits" in seen


def test_what_is_drained_simulated_or_only_looked_at_is_said(tmp_path: Path) -> None:
    drained = {"drained": {"actor": "dan", "reason": "new\x1b[2J fan"}}
    seen = top_of(tmp_path, 120, beside=drained, is_readonly=True, gpus=[simulated(0)])
    assert r"drained by dan: new\x1b[2J fan" in seen
    assert "simulated" in seen
    assert "read-only" in seen


def test_a_picture_without_a_daemon_has_its_age(tmp_path: Path) -> None:
    class Clock:
        at = NOW

        def __call__(self) -> float:
            return self.at

    clock = Clock()

    async def deed(screen: Screened) -> None:
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.shows("no daemon")
        clock.at += 12
        await screen.shows("no daemon for 12 s: ")
        assert screen.app.screen.has_class("-stale")
        screen.daemon.hold_back(False)
        await screen.until(lambda: "no daemon" not in screen.text(), "it to be found again")
        assert not screen.app.screen.has_class("-stale")

    screened(
        tmp_path,
        deed,
        jobs=[row(181)],
        answers={"show": {"job": in_full(row(181))}},
        signs=Signs(now=clock),
    )


def test_nothing_is_said_of_what_no_daemon_has_told_yet(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "none.sock")
        app = GpuqApp(Client(socket=path), user="alice", host="box7", signs=Signs(now=lambda: NOW))
        async with app.run_test(size=(120, 30)) as pilot:
            screen = Screened(app, pilot, None)  # type: ignore[arg-type]
            await screen.shows("no daemon")
            await screen.settle()
            text = screen.text()
            assert text.count("no daemon") == 1
            assert text.splitlines()[1] == " GPUs –"
            assert " · jobs –" in text
            assert "no GPUs" not in text
            assert "0 jobs" not in text
            await screen.press("2")
            await screen.shows(" GPUs –")
            assert "no GPUs" not in screen.text()

    asyncio.run(main())


def test_a_picture_of_a_while_ago_is_grey_and_its_times_stand(tmp_path: Path) -> None:
    class Clock:
        at = NOW

        def __call__(self) -> float:
            return self.at

    clock = Clock()

    def is_grey(screen: Screened, words: str) -> bool:
        strips = screen.app.screen._compositor.render_strips()
        parts = [part for strip in strips for part in strip if words in part.text]
        assert parts, f"{words!r} is not seen in\n{screen.text()}"
        return all(part.style is not None and part.style.dim for part in parts)

    async def deed(screen: Screened) -> None:
        await screen.shows("cmd  ")
        assert not is_grey(screen, "2 running")
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.shows("no daemon")
        clock.at += 300.0
        for words in ("2 running", "started", "priority", "[detail]", "2 jobs"):
            await screen.until(lambda: is_grey(screen, words), f"{words} to be grey")  # noqa: B023
        before = screen.text().splitlines()[1:]
        await screen.press("j", "k")
        await screen.settle()
        assert screen.text().splitlines()[1:] == before
        assert "6:00" not in screen.text()
        await screen.press("l")
        await screen.press("2")
        assert screen.app.screen.has_class("-stale"), "another screen is of then, too"
        assert is_grey(screen, "GPU 0")
        screen.daemon.hold_back(False)
        await screen.until(lambda: screen.app.lost is None, "it to be found again")
        await screen.press("1")
        assert not screen.app.screen.has_class("-stale")
        await screen.shows("6:00")

    one = row(181, state="running", started_at=NOW - 60.0, gpus=[0])
    screened(
        tmp_path,
        deed,
        size=(200, 30),
        jobs=[one, row(182)],
        gpus=[simulated(0)],
        beside=BUSY,
        answers={"show": {"job": in_full(one)}},
        signs=Signs(now=clock),
    )


def test_ages_are_said_in_whole_units() -> None:
    assert [age_words(s) for s in (-3, 0, 12.9, 119, 120, 7199, 7200)] == [
        "0 s",
        "0 s",
        "12 s",
        "119 s",
        "2 min",
        "119 min",
        "2 h",
    ]


def test_what_weighs_least_goes_first_and_a_sentence_is_cut_before_the_clock() -> None:
    pieces = [Piece("gpuq", 2), Piece("x" * 60, 10, least=12), Piece("14:02:11", 9)]
    assert [piece.text for piece in fitting(pieces, 80)] == ["gpuq", "x" * 60, "14:02:11"]
    assert [piece.text for piece in fitting(pieces, 70)] == ["x" * 60, "14:02:11"]
    assert [piece.text for piece in fitting(pieces, 40)] == ["x" * 29 + "…", "14:02:11"]
    assert fitting(pieces, 1) == []
