"""Writes docs/transcripts.md: what a person sees, from true commands against true daemons.

    .venv/bin/python docs/transcripts.py

The GPUs are simulated and say so; the jobs are real processes. Takes about two minutes.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
COLUMNS, ROWS = 120, 60


class Show:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.environment: dict[str, str] = {}

    def say(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    @contextmanager
    def box(self, gpus: str, *flags: str, files: tuple[str, ...] = ()) -> Iterator[Path]:
        """A daemon in a folder of its own; what is typed in between stands in one block."""
        with tempfile.TemporaryDirectory(prefix="gpuq-show-") as folder:
            here = Path(folder)
            kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUQ_", "XDG_"))}
            paths = {"HOME": folder, "PATH": f"{BIN}:/usr/bin:/bin", "USER": "alice"}
            self.environment = kept | paths | {"NO_COLOR": "1"}
            if gpus.endswith(".toml"):
                (here / "box.toml").write_text((HERE / gpus).read_text())
                gpus = "scenario:box.toml"
            for name in files:
                (here / name).touch()
            self.lines.append("```console")
            self.folder = here
            self.type(f"gpuq daemon start --gpus {gpus}", hidden=bool(flags))
            try:
                yield here
            finally:
                self.lines += ["```", ""]
                self.run("gpuq kill --now --yes @ 2>/dev/null; gpuq daemon stop")
                time.sleep(0.5)

    def type(self, command: str, *, hidden: bool = False) -> str:
        """Runs a command on a terminal, and shows both it and what it printed."""
        shown = self.run(command)
        if not hidden:
            self.lines += [f"$ {command}", *shown.splitlines()]
        return shown

    def run(self, command: str) -> str:
        shown = on_terminal(["sh", "-c", command], cwd=self.folder, env=self.environment)
        return shown.replace(str(self.folder), "~")

    def until(self, command: str, words: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.run(command):
            if time.monotonic() > deadline:
                raise SystemExit(f"{words!r} was not to be seen in {command!r}")
            time.sleep(0.2)


def on_terminal(command: Sequence[str], **how: Any) -> str:
    """What a command prints on a terminal, without colours."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, stdin=end, stdout=end, stderr=end, start_new_session=True, **how
    )
    os.close(end)
    text = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        text += chunk
    process.wait()
    os.close(main)
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", text).replace(b"\r\n", b"\n")
    return plain.decode(errors="replace").rstrip("\n")


def main() -> None:
    show = Show()
    show.say(
        "# What it looks like",
        "",
        "Written by `docs/transcripts.py` from true commands. The GPUs are simulated, as each screen",
        "says; the jobs are real processes.",
    )
    for part in (busy_box, packing, contention, learning, quarantine):
        part(show)
    (HERE / "transcripts.md").write_text("\n".join(show.lines).rstrip("\n") + "\n")


def busy_box(show: Show) -> None:
    show.say("## Eight GPUs at 94 to 97 %", "", "Somebody leaves, and the job starts.")
    with show.box("shared-box.toml", files=tuple(f"busy-{index}" for index in range(8))) as here:
        show.until("gpuq gpus", "carol")
        show.type("gpuq gpus")
        show.type("gpuq submit -n train sleep 600")
        show.type("gpuq why gpu:5")
        (here / "busy-5").unlink()
        left = time.monotonic()
        show.lines.append("# now carol leaves GPU 5")
        show.until("gpuq status", "R   train")
        show.lines.append(f"# {time.monotonic() - left:.1f} s later:")
        show.type("gpuq")


def packing(show: Show) -> None:
    show.say("## Twenty jobs of 5G on four GPUs of 24G")
    with show.box("sim:4x24G"):
        submit = "gpuq submit -n e$i --gpu-mem 5G sleep 600 | cat >/dev/null"
        show.type(f"for i in $(seq 20); do {submit}; done")
        show.until("gpuq status", "16 running")
        show.type("gpuq gpus")
        show.type("gpuq status --limit 5 --state queued")


def contention(show: Show) -> None:
    show.say("## Somebody lands on the GPU of a running job")
    with show.box("shared-box.toml") as here:
        show.type("gpuq submit -n train sleep 600")
        show.until("gpuq status", "R   train")
        (here / "busy-0").touch()
        show.lines.append("# carol starts something on GPU 0, without asking")
        show.until("gpuq events", "contended")
        show.type("gpuq")
        show.type("gpuq why 1")
        show.type("gpuq events | grep contended")


def learning(show: Show) -> None:
    show.say("## A request learned from the last time")
    with show.box("learned-box.toml"):
        show.type("gpuq run -n eval --gpu-mem auto sleep 8")
        show.type("gpuq show 1 | grep -i -E 'gpu|mem'")
        show.type("gpuq submit -n eval --gpu-mem auto sleep 8")
        show.until("gpuq show 2", "running")
        show.type("gpuq gpus")


def quarantine(show: Show) -> None:
    show.say("## A GPU is set aside, and comes back after a good test")
    with show.box("flaky-box.toml") as here:
        show.type("gpuq submit -n train -g 2 sleep 6")
        show.until("gpuq status", "R   train")
        (here / "card-is-broken").touch()
        show.lines.append("# the driver tells of XID 48 on GPU 1")
        show.until("gpuq gpus", "set aside")
        show.type("gpuq gpus")
        show.type("gpuq gpus resume 1")
        show.until("gpuq events", "gpu tested")
        show.type("gpuq why gpu:1")
        (here / "card-is-broken").unlink()
        show.lines.append("# the card has been seen to")
        show.type("gpuq gpus resume 1")
        show.until("gpuq events", "gpu readmitted")
        show.type("gpuq gpus")
        show.type("gpuq events | grep GPU")


if __name__ == "__main__":
    main()
