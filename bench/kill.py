"""How long it takes to end a tree of twelve processes, beside task-spooler's `tsp -k`, interleaved.

    .venv/bin/python bench/kill.py            a table
    .venv/bin/python bench/kill.py --json     the figures

The tree is a shell, ten sleepers below it, and one that has left the session by setsid and a double
fork and ignores TERM. Measured is from the call of the command line, as a whole process, to the
moment at which the last of the eleven that task-spooler can reach is gone; whether the twelfth lives
on is told beside it. `gpuq kill --now` sends KILL, `tsp -k` TERM, which the eleven obey: both at
their fastest. task-spooler gets a server of its own each time, as after such a job it ends no other.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
TREE = """
import os, signal, subprocess, sys, time
folder = sys.argv[1]
pids = [os.getpid()] + [subprocess.Popen(["sleep", "1000"]).pid for _ in range(10)]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(folder + "/escaped.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(folder + "/escaped.new", folder + "/escaped")
        time.sleep(1000)
    os._exit(0)
os.wait()
with open(folder + "/pids.new", "w") as file:
    file.write(" ".join(map(str, pids)))
os.rename(folder + "/pids.new", folder + "/pids")
time.sleep(1000)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuq-bench-") as folder:
        figures = measure(Path(folder), asked.rounds)
    print(json.dumps(figures, indent=2) if asked.json else table(figures))


def measure(folder: Path, rounds: int) -> dict[str, dict[str, object]]:
    environment = os.environ | {
        "GPUQ_STATE_DIR": str(folder / "state"),
        "GPUQ_AUTOSTART": "0",
        "TMPDIR": str(folder),
    }
    tools = {"gpuq kill --now": run_gpuq}
    if shutil.which("tsp"):
        tools["tsp -k"] = run_tsp
    else:
        print("task-spooler is not installed: apt-get install task-spooler", file=sys.stderr)
    daemon = subprocess.Popen(
        [BIN / "gpuqd", "--gpus", "none"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_for((folder / "state" / "gpuq.sock").exists)
        took: dict[str, list[float]] = {name: [] for name in tools}
        escaped: dict[str, int] = dict.fromkeys(tools, 0)
        for number in range(rounds):
            for name, tool in tools.items():
                milliseconds, lives = one_round(
                    folder / f"{number}-{tool.__name__}", tool, environment
                )
                took[name].append(milliseconds)
                escaped[name] += lives
    finally:
        daemon.terminate()
        daemon.wait()
    return {
        name: {
            "median_ms": round(statistics.median(took[name]), 1),
            "least_ms": round(min(took[name]), 1),
            "most_ms": round(max(took[name]), 1),
            "escaped": f"{escaped[name]} of {rounds}",
        }
        for name in tools
    }


def one_round(folder: Path, tool: object, environment: dict[str, str]) -> tuple[float, int]:
    """Milliseconds to the end of the eleven, and whether the twelfth lives on."""
    folder.mkdir()
    environment = environment | {"TS_SOCKET": str(folder / "tsp.sock")}
    kill = tool([sys.executable, "-c", TREE, str(folder)], environment)  # type: ignore[operator]
    wait_for(lambda: (folder / "pids").exists() and (folder / "escaped").exists())
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    twelfth = int((folder / "escaped").read_text())
    began = time.perf_counter()
    subprocess.run(kill, env=environment, stdout=subprocess.DEVNULL, check=True)
    wait_for(lambda: not any(map(lives, pids)), pause_s=0.0005)
    took_ms = (time.perf_counter() - began) * 1000
    time.sleep(0.2)
    if kill[0] == "tsp":
        subprocess.run(["tsp", "-K"], env=environment, check=False)
    if not lives(twelfth):
        return took_ms, 0
    os.kill(twelfth, signal.SIGKILL)
    return took_ms, 1


def run_gpuq(argv: list[str], environment: dict[str, str]) -> list[str | Path]:
    submit = [BIN / "gpuq", "submit", "-g", "0", "--", *argv]
    job = subprocess.run(submit, env=environment, capture_output=True, text=True, check=True)
    return [BIN / "gpuq", "kill", "--now", job.stdout.strip()]


def run_tsp(argv: list[str], environment: dict[str, str]) -> list[str | Path]:
    submit = ["tsp", "-n", *argv]
    job = subprocess.run(submit, env=environment, capture_output=True, text=True, check=True)
    return ["tsp", "-k", job.stdout.strip()]


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return False
    return line[line.rfind(b")") + 2 :][:1] not in (b"Z", b"X")


def wait_for(condition: object, pause_s: float = 0.005) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come true within 30 s")
        time.sleep(pause_s)


def table(figures: dict[str, dict[str, object]]) -> str:
    head = f"{'':16} {'median ms':>10} {'least':>8} {'most':>8}   the twelfth lives on"
    rows = [
        f"{name:16} {f['median_ms']:>10} {f['least_ms']:>8} {f['most_ms']:>8}   {f['escaped']}"
        for name, f in figures.items()
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
