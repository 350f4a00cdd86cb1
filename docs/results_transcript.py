"""Writes docs/results-transcript.md: a sweep of twelve trials of real torch, watched from outside.

    .venv/bin/python docs/results_transcript.py

The GPUs are simulated and say so; the trials are real and compute on the CPU. Takes a minute or two.
"""

import json
import shutil
import sys
import time
from typing import Any

from transcripts import HERE, Show

SWEEP = HERE.parent / "examples" / "sweep" / "train.py"
GRID = "--grid lr=0.1,0.03,0.003,1e38 --grid width=16,32,64"


def main() -> None:
    show = Show()
    show.say(
        "# A sweep, from the first trial to the bill",
        "",
        "Written by `docs/results_transcript.py` from true commands. The GPUs are simulated, as each",
        "screen says; the twelve trials are [a real network](../examples/sweep/train.py) of torch.",
        "One of the learning rates is far too large, so three of them fail.",
    )
    with show.box("sim:4x24G") as here:
        shutil.copy(SWEEP, here)
        (here / "python").symlink_to(sys.executable)
        show.type(f"gpuq submit -n spirals {GRID} -- python train.py --lr {{lr}} --width {{width}}")
        group = until_ended(show, 5)
        show.lines.append("# when five have ended")
        show.type("gpuq group g1 --best acc:max")
        show.type("gpuq")
        show.run("gpuq wait g1")
        show.lines += ["# when all have ended", truth(show, group["estimated_end"])]
        for command in (
            "gpuq group g1 --best acc:max --sort loss",
            "for name in one two; do gpuq group g1 --export $name.csv; done; cmp one.csv two.csv",
            "head -3 one.csv",
            "gpuq show 2",
            "gpuq history --failed",
            "gpuq errors --by signature",
            "gpuq stats",
            "gpuq usage --by gpu --price 1.006",
            "gpuq metrics | grep -v '^#' | head -20",
            "gpuq events --since 0 | tail -8",
        ):
            show.type(command)
    (HERE / "results-transcript.md").write_text("\n".join(show.lines).rstrip("\n") + "\n")


def until_ended(show: Show, number: int) -> dict[str, Any]:
    """The group once so many of its jobs have ended."""
    while True:
        group: dict[str, Any] = json.loads(show.run("gpuq group g1 --limit 0 --json"))["group"]
        if group["succeeded"] + group["failed"] >= number:
            return group
        time.sleep(0.2)


def truth(show: Show, expected: dict[str, Any]) -> str:
    """The end that was expected, held against the one that came."""
    jobs = json.loads(show.run("gpuq history --json"))["jobs"]
    late_s = max(job["ended_at"] for job in jobs) - expected["at"]
    span_s = (expected["latest_at"] - expected["earliest_at"]) / 2
    when = f"{abs(late_s):.0f} s {'later' if late_s > 0 else 'sooner'}"
    return f"# the last one ended {when} than was expected then, give or take {span_s:.0f} s"


if __name__ == "__main__":
    main()
