"""The log of the job under the cursor: a file that grows while it is seen."""

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gpuq.tui import log_reader
from gpuq.tui.log_reader import BLOCK
from gpuq.tui.widgets.log.pane import LogPane
from gpuq.tui.widgets.log.view import LogView
from tests.cli.said import Said, attempt, in_full, job, running
from tests.tui.screened import Screened, row, screened

Deed = Callable[[Screened, Path], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a quarter of a second for each line."""
    monkeypatch.setattr(log_reader, "LOOK_S", 0.02)


def with_log(
    folder: Path, deed: Deed, text: bytes | str = "", *, of: Said | None = None, **options: Any
) -> None:
    """Job 181 runs, and its log is open on the screen."""
    told = of or in_full(running(181, log=str(folder / "log")))
    log = folder / (told["log"] or "log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(text if isinstance(text, bytes) else text.encode())

    async def opened(screen: Screened) -> None:
        await screen.press("l")
        await deed(screen, log)

    asked = row(**{name: told[name] for name in ("state", "attempt", "substate")}, number=181)
    screened(folder, opened, jobs=[asked], answers={"show": {"job": told}}, **options)


def add(log: Path, text: str | bytes) -> None:
    with log.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def numbered(*span: int) -> str:
    return "".join(f"line {number}\n" for number in range(*span))


def view_of(screen: Screened) -> LogView:
    return screen.app.screen.query_one(LogView)


def test_the_end_of_a_log_is_seen_and_what_comes(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99")
        assert "line 50" not in screen.text()
        assert "follow ●" in screen.text()
        add(log, "one more\n")
        await screen.shows("one more")

    with_log(tmp_path, deed, numbered(100))


def test_a_bar_moves_in_its_line(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows(" 10%|#")
        add(log, "\r 20%|##")
        await screen.shows(" 20%|##")
        add(log, "\r100%|####\ndone\n")
        await screen.shows("done")
        assert "100%|####" in screen.text()
        assert "20%" not in screen.text()

    with_log(tmp_path, deed, "epoch 1\n 10%|#")


def test_who_scrolls_up_is_left_where_he_is_until_the_end_is_asked_for(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99")
        await screen.press("pageup")
        assert "follow ○" in screen.text()
        before = [line for line in screen.text().splitlines() if line.startswith("line ")]
        add(log, "one more\n")
        await screen.until(lambda: len(view_of(screen).window) == 101, "the line to be read")
        await screen.settle()
        assert [line for line in screen.text().splitlines() if line.startswith("line ")] == before
        await screen.press("end")
        await screen.shows("one more")
        assert "follow ●" in screen.text()
        await screen.press("f")
        assert "follow ○" in screen.text()

    with_log(tmp_path, deed, numbered(100))


def test_what_is_found_is_counted_and_gone_to(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99")
        await screen.press("slash", *"7", "enter")
        assert "/7: 19 of 19 lines" in screen.text()
        assert "line 97" in screen.text()
        await screen.press("N")
        assert "/7: 18 of 19 lines" in screen.text()
        assert "line 87" in screen.text()
        await screen.press("n", "n")
        assert "/7: 1 of 19 lines" in screen.text()
        add(log, "77\n")
        await screen.shows("/7: 1 of 20 lines")
        await screen.press("slash")
        screen.app.screen.query_one(LogPane).field.value = "none such"
        await screen.press("enter")
        await screen.shows("'none such' is not in the log (101 lines)")

    with_log(tmp_path, deed, numbered(100))


def test_a_search_that_is_left_leaves_the_keys_to_the_screen(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.press("slash", *"x")
        await screen.press("escape")
        assert not screen.app.screen.query_one(LogPane).field.display
        assert view_of(screen).search is None

    with_log(tmp_path, deed, "a line\n")


def test_long_lines_are_cut_moved_or_wrapped(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("abc")
        assert "xyz" not in screen.text()
        await screen.press("right", "right", "right")
        await screen.shows("xyz")
        await screen.press("w")
        await screen.shows("abc")
        assert "xyz" in screen.text()
        assert "wrap" in screen.text()
        add(log, "behind it\n")
        await screen.shows("behind it")

    with_log(tmp_path, deed, "abc" + "." * 100 + "xyz\n")


@pytest.mark.parametrize(
    "sizes", [[(80, 24), (60, 20), (80, 24)], [(40, 12), (160, 48)], [(160, 48), (40, 12)]]
)
def test_a_wrapped_log_stays_in_a_window_that_grows(
    tmp_path: Path, sizes: list[tuple[int, int]]
) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.press("w", "l")
        for size in sizes:
            await screen.pilot.resize_terminal(*size)
            await screen.shows("end of 99")
            view = view_of(screen)
            assert view._rows is not None
            assert view._rows.room == view._room()

    lines = "".join(f"line {n} {'x' * 300} end of {n}\n" for n in range(100))
    with_log(tmp_path, deed, lines)


def test_the_line_that_is_read_stays_when_lines_are_wrapped_or_no_more(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99")
        await screen.press("pageup", "pageup")
        view = view_of(screen)
        first = screen.text_of("#log-lines").split()[1]
        for _ in range(2):
            await screen.press("w")
            assert screen.text_of("#log-lines").split()[1] == first
        assert not view.follows

    with_log(tmp_path, deed, "".join(f"line {n} {'x' * 300}\n" for n in range(100)))


def test_what_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("caf\\xe9")
        assert "[4096 NUL bytes]" in screen.text()
        assert "red\\x07" in screen.text()
        assert "\x1b" not in screen.text()

    flood = b"\0" * 4096
    with_log(tmp_path, deed, b"caf\xe9\n" + flood + b"\n\x1b[31mred\x07\x1b[0m\n")


def test_a_line_of_megabytes_is_seen_at_its_end(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.press("w")
        await screen.shows("the end")
        assert len(view_of(screen).window) < 100

    with_log(tmp_path, deed, b"x" * 5_000_000 + b" the end")


def test_of_a_huge_log_the_end_is_read_and_older_parts_when_they_are_wanted(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 299999")
        view = view_of(screen)
        begin, first = view.window.begin, view.window[0].raw.decode()
        assert view.window.end - begin <= BLOCK
        view.follow(False)
        view._go_to(0)
        await screen.until(lambda: view.window.begin < begin, "an older part to be read")
        seen = [line for line in screen.text().splitlines() if line.startswith("line ")]
        assert seen[0] == first
        await screen.press("home")
        await screen.shows("line 0\n")
        view._go_to(view.virtual_size.height)
        end = view.window.end
        await screen.press("pagedown")
        await screen.until(lambda: view.window.end > end, "what comes behind it")
        await screen.press("end")
        await screen.shows("line 299999")
        assert len(view.window) <= 20_000

    with_log(tmp_path, deed, numbered(300_000))


def test_a_log_that_grows_fast_is_followed_in_leaps(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        add(log, numbered(10, 400_000))
        await screen.shows("line 399999")
        assert view_of(screen).window.begin > 0

    with_log(tmp_path, deed, numbered(10))


def test_a_log_that_is_removed_stays_seen_and_one_that_comes_anew_is_read(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        log.unlink()
        await screen.shows("there is no log of job 181")
        assert "line 8" in screen.text()
        log.write_text("rotated\n")
        await screen.shows("rotated")
        await screen.until(lambda: "there is no log" not in screen.text(), "the note to go")
        assert "line 8" not in screen.text()

    with_log(tmp_path, deed, numbered(10))


def test_a_log_that_is_truncated_is_read_from_its_new_beginning(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        os.truncate(log, 0)
        await screen.shows("it has written nothing yet")
        add(log, "anew\n")
        await screen.shows("anew")
        assert "line 8" not in screen.text()

    with_log(tmp_path, deed, numbered(10))


def test_a_job_that_waits_says_why_there_is_no_log(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("has no log yet: wants 1 GPU, 0 free")
        started = running(181, log=str(log))
        screen.daemon.answers["show"] = {"job": in_full(started)}
        add(log, "begun\n")
        screen.daemon.push(jobs=[row(181, state="running", attempt=1)])
        await screen.shows("begun")

    with_log(tmp_path, deed, of=in_full(job(181)))


def test_another_users_log_is_said_to_be_his(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("the log of job 181 is readable to bob alone")

    with_log(tmp_path, deed, of=in_full(running(181, user="bob", hidden=True)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_log_without_the_right_to_read_it_is_said_so(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 1")
        log.chmod(0)
        await screen.press("l", "escape", "E", "E")
        await screen.shows("is readable to alice alone")

    with_log(tmp_path, deed, numbered(3))


def test_each_attempt_has_its_own_log(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_text("of the first\n")
    log = str(tmp_path / "log")
    attempts = [attempt(log=str(first)), attempt(attempt=2, log=log)]
    of = in_full(running(181, attempt=2, log=log, retries=1), attempts=attempts)

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("of the second")
        assert "attempt 2/2" in screen.text()
        await screen.press("left_curly_bracket")
        await screen.shows("of the first")
        assert "attempt 1/2" in screen.text()
        await screen.press("right_curly_bracket")
        await screen.shows("of the second")

    with_log(tmp_path, deed, "of the second\n", of=of)


def test_a_new_attempt_is_gone_on_with(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.write_text("of the second\n")

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("of the first")
        again = running(181, attempt=2, log=str(second))
        screen.daemon.answers["show"] = {"job": in_full(again)}
        screen.daemon.push(jobs=[row(181, state="running", attempt=2)])
        await screen.shows("of the second")
        assert "of the first" not in screen.text()

    with_log(tmp_path, deed, "of the first\n")


def test_the_file_of_errors_is_shown_instead(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    errors.write_text("Traceback\n")

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("fine")
        await screen.press("E")
        await screen.shows("Traceback")
        assert "stderr" in screen.text()
        await screen.press("T")
        await screen.shows("job 181 has no index of its log: no times")

    of = in_full(running(181, log=str(tmp_path / "log"), stderr=str(errors)))
    with_log(tmp_path, deed, "fine\n", of=of)


def test_lines_have_their_times(tmp_path: Path) -> None:
    output = tmp_path / "1" / "output"
    output.mkdir(parents=True)
    (tmp_path / "1" / "log.index").write_text("1789999260.000 7\n1789999265.500 14\n")
    log = str(tmp_path / "log")

    async def deed(screen: Screened, log: Path) -> None:
        await screen.press("T")
        await screen.shows("14:01:00 line 0")
        assert "14:01:05 line 1" in screen.text()
        await screen.press("T")
        await screen.until(lambda: "14:01:00" not in screen.text(), "the times to go")

    of = in_full(running(181, log=log, output_dir=str(output), started_at=1789999260.0))
    with_log(tmp_path, deed, numbered(2), of=of)


def test_text_is_marked_with_the_mouse_and_copied(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("gamma")
        pilot = screen.pilot
        await pilot.mouse_down("#log-lines", offset=(2, 0))
        await pilot.hover("#log-lines", offset=(3, 2))
        await pilot.mouse_up("#log-lines", offset=(3, 2))
        await screen.settle()
        await screen.press("y")
        await screen.shows("pha beta gamm")
        await screen.press("m")
        assert screen.app.clipboard == "pha\nbeta\ngamm"

    with_log(tmp_path, deed, "alpha\nbeta\n\x1b[31mgam\x1b[0mma\n")


def test_a_log_without_colours_is_drawn_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("red")
        await screen.press("slash", "e", "enter")
        await screen.shows("/e: 1 of 1 line")

    with_log(tmp_path, deed, "\x1b[1;31mred\x1b[0m\n")


def test_nothing_is_read_while_nobody_looks(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        reader = screen.app.screen.query_one(LogPane)._reader
        assert reader is not None
        assert reader._pause() is not None
        await screen.press("left_square_bracket")
        await screen.until(lambda: reader._pause() is None, "the reader to rest")
        await screen.press("right_square_bracket")
        await screen.until(lambda: reader._pause() is not None, "it to go on")
        screen.app.app_focus = False
        await screen.until(lambda: reader._pause() is None, "the reader to rest")

    with_log(tmp_path, deed, numbered(10))


def test_the_whole_screen_shows_the_same_log(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99")
        below = screen.app.screen.query_one(LogPane)._reader
        await screen.press("slash", *"7", "enter", "l")
        await screen.shows("line 82")
        assert "/7: 19 of 19 lines" in screen.text()
        assert "follow ○" in screen.text()
        assert below is not None
        assert below._pause() is None
        add(log, "one more\n")
        await screen.until(lambda: len(view_of(screen).window) == 101, "the line to be read")
        assert "one more" not in screen.text()
        await screen.press("end")
        await screen.shows("one more")
        await screen.press("enter")
        await screen.until(lambda: "line 82" not in screen.text(), "the jobs to be back")
        await screen.shows("one more")
        await screen.press("enter")
        await screen.shows("line 82")
        await screen.press("escape")
        assert len(screen.app.screen_stack) == 1

    with_log(tmp_path, deed, numbered(100))


def test_the_whole_screen_begins_where_it_was_read_and_so_does_the_way_back(
    tmp_path: Path,
) -> None:
    output = tmp_path / "1" / "output"
    output.mkdir(parents=True)
    text = numbered(100_000)
    (tmp_path / "1" / "log.index").write_text(f"1789999260.000 {len(text)}\n")
    log = str(tmp_path / "log")
    of = in_full(running(181, log=log, output_dir=str(output), started_at=1789999260.0))

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 99999")
        await screen.press("T", "home")
        await screen.shows("14:01:00 line 0\n")
        await screen.press("down", "enter")
        await screen.shows("── log of 181")
        await screen.shows("14:01:00 line 1\n")
        assert "line 0\n" not in screen.text()
        assert "follow ○ · times" in screen.text()
        assert view_of(screen).window.begin == 0
        view = view_of(screen)
        await screen.press("T", "w")
        while len(view.window) < 6000:
            view._go_to(view.virtual_size.height)
            await screen.press("pagedown")
        view._go_to(4000)
        await screen.press("escape")
        await screen.shows("line 4000\n")
        assert "line 3999" not in screen.text()
        assert "follow ○ · wrap" in screen.text()
        assert "14:01" not in screen.text().partition("[log]")[2]

    with_log(tmp_path, deed, text, of=of)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 30), (160, 48)])
def test_how_the_log_looks(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # so that its path is the same everywhere
    text = (
        "loading ckpt 7 ... ok (3.1 s)\n\x1b[32msplit\x1b[0m=test n=50000 bs=256\n"
        "top1 0.7712 top5 0.9321 (10000/50000)\n計算 done\n 10%|##   |\r 61%|#####  | 120/196"
    )

    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows(" 61%|#####")
        await screen.is_golden(f"log-pane-{size[0]}")
        await screen.press("l")
        await screen.is_golden(f"log-whole-{size[0]}")

    of = in_full(running(181, log="jobs/181/1/log"), attempts=[attempt()])
    with_log(tmp_path, deed, text, of=of, size=size)


def test_a_job_without_a_file_of_errors_keeps_its_log(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        await screen.press("E")
        await screen.shows("job 181 has no separate file of errors: they are in this log")
        assert "line 9" in screen.text()

    with_log(tmp_path, deed, numbered(10))


def test_the_log_of_a_job_that_ends_well_stays_until_escape_and_so_does_its_row(
    tmp_path: Path,
) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        ended = {"state": "ended", "outcome": "succeeded", "exit_code": 0}
        screen.daemon.push(jobs=[row(181, **ended), row(182)])
        await screen.until(lambda: "182" in screen.text_of("#jobs"), "the other job")
        await screen.settle()
        assert "181" in screen.text_of("#jobs")
        assert "line 9" in screen.text()
        await screen.press("escape")
        await screen.until(lambda: "181" not in screen.text_of("#jobs"), "it to be hidden")

    with_log(tmp_path, deed, numbered(10))


def test_the_log_is_read_while_no_daemon_answers(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        await screen.shows("line 9")
        screen.daemon.hold_back()
        screen.daemon.hang_up()
        await screen.until(lambda: screen.app.lost is not None, "the daemon to be missed")
        pane = screen.app.screen.query_one(LogPane)
        pane.open(pane.which)  # as who comes back to it
        await screen.shows("line 9")
        add(log, "one more\n")
        await screen.shows("one more")

    with_log(tmp_path, deed, numbered(10))


def test_the_foot_and_the_tabs_say_what_the_keys_are_for(tmp_path: Path) -> None:
    async def deed(screen: Screened, log: Path) -> None:
        assert screen.text_of("#tabs").startswith("━━")
        assert screen.text_of("#keys").split()[0] == "log"
        await screen.press("escape")
        assert screen.text_of("#tabs").startswith("──")
        assert screen.text_of("#keys").split()[0] != "log"

    with_log(tmp_path, deed, numbered(10))
