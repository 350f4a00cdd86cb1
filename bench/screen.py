"""What the screen costs: in a real terminal of 160x48, beside others in the same terminal.

    .venv/bin/python bench/screen.py                     the tables, in about five minutes
    .venv/bin/python bench/screen.py --seconds 60        each measured so long (20)
    .venv/bin/python bench/screen.py --out screen.json   the figures too
    .venv/bin/python bench/screen.py --nvitop PATH       nvitop from another environment

A daemon of its own with simulated GPUs on which something happens every second: utilisation goes up
and down, memory fills, jobs draw progress bars. The first frame is counted from exec to the first
bytes that name a job, by the clock and in CPU time of the process. The share of a core is the CPU time
of the process with all its threads, as the kernel has it (schedstat), over the time measured; the
daemon and the terminal are not in it.

nvitop and nvtop need NVIDIA's driver; where there is none, they are run against the stand-in for it
that the tests have (two cards whose figures do not move), and the table says so. htop and btop know
nothing of GPUs and are a yardstick for a screen at that rate.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ctypes.util import find_library
from itertools import chain
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpuq import Client
from tests.tui.window import Window

BIN = Path(sys.executable).parent
STUB = Path(__file__).parent.parent / "tests" / "daemon" / "gpus" / "libnvidia_stub.c"
SIZE = (160, 48)
STARTS = 5
PATIENCE_S = 20.0
WARM_S = 5.0  # not counted: what follows the first frame, and with many jobs,
WARM_LONG_S = 25.0  # the rest of the picture, which comes in parts
BAR = (
    'i=0; while :; do i=$((i+1)); printf "\\r%3d%%|####      | %d/5000" $((i/50)) $i; sleep 1; done'
)
SEEN, UNSEEN = "\x1b[I", "\x1b[O"
ASKS_FOR_FRAMES = b"\x1b[?2026$p"  # whether the terminal draws whole frames at once, as most do
DRAWS_FRAMES = b"\x1b[?2026;2$y"


class Cost(NamedTuple):
    """None: it was not measured, for the reason in `note`."""

    what: str
    first_frame_s: float | None = None
    first_frame_cpu_s: float | None = None
    core_percent: float | None = None
    bytes_per_s: float | None = None
    memory_mb: float | None = None
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--nvitop", default=shutil.which("nvitop") or str(BIN / "nvitop"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuq-bench-") as folder:
        costs = []
        for cost in chain(ours(Path(folder), asked.seconds), others(Path(folder), asked)):
            print(cost, file=sys.stderr, flush=True)
            costs.append(cost)
    print(table(costs))
    if asked.out is not None:
        figures = [cost._asdict() for cost in costs]
        asked.out.write_text(json.dumps({"size": SIZE, "costs": figures}, indent=2) + "\n")


def ours(folder: Path, seconds: float) -> Iterator[Cost]:
    with box(folder / "a", gpus=8, jobs=200) as env:
        yield of_gpuq("8 GPUs, 200 jobs", env, seconds)
        yield of_gpuq("the same, log open", env, seconds, keys=("l",))
        yield of_gpuq("the same, out of focus", env, seconds, keys=(UNSEEN,))
    with box(folder / "b", gpus=16, jobs=10_000) as env:
        yield of_gpuq("16 GPUs, 10,000 jobs", env, seconds, warm_s=WARM_LONG_S)
        yield of_gpuq("the same, out of focus", env, seconds, (UNSEEN,), WARM_LONG_S)
    with box(folder / "c", gpus=0, jobs=200) as env:
        yield of_gpuq("200 jobs, nothing changes", env, seconds)
        yield of_gpuq("the same, out of focus", env, seconds, keys=(UNSEEN,))


def of_gpuq(
    what: str,
    env: Mapping[str, str],
    seconds: float,
    keys: Sequence[str] = (),
    warm_s: float = WARM_S,
) -> Cost:
    command = [str(BIN / "gpuq"), "top"]
    begun = first_frames(command, env, b"bench-")
    measured = measure(command, env, b"bench-", seconds, (SEEN, *keys), warm_s)
    return measured._replace(what=f"gpuq top: {what}", **begun)


def others(folder: Path, asked: argparse.Namespace) -> Iterator[Cost]:
    """At one look a second, as far as they let themselves be told."""
    yield of_nvidia("nvitop", asked.nvitop, ["--monitor", "full", "--interval", "1"], folder, asked)
    yield of_nvidia("nvtop", shutil.which("nvtop"), ["-d", "10"], folder, asked)
    yield of_other("htop", ["-d", "10"], b"PID", clean() | {"HOME": str(folder)}, asked.seconds)
    settings = folder / "btop" / "btop.conf"
    settings.parent.mkdir()
    settings.write_text("update_ms = 1000\n")
    btop = clean() | {"XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    yield of_other("btop", ["--utf-force"], b"proc", btop, asked.seconds)


def of_nvidia(
    name: str, program: str | None, words: Sequence[str], folder: Path, asked: argparse.Namespace
) -> Cost:
    if program is None or not Path(program).exists():
        return Cost(name, note="not installed here")
    env, note = clean() | {"HOME": str(folder)}, "its own driver"
    if find_library("nvidia-ml") is None:
        library = folder / "driver" / "libnvidia-ml.so.1"
        library.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, STUB], check=True)
        env["LD_LIBRARY_PATH"] = str(library.parent)
        note = "no driver here: against the tests' stand-in"
    cost = of_other(program, words, b"GPU", env, asked.seconds)
    return cost._replace(what=name, note=cost.note or note)


def of_other(
    program: str, words: Sequence[str], shown: bytes, env: Mapping[str, str], seconds: float
) -> Cost:
    if shutil.which(program) is None:
        return Cost(program, note="not installed here")
    command = [program, *words]
    try:
        begun = first_frames(command, env, shown)
        measured = measure(command, env, shown, seconds)
    except NotShown as error:
        return Cost(program, note=f"does not run here: {error}")
    return measured._replace(what=program, **begun)


class Counted(Window):
    """A terminal that draws nothing, so that it takes no time from what is measured."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.began = time.monotonic()
        super().__init__(command, columns=SIZE[0], rows=SIZE[1], environment=dict(env))

    def read(self) -> None:
        while self.wait_for_more(0):
            try:
                data = os.read(self._ours, 1 << 16)
            except OSError:
                return
            self.raw += data
            if ASKS_FOR_FRAMES in data:
                self.press(DRAWS_FRAMES)

    def until_shown(self, what: bytes) -> float:
        """Seconds since it was started."""
        while what not in self.raw:
            self.wait_for_more(0.1)
            self.read()
            if self.process.poll() is not None or time.monotonic() > self.began + PATIENCE_S:
                raise NotShown(_last_line(self.raw))
        return time.monotonic() - self.began

    def drain(self, seconds: float) -> float:
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            self.wait_for_more(left)
            self.read()
            if self.process.poll() is not None:
                raise NotShown(f"it left: {_last_line(self.raw[-4096:])}")
        return time.monotonic() - began

    def leave(self) -> None:
        """By its key, once more where it came before anybody read it."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.press("q")
            self.drain_until_ended(0.5)

    def drain_until_ended(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.wait_for_more(0.02)
            self.read()


class NotShown(Exception):
    """Says what was seen instead."""


def _last_line(raw: bytes) -> str:
    plain = re.sub(rb"\x1b(?:\[[0-9;?<>=$]*[@-~]|[()].|.)", b"", raw).decode(errors="replace")
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[-1][:100] if lines else "nothing is drawn"


def first_frames(command: Sequence[str], env: Mapping[str, str], shown: bytes) -> dict[str, float]:
    """The median of some starts: by the clock, which others on the machine make late, and of a CPU."""
    by_clock, of_cpu = [], []
    for _ in range(STARTS):
        with Counted(command, env) as terminal:
            by_clock.append(terminal.until_shown(shown))
            of_cpu.append(cpu_s(terminal.process.pid))
            terminal.leave()
    return {
        "first_frame_s": statistics.median(by_clock),
        "first_frame_cpu_s": statistics.median(of_cpu),
    }


def measure(
    command: Sequence[str],
    env: Mapping[str, str],
    shown: bytes,
    seconds: float,
    keys: Sequence[str] = (),
    warm_s: float = WARM_S,
) -> Cost:
    with Counted(command, env) as terminal:
        terminal.until_shown(shown)
        terminal.drain(warm_s)
        for key in keys:
            terminal.press(key)
        terminal.drain(1.0)
        bytes_before, cpu_before = len(terminal.raw), cpu_s(terminal.process.pid)
        took_s = terminal.drain(seconds)
        cpu = cpu_s(terminal.process.pid) - cpu_before
        memory = pss_mb(terminal.process.pid)
        written = len(terminal.raw) - bytes_before
        terminal.leave()
    return Cost(
        command[0],
        core_percent=100 * cpu / took_s,
        bytes_per_s=written / took_s,
        memory_mb=memory,
    )


def cpu_s(pid: int) -> float:
    """Of all threads, in nanoseconds as the scheduler counts them."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def clean() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUQ_", "XDG_", "TERM"))}
    return kept | {"LANG": "C.UTF-8", "TERM": "xterm-256color"}


@contextmanager
def box(folder: Path, *, gpus: int, jobs: int) -> Iterator[dict[str, str]]:
    """A daemon with so many GPUs, each with a job, and the rest of the jobs in the queue. All of it
    ends with this process, however that ends."""
    folder.mkdir()
    held, leash = os.pipe()
    env = clean() | {"GPUQ_STATE_DIR": str(folder / "state"), "GPUQ_AUTOSTART": "0"}
    env["HOME"] = str(folder)
    backend = f"scenario:{story(folder, gpus)}" if gpus else "none"
    command = [BIN / "gpuqd", "--state-dir", folder / "state", "--gpus", backend]
    command += ["--throwaway", str(held)]
    with (folder / "gpuqd.log").open("wb") as log:
        daemon = subprocess.Popen(command, env=env, stderr=log, pass_fds=[held])
    try:
        while not (folder / "state" / "gpuq.sock").exists():
            if daemon.poll() is not None:
                raise SystemExit((folder / "gpuqd.log").read_text())
            time.sleep(0.01)
        with Client(state_dir=str(folder / "state")) as client:
            fill(client, gpus, jobs)
            yield env
    finally:
        os.close(held)
        os.close(leash)
        daemon.wait()


def fill(client: Client, gpus: int, jobs: int) -> None:
    """Each by itself: jobs of one group would be one line."""

    def submit(index: int) -> None:
        if index < gpus:
            client.submit(["sh", "-c", BAR], gpus=1, name=f"bench-{index}")
            return
        command = ["python", "train.py", "--seed", str(index)]
        client.submit(command, gpus=1 if gpus else 0, held=not gpus, name=f"bench-{index}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(submit, range(gpus)))
        while len(client.jobs(states=["running"])) < gpus:
            time.sleep(0.05)
        list(pool.map(submit, range(gpus, jobs)))


def story(folder: Path, gpus: int) -> Path:
    """Jobs that compute by fits and starts for most of an hour."""
    points = [[f"{3 * step}s", 60 + step * 17 % 40] for step in range(1000)]
    text = f"""
[[gpu]]
count = {gpus}
model = "NVIDIA H100 80GB HBM3"
memory = "80G"

[[jobs]]
undeclared = "70G"
ramp = "10m"
utilization = {json.dumps(points)}
"""
    path = folder / "box.toml"
    path.write_text(text)
    return path


def table(costs: Sequence[Cost]) -> str:
    def cell(value: float | None, unit: str, places: int) -> str:
        return "–" if value is None else f"{value:.{places}f}{unit}"

    rows = [("", "first frame", "CPU to it", "of a core", "to the terminal", "memory", "")]
    for cost in costs:
        kilobytes = None if cost.bytes_per_s is None else cost.bytes_per_s / 1000
        rows.append(
            (
                cost.what,
                cell(cost.first_frame_s, " s", 2),
                cell(cost.first_frame_cpu_s, " s", 2),
                cell(cost.core_percent, " %", 2),
                cell(kilobytes, " kB/s", 2),
                cell(cost.memory_mb, " MB", 0),
                cost.note,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in (0, 6) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    main()
