"""The help, the palette and the foot are the tables of keys, and so are the bindings."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.dom import DOMNode

import gpuq.tui
from gpuq.errors import GpuqError
from gpuq.tui import keys
from gpuq.tui.keys import Key
from gpuq.tui.screens.help import by_panel
from gpuq.tui.widgets.key_line import Entry, fitting
from tests.cli.said import in_full, simulated
from tests.tui.screened import Screened, row, screened


def bound() -> Iterator[tuple[type, Binding]]:
    """What every class of the screen binds by itself."""
    for module in pkgutil.walk_packages(gpuq.tui.__path__, "gpuq.tui."):
        if ".web" in module.name:
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(found, DOMNode) and found.__module__ == module.name:
                for binding in found.__dict__.get("BINDINGS", ()):
                    assert isinstance(binding, Binding), f"{found.__name__} binds {binding} by hand"
                    yield found, binding


def in_the_help() -> list[Key]:
    return [key for places in by_panel().values() for found in places.values() for key in found]


def test_every_binding_is_in_the_help_as_it_is_bound() -> None:
    told = {(key.id, key.keys, key.action) for key in in_the_help()}
    known = {key.id: key for key in keys.all_keys()}
    for found, binding in bound():
        key = known[binding.id or ""]
        assert (binding.key, binding.action) == (key.keys, key.action), found.__name__
        assert (key.id, key.keys, key.action) in told


def test_every_key_of_the_help_is_bound_somewhere() -> None:
    there = {(binding.id, binding.key, binding.action) for _, binding in bound()}
    for key in in_the_help():
        assert (key.id, key.keys, key.action) in there, f"{key.id} is bound nowhere"


def test_ids_are_unique_or_mean_the_same() -> None:
    seen: dict[str, Any] = {}
    for key in keys.all_keys():
        assert seen.setdefault(key.id, key) == key


def answers() -> dict[str, Any]:
    others = {do: GpuqError("not told here") for do in ("history", "stats", "usage")}
    return {"show": {"job": in_full(row(181))}, **others}


def test_the_help_can_be_read_to_its_end_and_left(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("question_mark")
        await screen.shows("All keys")
        await screen.shows("esc goes back, ↓ ↑ scroll")
        await screen.press("end")
        await screen.shows("[top.keys]")
        await screen.press("question_mark")
        await screen.until(lambda: "[top.keys]" not in screen.text(), "the help to be closed")

    screened(tmp_path, deed, jobs=[row(181)], gpus=[simulated(0)], answers=answers())


def test_the_palette_finds_by_name_and_does_it(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("ctrl+p")
        await screen.shows("screen.gpus: the GPUs")
        await screen.press(*"screen.hist")
        await screen.shows("what has ended")
        await screen.press("down", "enter")
        await screen.until(lambda: screen.app.current_mode == "history", "the history")

    screened(tmp_path, deed, jobs=[row(181)], answers=answers(), size=(100, 40))


def test_the_palette_says_why_something_is_off(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("colon")
        await screen.press(*"kill")
        await screen.shows("off: this screen only looks")

    screened(tmp_path, deed, jobs=[row(181)], is_readonly=True, answers=answers(), size=(100, 40))


def test_the_foot_says_the_most_wanted_keys_and_each_action_once(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        foot = screen.text().splitlines()[-1]
        for label in ("Detail", "Log", "Kill", "Hold", "Filter", "Help"):
            assert foot.count(label) == 1, foot

    screened(tmp_path, deed, jobs=[row(181)], answers=answers())


@pytest.mark.parametrize("wide", [80, 90, 100])
def test_the_keys_of_the_log_are_at_the_foot_while_one_reads_it(tmp_path: Path, wide: int) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("l")
        foot = screen.text().splitlines()[-1]
        assert " f Follow w Wrap T Times / Find " in foot
        assert "? Help" in foot
        await screen.press("escape")
        assert "Follow" not in screen.text().splitlines()[-1]

    screened(tmp_path, deed, jobs=[row(181)], answers=answers(), size=(wide, 30))


def test_what_only_goes_in_a_pane_is_wanted_before_what_goes_everywhere() -> None:
    entries = [Entry("f", "Follow", "log.follow", is_of_pane=True), Entry("x", "Kill", "kill")]
    entries += [Entry("?", "Help", "help")]
    assert [one.id for one in fitting(entries, 15, 1)] == ["log.follow", "help"]
    assert [one.id for one in fitting(entries, 6, 1)] == ["help"]


def test_the_help_can_be_read_in_a_small_window(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("question_mark")
        await screen.shows("All keys · esc goes back, ↓ ↑ scroll")
        assert "…" not in screen.text()
        await screen.press("pagedown")
        lines = [line.strip("│▆▇█▅▄▃▂▁ ") for line in screen.text().splitlines()]
        words = [line.removeprefix("⏎").strip() for line in lines[2:5]]
        assert words == ["all about the job", "under the cursor", "detail"]
        assert "…" not in screen.text()
        await screen.press("home")
        await screen.pilot.resize_terminal(100, 30)
        await screen.shows("all about the job under the cursor  detail")

    screened(tmp_path, deed, jobs=[row(181)], answers=answers(), size=(40, 12))


def test_no_key_stands_twice_where_it_is_pressed_and_each_says_where_that_is() -> None:
    assert set(keys.PLACES) == set(keys.tables())
    placed: dict[tuple[str, str], str] = {}
    for places in by_panel().values():
        for place, found in places.items():
            for key in found:
                for name in key.keys.split(","):
                    before = placed.setdefault((place, name), key.id)
                    assert before == key.id, f"{name} is {before} and {key.id}, both in {place}"
    assert {place for (place, name) in placed if name == "s"} == {
        "jobs",
        "history",
        "the question of a kill",
        "the menu of y, of a job",
        "the menu of ctrl+s",
    }


def test_what_has_no_room_at_the_foot_gives_way_by_want() -> None:
    entries = [Entry("d", "Duplicate", "duplicate"), Entry("x", "Kill", "kill")]
    entries += [Entry("?", "Help", "help")]
    assert [one.id for one in fitting(entries, 80, 1)] == ["duplicate", "kill", "help"]
    assert [one.id for one in fitting(entries, 14, 1)] == ["kill", "help"]
    assert [one.id for one in fitting(entries, 6, 1)] == ["help"]
    assert fitting(entries, 5, 1) == []
