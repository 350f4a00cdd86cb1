"""What the probe costs: processor time a minute, for reading the GPUs every second and every five.

    .venv/bin/python bench/probe.py                 a table
    .venv/bin/python bench/probe.py --seconds 60    each measured for so long
    .venv/bin/python bench/probe.py --json          the figures

Three kinds of GPUs: eight simulated ones, eight that a story moves, and two behind the true wrappers
of NVML over a library that answers at once (built by `cc` from the stub of the tests). The last shows
what gpuq and the wrappers take, and nothing of what a driver takes. Memory is PSS.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from gpuq.daemon.gpus.keeper import Probe

STUB = Path(__file__).parent.parent / "tests" / "daemon" / "gpus" / "libnvidia_stub.c"
WARM_S = 3.0  # a new process imports, and reads all tiers once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        has_stub = build_stub(Path(folder))
        if has_stub:
            os.environ["LD_LIBRARY_PATH"] = folder
        kinds = ["sim:8x80G", "scenario:shared-box", *(["nvml"] if has_stub else [])]
        rows = [
            asyncio.run(measure(kind, every_s, asked.seconds))
            for kind in kinds
            for every_s in (1.0, 5.0)
        ]
    if asked.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'GPUs':<32}{'every':>7}{'ms CPU/min':>12}{'of a core':>11}{'PSS':>9}")
    for row in rows:
        print(
            f"{row['kind']:<32}{row['every_s']:>6g}s{row['cpu_ms_per_minute']:>12.0f}"
            f"{row['cpu_ms_per_minute'] / 600:>10.2f}%{row['pss_mb']:>6.1f} MB"
        )


def build_stub(folder: Path) -> bool:
    library = folder / "libnvidia-ml.so.1"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, STUB]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("no C compiler: NVML is left out")
        return False
    return True


async def measure(kind: str, every_s: float, seconds: float) -> dict[str, object]:
    """Seconds of user and system time of the probe process while it is read at that pace."""
    pids: list[int] = []
    counts: list[int] = []
    probe = Probe(
        kind,
        on_reading=lambda gpus: counts.append(len(gpus)),
        on_trouble=lambda why: print(f"{kind}: {why}") if why else None,
        on_started=lambda pid, start: pids.append(pid),
    )
    probe.interval_s = every_s
    running = asyncio.ensure_future(probe.run())
    try:
        await asyncio.sleep(WARM_S)
        before, readings, began = cpu_s(pids[-1]), len(counts), time.monotonic()
        await asyncio.sleep(seconds)
        used = cpu_s(pids[-1]) - before
        took = time.monotonic() - began
        return {
            "kind": f"{kind} ({counts[-1]} GPUs)",
            "every_s": every_s,
            "seconds": took,
            "readings": len(counts) - readings,
            "cpu_ms_per_minute": used * 1000 * 60 / took,
            "pss_mb": pss_mb(pids[-1]),
        }
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def cpu_s(pid: int) -> float:
    """From the scheduler's own count in ns, finer than the ticks of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
