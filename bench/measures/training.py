"""Steps per second of a small training loop in torch, as a job of gpuq and started by hand, in turn: on
a GPU where there is one, else on one thread of a CPU."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.figures import GPUQ, LIMIT, Row, Samples, Target
from bench.peers.cast import Cast
from bench.peers.gpuq import Gpuq, gpuq_with
from bench.room import Room

PROGRAM = Path(__file__).parent.parent / "train_steps.py"
NVIDIA = Path("/dev/nvidiactl")
NO_TORCH = "torch is not installed here: pip install '.[torch]'"
WORK = "steps of a training loop"


def measure(room: Room, cast: Cast) -> list[Row]:
    if find_spec("torch") is None:
        none = Samples(why_none=NO_TORCH)
        return [Row(work=WORK, unit="a second", samples={GPUQ: none, LIMIT: none})]
    device = "cuda" if NVIDIA.exists() else "cpu"
    with gpuq_with(room, 1, gpus="nvml" if device == "cuda" else None) as gpuq:
        ways: dict[str, Callable[[], float]] = {
            LIMIT: partial(bare, room, gpuq, device),
            GPUQ: partial(as_job, room, gpuq, device),
        }
        lived = room.interleaved(ways)
    return [
        Row(
            work=f"{WORK} on {device}",
            unit="a second",
            more_is_better=True,
            samples={name: rounds.samples(lambda rate: rate) for name, rounds in lived.items()},
            limit="bare",
            targets=[Target(against=LIMIT, at_least=0.98)],
            notes=["the same as bare is wanted; 2 % is what one run differs from the next"],
        )
    ]


def bare(room: Room, gpuq: Gpuq, device: str) -> float:
    told = room.new_folder("bare") / "rate"
    subprocess.run(command(room, device, told), check=True, env=gpuq.environment)
    return float(told.read_text())


def as_job(room: Room, gpuq: Gpuq, device: str) -> float:
    told = room.new_folder("job") / "rate"
    gpuq.wait(gpuq.submit(command(room, device, told)), 1)
    return float(told.read_text())


def command(room: Room, device: str, told: Path) -> list[str]:
    seconds = f"{room.scale.training_s:g}"
    return [sys.executable, "-P", str(PROGRAM), device, seconds, str(told)]
