"""The screen in a real terminal: it takes it over, and gives it back however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.errors import GpuqError
from gpuq.tui.terminal.driver import HUNG_UP
from tests.cli.said import in_full, simulated
from tests.conftest import BIN, clean_environment, until
from tests.tui.screened import TellingDaemon, row
from tests.tui.window import Window

GPUQ = str(BIN / "gpuq")
ENDS_BY = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGQUIT: 131}


@pytest.fixture
def telling(tmp_path: Path) -> Iterator[TellingDaemon]:
    job = row(181, name="実験")
    daemon = TellingDaemon(tmp_path, jobs=[job], gpus=[simulated(0)])
    daemon.answers = defaultdict(lambda: GpuqError("not told here"), daemon.answers)
    daemon.answers["show"] = {"job": in_full(job)}
    try:
        yield daemon
    finally:
        daemon.close()


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    said = {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(tmp_path)}
    return {name: value for name, value in clean_environment(**said | more).items() if value}


def top(
    daemon: TellingDaemon, tmp_path: Path, *words: str, size: tuple[int, int] = (80, 24), **how: Any
) -> Window:
    streams = {name: how.pop(name) for name in ("stdin", "stdout", "stderr") if name in how}
    return Window(
        [GPUQ, "--socket", daemon.path, "top", *words],
        columns=size[0],
        rows=size[1],
        environment=environment(tmp_path, **how),
        **streams,
    )


# ── where there is none ──


@pytest.mark.parametrize(("stream", "what"), [("stdin", "read keys from"), ("stdout", "draw on")])
def test_without_a_terminal_it_says_what_to_use(
    telling: TellingDaemon, tmp_path: Path, stream: str, what: str
) -> None:
    with top(telling, tmp_path, **{stream: subprocess.DEVNULL}) as window:
        assert window.ends() == 2
        assert f"top needs a terminal, and there is none to {what}" in " ".join(window.text.split())
        assert "gpuq status" in window.text
    assert telling.asked == []


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_only_prints_lines_gets_the_status(
    telling: TellingDaemon, tmp_path: Path, term: str
) -> None:
    with top(telling, tmp_path, TERM=term) as window:
        assert window.ends() == 0
        assert "no screen can be drawn on this terminal" in window.text
        assert "0 running, 0 queued" in window.text
        assert b"\x1b[?" not in window.raw


@pytest.mark.parametrize(
    "term", ["screen-256color", "tmux-256color", "xterm", "linux", "vt100", "xterm-kitty"]
)
def test_every_other_terminal_is_drawn_on(
    telling: TellingDaemon, tmp_path: Path, term: str
) -> None:
    with top(telling, tmp_path, TERM=term) as window:
        window.until("181")
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


# ── given back ──


@pytest.mark.parametrize("number", ENDS_BY, ids=lambda number: number.name)
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    telling: TellingDaemon, tmp_path: Path, number: signal.Signals
) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        assert {"1049", "1000", "1004", "2004", "25"} <= window.modes_on()
        window.kill(number)
        assert window.ends() == ENDS_BY[number]
        assert window.is_as_before()
        assert "Traceback" not in window.text


def test_a_signal_that_comes_while_it_starts_finds_the_terminal_as_it_was(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path) as window:
        while b"\x1b[?1049h" not in window.raw:
            window.wait_for_more()
            window.read()
        window.kill(signal.SIGTERM)
        assert window.ends() == 143, window.text
        assert window.is_as_before()


def test_an_error_of_its_own_is_printed_after_the_terminal_is_given_back(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    broken = (
        "from gpuq.tui.widgets.job_table import JobTable as t; t.draw = lambda *_: {}['no key']"
    )
    words = f"{broken}; from gpuq.cli.main import main; main()"
    command = [sys.executable, "-c", words, "--socket", telling.path, "top"]
    with Window(command, environment=environment(tmp_path)) as window:
        assert window.ends() == 1
        assert window.is_as_before()
        _, _, after = window.raw.rpartition(b"\x1b[?1049l")
        assert b"KeyError" in after


def test_ctrl_z_gives_the_terminal_back_until_it_is_called_again(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        window.press("\x1a")
        window.stops()
        assert window.is_as_before()
        window.wipe()
        window.kill(signal.SIGCONT)
        for words in ("gpuq", "181", "Help"):
            window.until(words)
        assert "1049" in window.modes_on()
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


def test_who_was_stopped_without_being_asked_takes_back_all_that_it_set(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        window.kill(signal.SIGSTOP)
        window.stops()
        window.wipe()
        window.kill(signal.SIGCONT)
        window.until("181")
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


def test_a_terminal_that_was_closed_ends_it_without_a_word(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    with errors.open("wb") as stderr, top(telling, tmp_path, stderr=stderr) as window:
        window.until("181")
        window.close()
        assert window.process.wait(20) in (HUNG_UP, 128 + signal.SIGHUP)
    assert errors.read_bytes() == b""


def test_a_terminal_that_goes_away_without_a_signal_ends_it_too(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    """As under nohup, or behind a program that keeps the hang-up for itself."""
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    words = [*ignoring, GPUQ, "--socket", telling.path, "top"]
    with Window(words, environment=environment(tmp_path)) as window:
        window.until("181")
        window.close()
        assert window.process.wait(20) == HUNG_UP


def test_a_daemon_that_does_not_answer_keeps_nobody_in_the_screen(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        telling.hang_up()
        window.until("no daemon")
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


# ── a terminal that takes nothing ──


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])  # type: ignore[index]


def push_much(telling: TellingDaemon, first: int, number: int) -> None:
    for n in range(first, first + number):
        telling.push(jobs=[row(181, name=f"name-{n}", command=["x" * 300])])


def test_a_terminal_that_nobody_reads_costs_no_memory_and_is_drawn_when_it_reads_again(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path, size=(200, 60)) as window:
        window.until("181")
        os.kill(window.process.pid, 0)
        for n in range(40):  # each a new picture of the whole window
            window.resize(200 - n % 2, 60)
            push_much(telling, n, 1)
        before = resident_kib(window.process.pid)
        push_much(telling, 40, 960)
        until(lambda: resident_kib(window.process.pid) - before < 40 * 1024)
        telling.push(jobs=[row(181, name="the-last")])
        window.until("the-last")


def test_a_terminal_that_takes_nothing_does_not_keep_it_from_leaving(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path, size=(200, 60)) as window:
        window.until("181")
        for n in range(100):
            window.resize(200 - n % 2, 60)
            push_much(telling, n, 1)
            time.sleep(0.005)
        window.kill(signal.SIGTERM)
        assert window.process.wait(20) == 143
        window.read()
        assert not window.modes_on()


# ── the window ──


def test_it_lives_through_a_storm_of_resizes(telling: TellingDaemon, tmp_path: Path) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        for n in range(300):
            window.resize(1 + n * 7 % 230, 1 + n * 3 % 70)
            window.read()
        window.resize(1, 1)
        window.read()
        window.resize(90, 30)
        window.press("\x0c")
        telling.push(jobs=[row(181, name="afterwards")])
        window.until("afterwards")
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


def test_a_window_that_grows_is_filled_whatever_the_environment_says(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path, size=(60, 20), COLUMNS="60", LINES="20") as window:
        window.until("181")
        window.resize(140, 40)
        window.until("2 GPUs")


# ── what it is drawn with ──


def find_in_the_palette(window: Window) -> None:
    """From the help on."""
    window.press("?")
    until(lambda: "All keys" not in window.text)
    window.press("\x10")
    window.until("quit:")


COLOUR = re.compile(rb"\x1b\[[\d;]*m")


def colours(raw: bytes) -> set[bytes]:
    codes = {code for found in COLOUR.findall(raw) for code in found[2:-1].split(b";")}
    return {code for code in codes if code and (30 <= int(code) < 49 or 90 <= int(code) < 108)}


@pytest.mark.parametrize(("value", "is_plain"), [("1", True), ("", False)])
def test_no_color_takes_the_colours_away(
    telling: TellingDaemon, tmp_path: Path, value: str, is_plain: bool
) -> None:
    said = {"NO_COLOR": value} if value else {}
    telling.picture["drained"] = {"actor": "dan", "reason": "fan"}
    with top(telling, tmp_path, **said) as window:
        window.until("drained by dan: fan")
        for key in "231?":
            window.press(key)
        window.until("All keys")
        find_in_the_palette(window)
        assert (not colours(window.raw) - {b"39", b"49"}) == is_plain


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
@pytest.mark.parametrize("words", [[], ["--ascii"]])
def test_a_terminal_without_utf_8_gets_ascii_alone(
    telling: TellingDaemon, tmp_path: Path, locale: str, words: list[str]
) -> None:
    locale = "C.UTF-8" if words else locale
    with top(telling, tmp_path, *words, LC_ALL=locale) as window:
        window.until("????")  # two signs of two cells each
        window.press(b"\xe9")  # as a keyboard there says it
        window.press("?")
        window.until("All keys")
        find_in_the_palette(window)
        assert window.raw.isascii()
        window.kill(signal.SIGTERM)
        assert window.ends() == 143


@pytest.mark.parametrize("how", ["option", "setting"])
def test_the_mouse_can_be_left_to_the_terminal(
    telling: TellingDaemon, tmp_path: Path, how: str
) -> None:
    (tmp_path / "gpuq").mkdir()
    (tmp_path / "gpuq" / "gpuq.toml").write_text(
        "" if how == "option" else "[top]\nmouse = false\n"
    )
    with top(telling, tmp_path, *(["--no-mouse"] if how == "option" else [])) as window:
        window.until("181")
        assert b"\x1b[?1000h" not in window.raw
        window.press("q")
        assert window.ends() == 0
        assert window.is_as_before()


def test_an_unknown_theme_is_said_with_those_there_are(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path, "--theme", "nrod") as window:
        assert window.ends() == 2
        said = " ".join(window.text.split())
        assert "--theme: there is no theme 'nrod'; there are ansi-dark, ansi-light," in said
        assert b"\x1b[?1049h" not in window.raw


@pytest.mark.parametrize("theme", ["nord", "ansi-light", "textual-light"])
def test_other_themes_are_drawn(telling: TellingDaemon, tmp_path: Path, theme: str) -> None:
    with top(telling, tmp_path, "--theme", theme) as window:
        window.until("181")


# ── out of focus ──


def test_out_of_focus_it_is_told_less_and_draws_nothing(
    telling: TellingDaemon, tmp_path: Path
) -> None:
    with top(telling, tmp_path) as window:
        window.until("181")
        window.press("\x1b[O")
        until(lambda: [one.get("pace_s") for one in telling.requests("subscribe")] == [0.25, 5.0])
        window.read()
        while window.wait_for_more(0.3):
            window.read()
        drawn = len(window.raw)
        assert not window.wait_for_more(1.3), "the clock stands"
        window.press("\x1b[I")
        until(lambda: telling.requests("subscribe")[-1].get("pace_s") == 0.25)
        until(lambda: window.text and len(window.raw) > drawn)
