"""Wherever the screen names a key in words, it is the one that does it: that of the settings."""

from pathlib import Path

from gpuq.tui.keymap import read_keymap
from tests.cli.said import gpu
from tests.tui.screened import NOW, Screened, screened
from tests.tui.test_job_actions import ADMIN, ALL
from tests.tui.test_job_list import over
from tests.tui.test_kill_dialog import runs, waits
from tests.tui.test_top_settings import read

SETTINGS = """[top.keys]
dialog.yes = "f5"
dialog.no = "f6,escape"
dialog.signal = "f7"
dialog.leave = "N,f8"
dialog.close = "f4"
undo = "U"
finished = "C"
freeze = "Z"
mark.range = "V"
messages = "f9"
copy.leave = "f8"
gpu.drain = "f5"
help.close = "f2"
tree = "f2"
"""


SERIES = {
    "started_at": NOW - 60.0,
    "ended_at": None,
    "quantities": {},
    "why": "nothing was measured yet",
}


def remapped(tmp_path: Path) -> dict[str, str]:
    return dict(read_keymap(read(tmp_path, SETTINGS).keys))


def test_the_kill_and_its_undo(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("x")
        await screen.shows("-> cancelled (U undoes)")
        await screen.shows("f5 kill     f7 other signal     f6 / esc  keep")
        await screen.press("f7")
        await screen.shows("ends nothing   f6 back")
        await screen.press("f6", "f5")
        await screen.shows("U undoes it (10 s)")
        await screen.press("U")
        await screen.shows("is queued again")

    screened(tmp_path, deed, jobs=[waits(184)], answers=ALL, keymap=remapped(tmp_path))


def test_questions_prompts_menus_and_messages(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("r")
        await screen.shows("f5 requeue   f6 / esc keep")
        await screen.press("f6", "p")
        await screen.shows("Enter sets it   f8 keep")
        await screen.press("f8", "y")
        await screen.shows("f8 leave")
        await screen.press("f8", "f9")
        await screen.shows("f4 close")
        await screen.press("f4", "question_mark")
        await screen.shows("f2 goes back")

    screened(tmp_path, deed, jobs=[runs(181)], answers=ALL, keymap=remapped(tmp_path))


def test_what_is_said_of_the_list(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.shows("1 done today hidden: C)")
        await screen.press("V")
        await screen.shows("range from 184: V marks up to")
        await screen.press("Z")
        await screen.shows("since; Z goes on")

    jobs = [waits(184), over(179, "succeeded")]
    screened(tmp_path, deed, jobs=jobs, size=(140, 30), keymap=remapped(tmp_path))


def test_how_a_gpu_is_given_out_again(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        await screen.press("2")
        await screen.shows("f5 gives it out again")

    one = gpu(0, state="drained", reason="drained by dan: riser swap")
    one["drained"] = {"actor": "dan", "reason": "riser swap", "at": NOW - 60.0}
    beside = {"you": ADMIN}
    screened(tmp_path, deed, gpus=[one], size=(120, 30), beside=beside, keymap=remapped(tmp_path))


def test_a_key_that_does_nothing_in_a_tab_says_what_it_is_for(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        for tab in ("graph", "env"):
            await screen.press("left_square_bracket")
            await screen.until(lambda: screen.app.screen.pane.tab == tab, tab)  # noqa: B023
            screen.app.messages._kept.clear()
            await screen.press("f2")
            await screen.shows("f2 is for the tabs detail (what the job waits for) and procs")
        await screen.press("l")
        screen.app.messages._kept.clear()
        await screen.press("f2")
        await screen.shows("f2 is for the tabs detail")

    answers = ALL | {"series": SERIES}
    screened(
        tmp_path,
        deed,
        jobs=[runs(181)],
        size=(120, 30),
        answers=answers,
        keymap=remapped(tmp_path),
    )


EVERY_DIALOG = {
    "copy.command": "f5",
    "copy.leave": "f6",
    "copy.gpu_leave": "f6",
    "copy.gpu_index": "f5",
    "export.leave": "f6",
    "export.table": "f5",
    "help.close": "f6",
    "dialog.yes": "f5",
    "dialog.no": "f6",
    "dialog.leave": "f6",
    "dialog.close": "f6",
    "form.keep": "f8",
    "form.clear": "f9",
    "form.send": "f10",
    "filter.clear": "f6",
    "filter.earlier": "f5",
}


def test_every_dialog_is_left_and_answered_by_the_keys_of_the_settings(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        app = screen.app

        async def opens_and_leaves(*keys: str, shows: str, old: str = "escape") -> None:
            await screen.pilot.press(*keys)
            await screen.shows(shows)
            await screen.until(lambda: app.takes_keys, "it to be drawn")
            depth = len(app.screen_stack)
            await screen.pilot.press(old)
            assert len(app.screen_stack) == depth > 1, f"{old} still leaves {keys}"
            await screen.pilot.press("f6")
            await screen.until(lambda: len(app.screen_stack) == 1, f"f6 to leave {keys}")

        await opens_and_leaves("x", shows="f6  keep")
        await opens_and_leaves("r", shows="f6 keep")
        await opens_and_leaves("p", shows="f6 keep")
        await opens_and_leaves("D", shows="f6 keep")
        await opens_and_leaves("y", shows="f6 leave", old="y")
        await opens_and_leaves("ctrl+s", shows="f6 leave")
        await opens_and_leaves("M", shows="f6 close")
        await opens_and_leaves("question_mark", shows="f6 goes back")
        await screen.press("y", "f5")
        await screen.shows("copied (command")
        await screen.press("ctrl+s", "f5")
        await screen.shows("Into the file")
        await screen.press("f6")
        await screen.press("2")
        await opens_and_leaves("y", shows="f6 leave")
        await screen.press("y", "f5")
        await screen.shows("copied (index")
        await screen.press("1", "x", "s")
        await screen.shows("f6 back")
        await screen.press("f6")
        await screen.shows("f5 kill")
        await screen.press("f6", "n", *"true")
        await screen.press("f9")
        assert "true" not in screen.text_of("#fields")
        await screen.press("f8")
        assert len(app.screen_stack) == 1
        await screen.press("slash", "v", "enter", "slash", "backspace", "f5", "f6")
        await screen.shows("filter: none")

    screened(
        tmp_path,
        deed,
        jobs=[runs(181)],
        gpus=[gpu(0)],
        size=(120, 30),
        answers=ALL,
        beside={"you": ADMIN},
        keymap=dict(read_keymap(read(tmp_path, settings_of(EVERY_DIALOG)).keys)),
    )


def settings_of(keys: dict[str, str]) -> str:
    return "[top.keys]\n" + "".join(f'{id} = "{key}"\n' for id, key in keys.items())
