"""Threads that ask: a look that hangs keeps no deed waiting, and asking is bounded."""

import threading
from pathlib import Path
from typing import Any

from gpuq.tui.data.detail.known import Kept
from gpuq.tui.looks import Signs
from tests.cli.said import Said
from tests.tui.screened import NOW, Screened, row, screened


class Hanging:
    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def __call__(self, asked: Said) -> Said:
        self.goes_on.wait(60)
        return {"at": asked["at"]}


def ask(screen: Screened, number: int, taken: list[Any], group: str) -> None:
    screen.app.ask(lambda client: client.call("hang", at=number), taken.append, group=group)


def test_looks_that_hang_keep_no_deed_waiting(tmp_path: Path) -> None:
    hanging = Hanging()
    held = {"jobs": [{"id": 1, "last_id": 1, "done": "held"}]}

    async def deed(screen: Screened) -> None:
        try:
            for number in range(20):
                ask(screen, number, [], f"look {number}")
            await screen.press("h")
            await screen.until(lambda: screen.daemon.requests("hold"), "the hold to be asked for")
            await screen.shows("held")
        finally:
            hanging.goes_on.set()

    screened(tmp_path, deed, jobs=[row(1)], answers={"hang": hanging, "hold": held})


def test_of_looks_of_one_group_only_the_last_follows_the_one_under_way(tmp_path: Path) -> None:
    hanging = Hanging()

    async def deed(screen: Screened) -> None:
        taken: list[Any] = []
        try:
            ask(screen, 0, taken, "one")
            await screen.until(lambda: screen.daemon.requests("hang"), "the first to be asked")
            for number in range(1, 9):
                ask(screen, number, taken, "one")
        finally:
            hanging.goes_on.set()
        await screen.until(lambda: taken, "an answer")
        assert taken == [{"at": 8}]
        assert [asked["at"] for asked in screen.daemon.requests("hang")] == [0, 8]

    screened(tmp_path, deed, jobs=[row(1)], answers={"hang": hanging})


def test_what_was_passed_by_is_asked_for_when_one_comes_back_to_it() -> None:
    kept, one, two = Kept(), ("show", "1"), ("show", "2")
    kept.ask(one, row(1), 0.0)
    kept.ask(two, row(2), 0.0)
    kept.take(two, {"id": 2})
    kept.ask(two, row(2), 1.0)
    kept.give_up("show")
    assert kept.get(one) is None
    entry = kept.get(two)
    assert entry is not None
    assert (entry.answer, entry.row, entry.is_under_way) == ({"id": 2}, {}, False)


def test_when_another_day_begins_all_is_told_anew_as_of_that_day(tmp_path: Path) -> None:
    clock = [NOW]

    async def deed(screen: Screened) -> None:
        (first,) = screen.daemon.requests("subscribe")
        assert first["finished_since"] == NOW - NOW % 86400
        clock[0] += 86400
        screen.daemon.picture["finished"] = {}
        screen.daemon.push()  # a sign of life
        await screen.until(lambda: len(screen.daemon.requests("subscribe")) == 2, "a new picture")
        second = screen.daemon.requests("subscribe")[1]
        assert second["finished_since"] == first["finished_since"] + 86400
        assert "since" not in second
        await screen.until(lambda: screen.daemon._subscribed, "it to be told")
        assert screen.app.lost is None

    screened(tmp_path, deed, jobs=[row(1)], signs=Signs(now=lambda: clock[0]))
