"""Writes docs/screen-transcript.md and docs/pictures/: a day at the screen, with every key.

    .venv/bin/python docs/screen_day.py

The screen runs in a real terminal (pyte) before a true daemon. The GPUs are simulated and say so; the
jobs are real processes, which sleep where they would train. Takes about a minute. A step that does not
come out is said at the end, with what was to be seen, and the exit code is 1.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from screen_picture import draw
from transcripts import BIN, HERE, Show, on_terminal

sys.path.insert(0, str(HERE.parent))

from tests.tui.window import Window

PICTURES = HERE / "pictures"
SIZES = ((80, 24), (120, 30), (160, 48))
PATIENCE_S = 10.0
AT_HOME = "/home/alice/experiment"  # as long as the name of the folder: no column moves
KEYS = {
    "Enter": "\r",
    "Esc": "\x1b",
    "Tab": "\t",
    "Space": " ",
    "Ctrl+S": "\x13",
    "Down": "\x1b[B",
    "Up": "\x1b[A",
    "Right": "\x1b[C",
}

TRAIN = """\
import sys, time
name, epochs, pace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print(f"{name}: loading 50,000 images ... ok", flush=True)
for epoch in range(1, epochs + 1):
    for step in range(20):
        done = "#" * (step + 1)
        print(f"\\r{5 * step + 5:3d}%|{done:<20}| {step + 1}/20 [epoch {epoch}]", end="", flush=True)
        time.sleep(pace / 20)
    print(f"\\repoch {epoch}/{epochs}  loss {2.3 / epoch:.4f}  top1 {1 - 0.8 / epoch:.4f}", flush=True)
"""
BROKEN = """\
import sys
print("loading ckpt/last.pt", flush=True)
raise FileNotFoundError("ckpt/last.pt: no such file: train first")
"""
BOX = """\
about = "four cards; carol's container has the last one"

[[gpu]]
count = 4
model = "NVIDIA A100-SXM4-80GB"
memory = "80G"
reserved = "600M"
idle_memory = "12M"
power_limit = 400

[[jobs]]
undeclared = "68G"
ramp = "6s"
utilization = [["0s", 20], ["2s", 95], ["5s", 88], ["9s", 97], ["14s", 91], ["20s", 96], ["30s", 89]]

[[process]]
gpus = 3
pid = 5040121
user = "carol"
command = "python"
unit = "docker 3f2a9c1b7d44"
memory = "40G"
utilization = [["0s", 40], ["10s", 88], ["20s", 60], ["40s", 90]]
"""


class Step(NamedTuple):
    """`keys` are hit one after the other, then `words` are to be seen. With `typed` a text goes in
    after the first `keys`. `command` is typed in another terminal before them. `picture` keeps what is
    seen under that name."""

    says: str
    keys: str = ""
    typed: str = ""
    then: str = ""
    command: str = ""
    words: tuple[str, ...] = ()
    picture: str = ""


DAY = (
    Step(
        "In the morning: what runs, on which GPU, and what waits for what.", words=("vit-b", "▶R")
    ),
    Step("`j` and `k` move; `l` opens the log of the job under the cursor.", "l", words=("epoch",)),
    Step("Back to the list; all about it.", "Esc Enter", words=("started",), picture="detail"),
    Step(
        "`n` is a new job. While it is written, the line that would submit it and what would become"
        " of it stand beside it.",
        "n",
        "python train.py retry 40 2",
        words=("gpuq submit -- python train.py retry 40 2",),
        picture="form",
    ),
    Step("`Ctrl+S` sends it.", "Ctrl+S", words=("retry",)),
    Step("One has failed meanwhile: `c` shows what has ended.", "c", words=("✗F",)),
    Step("`/` filters: what failed.", "/", "state:failed", "Enter", words=("eval",)),
    Step("Its log says why.", "l", words=("FileNotFoundError",), picture="failed"),
    Step("Back, and `r` runs it once more, with the same number.", "Esc r", words=("requeue",)),
    Step("The filter goes.", "Esc Esc", words=("vit-b",)),
    Step(
        "`/` again, for the sweep alone, and `h` holds what waits of it.", "/", "sweep", "Enter h"
    ),
    Step("They are held, with whose word it was.", words=("gpuq hold", "held")),
    Step("`h` once more lets them go.", "h", words=("gpuq release",)),
    Step(
        "`p` gives another priority: who asks for less waits longer.",
        "p",
        "-5",
        "Enter",
        words=("-5",),
    ),
    Step(
        "`x` is the only key that ends anything, and it always asks. Enter keeps.",
        "x",
        words=("Kill", "keep"),
        picture="kill",
    ),
    Step("`y` does it.", "y", words=("gpuq kill",)),
    Step("What only waited comes back with `u`, in its old place.", "u", words=("undo",)),
    Step("The whole list again.", "Esc Esc", words=("vit-b",)),
    Step(
        "`2` is the screen of the GPUs, each with its past.",
        "2",
        words=("not gpuq: python",),
        picture="gpus",
    ),
    Step(
        "`D` there sets one aside, with a reason.",
        "j j D",
        "riser swap",
        "Enter",
        words=("riser swap",),
    ),
    Step("`D` again gives it back.", "D", words=("gpuq gpus resume",)),
    Step("`3` is what has been.", "3", words=("prep",), picture="history"),
    Step("`?` shows every key.", "?", words=("All keys",), picture="help"),
    Step("Back to the jobs.", keys="Esc 1", words=("vit-b",)),
    Step(
        "Meanwhile a sweep is submitted from the command line: it is seen at once, as one line.",
        command="gpuq submit -n tune --grid lr=0.3,0.1 --grid wd=0,0.01"
        " -- python train.py tune-{lr}-{wd} 90 1",
        words=("tune", "queued"),
    ),
    Step(
        "`c` hides what is done, `G` goes to the last line, which failed, and `k` up to the sweep.",
        keys="c G k",
        words=("> 11…14",),
        picture="sweep",
    ),
    Step("And `q` leaves; jobs go on.", words=("vit-b",)),
)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    show = Show()
    show.say(
        "# A day at the screen",
        "",
        "Written by `docs/screen_day.py`, which hits the keys in a real terminal of 120x30. The GPUs",
        "are simulated, as the screen says; the jobs are real processes.",
    )
    with box() as environment:
        missed = live(show, environment)
        for columns, rows in SIZES:
            photograph(environment, columns, rows)
    (HERE / "screen-transcript.md").write_text("\n".join(show.lines).rstrip("\n") + "\n")
    for line in missed:
        print(line, file=sys.stderr)
    sys.exit(1 if missed else 0)


def live(show: Show, environment: dict[str, str]) -> list[str]:
    """The steps that did not come out."""
    missed = []
    with screen(environment, 120, 30) as window:
        for step in DAY:
            typed = f", then `{step.typed}`" * bool(step.typed)
            typed += f", then `{step.then}`" * bool(step.then)
            show.say(f"{step.says}" + (f" Keys: `{step.keys}`{typed}." if step.keys else ""))
            if step.command:
                show.say(
                    "```console", f"$ {step.command}", *at_home(environment, step.command), "```"
                )
            press(window, step.keys)
            window.press(step.typed)
            press(window, step.then)
            if not sees(window, step.words):
                missed.append(
                    f"{step.says} ({step.keys}): {step.words} not to be seen in\n{window.text}"
                )
            settle(window)
            seen = Seen(window, environment["HOME"])
            show.say("```text", seen.text, "```")
            if step.picture:
                (PICTURES / f"{step.picture}.svg").write_text(
                    draw(seen, f"gpuq top: {step.picture}")
                )
        window.press("q")
        show.say(f"It ended with code {window.ends()}, and the terminal is as it was.")
        assert window.is_as_before()
    return missed


def photograph(environment: dict[str, str], columns: int, rows: int) -> None:
    with screen(environment, columns, rows) as window:
        sees(window, ("vit-b",))
        press(window, "l")
        settle(window, 1.5)
        path = PICTURES / f"screen-{columns}x{rows}.svg"
        seen = Seen(window, environment["HOME"])
        path.write_text(draw(seen, f"gpuq top at {columns}x{rows}"))
        window.press("q")
        window.ends()


class Seen:
    """What a terminal shows, as pyte has it, with the folder of the day by another name: its own is
    another each time."""

    def __init__(self, window: Window, folder: str) -> None:
        window.read()
        screen = window.screen
        self.columns, self.lines = screen.columns, screen.lines
        self.buffer = [
            _at_home([row[x] for x in range(self.columns)], folder)
            for row in (screen.buffer[y] for y in range(self.lines))
        ]

    @property
    def text(self) -> str:
        lines = ("".join(cell.data for cell in row).rstrip() for row in self.buffer)
        return "\n".join(lines).rstrip("\n")


def _at_home(row: list[Any], folder: str) -> list[Any]:
    text = "".join(cell.data[:1] or " " for cell in row)
    while (at := text.find(folder)) >= 0:
        end = at + len(folder)
        text = text[:at] + AT_HOME + text[end:]
        row = [*row[:at], *(row[at]._replace(data=sign) for sign in AT_HOME), *row[end:]]
    return row


def at_home(environment: dict[str, str], command: str) -> list[str]:
    """Runs it there; what it printed."""
    shown = on_terminal(["sh", "-c", command], cwd=environment["HOME"], env=environment)
    return shown.replace(environment["HOME"], AT_HOME).splitlines()


@contextmanager
def screen(environment: dict[str, str], columns: int, rows: int) -> Iterator[Window]:
    words = [str(BIN / "gpuq"), "top"]
    here = environment["HOME"]  # so that the form, too, begins in the folder of the jobs
    with Window(words, columns=columns, rows=rows, environment=environment, cwd=here) as window:
        yield window


def press(window: Window, keys: str) -> None:
    for key in keys.split():
        window.press(KEYS.get(key, key))
        settle(window, 0.4)


def sees(window: Window, words: tuple[str, ...]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not all(word in window.text for word in words):
        if time.monotonic() > deadline:
            return False
        window.wait_for_more(0.1)
    return True


def settle(window: Window, seconds: float = 0.6) -> None:
    """On such a screen something always moves: for so long."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        window.wait_for_more(left)
        window.read()


@contextmanager
def box() -> Iterator[dict[str, str]]:
    """A morning on a machine with four GPUs: some runs, some waits, some has been."""
    with tempfile.TemporaryDirectory(prefix="gpuq-day-") as folder:
        show = Show()
        assert len(folder) == len(AT_HOME), f"{folder} is not as long as {AT_HOME}"
        show.folder = here = Path(folder)
        show.environment = environment = {
            "HOME": folder,
            "PATH": f"{BIN}:/usr/bin:/bin",
            "USER": "alice",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
            "GPUQ_AUTOSTART": "0",
        }
        for name, text in (("train.py", TRAIN), ("eval.py", BROKEN), ("box.toml", BOX)):
            (here / name).write_text(text)
        show.run("gpuq daemon start --gpus scenario:box.toml")
        try:
            show.run("gpuq submit -n prep -g 0 -w -- python train.py prep 2 0.1")
            show.run("gpuq submit -n vit-b -g 2 -t 1d -- python train.py vit-b 300 2")
            show.run("gpuq submit -n eval -g 0 -- python eval.py --ckpt 7")
            show.run("gpuq submit -n llm-ft -t 12h -- python train.py llm-ft 300 3")
            show.run(
                "gpuq submit -n sweep --grid lr=0.1,0.03,0.01 -- python train.py sweep-{lr} 90 1"
            )
            show.run("gpuq submit -n report --after @ -g 0 -- python train.py report 1 0.1")
            show.run("gpuq submit -n big -g 4 --hold -- python train.py big 100 1")
            time.sleep(8)  # there is something to be seen in the graphs
            yield environment
        finally:
            show.run("gpuq kill --now --yes --state running; gpuq kill --now --yes --state queued")
            show.run("gpuq daemon stop")
            time.sleep(0.5)


if __name__ == "__main__":
    main()
