"""What a long array costs while it waits: one of a million, beside the empty queue in the same run.

    .venv/bin/python bench/long_array.py                    a table
    .venv/bin/python bench/long_array.py --elements 1000    another length
    .venv/bin/python bench/long_array.py --json             the figures

A daemon of its own with two simulated GPUs, on which two jobs sleep. A turn is measured from a wish
that changes nothing to the answer of `show` for one of the sleepers, which waits for the turn; the
same `show` without a wish stands beside it. Memory is the daemon's PSS. What says "process" is the
command line as a whole, as a terminal has it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from gpuq import Client

BIN = Path(sys.executable).parent
ROUNDS = 101
ANSWER_S = 60.0

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuq-bench-") as folder:
        figures = measure(Path(folder), asked.elements)
    print(json.dumps(figures, indent=2) if asked.json else table(figures))


def measure(folder: Path, elements: int) -> dict[str, Figures]:
    os.environ |= {"GPUQ_STATE_DIR": str(folder / "state"), "GPUQ_AUTOSTART": "0"}
    daemon = subprocess.Popen([BIN / "gpuqd", "--gpus", "sim:2x24G"], stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "state" / "gpuq.sock").exists)
        with Client() as client:
            sleepers = list(client.submit_many([{"argv": ["sleep", "1000"], "gpus": 1}] * 2))
            wait_for(lambda: all(job["state"] == "running" for job in client.jobs(sleepers)))
            empty = look(client, daemon.pid, sleepers[0])
            few = live_through(client, daemon.pid, sleepers[0], 10)
            many = live_through(client, daemon.pid, sleepers[0], elements)
            return {"empty queue": empty, "10 queued": few, f"{elements} queued": many}
    finally:
        daemon.terminate()
        daemon.wait()


def live_through(client: Client, pid: int, job: int, elements: int) -> Figures:
    """An array from its submit to its end."""
    command = ["submit", "-g", "1", "--array", f"0-{elements - 1}", "--", "true"]
    figures = {"submit, process, ms": timed(lambda: gpuq(*command))}
    group = client.job("@")["group"]
    figures |= look(client, pid, job)
    return figures | end(client, group, elements)


def look(client: Client, pid: int, job: int) -> Figures:
    def turn() -> None:
        client.drain(None)
        client.job(job)

    median_of(turn, 20)  # warm
    return {
        "turn and show, ms": median_of(turn),
        "show alone, ms": median_of(lambda: client.job(job)),
        "status folded, request, ms": median_of(lambda: client.call("status", limit=26, fold=True)),
        "status, process, ms": median_of(lambda: gpuq("--color", "always", "status"), 11),
        "memory of the daemon, MiB": memory_mib(pid),
    }


def end(client: Client, group: str, elements: int) -> Figures:
    """Somebody waits for all of them, and they are cancelled."""
    last = int(group[1:]) + elements - 1
    figures = {"show of the last, ms": median_of(lambda: client.job(last), 21)}
    waited: list[float] = []

    def wait() -> None:
        with Client() as waiter:
            waiter.call("wait", refs=[group], timeout_s=ANSWER_S)
            waited.append(time.perf_counter())

    waiting = Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    began = time.perf_counter()
    gpuq("kill", group)
    figures["kill, process, ms"] = (time.perf_counter() - began) * 1000
    waiting.join()
    figures["from kill to the answer of wait, ms"] = (waited[0] - began) * 1000
    return figures


def gpuq(*words: str) -> None:
    subprocess.run([BIN / "gpuq", *words], stdout=subprocess.DEVNULL, check=True)


def timed(deed: Callable[[], object]) -> float:
    began = time.perf_counter()
    deed()
    return (time.perf_counter() - began) * 1000


def median_of(deed: Callable[[], object], rounds: int = ROUNDS) -> float:
    return statistics.median(timed(deed) for _ in range(rounds))


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no PSS of process {pid}")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come true within 30 s")
        time.sleep(0.005)


def table(figures: dict[str, Figures]) -> str:
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    head = f"{'':38}" + "".join(f"{title:>18}" for title in figures)
    rows = [
        f"{name:38}"
        + "".join(
            f"{column[name]:>18.2f}" if name in column else f"{'-':>18}"
            for column in figures.values()
        )
        for name in names
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
