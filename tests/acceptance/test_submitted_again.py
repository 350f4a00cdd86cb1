"""The line by which `gpuq show` says a job would be submitted again submits the same job."""

import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.declaring import declared
from gpuq.cli.job_options import describe
from tests.conftest import Daemon

# Each with all that can be said beside the rest; job 1 has ended, and its group is g1.
LINES = {
    "shared": "--gpu-mem 8G --max-util 50 --gpu-model Sim --visible uuid --cpu-after 9h --hold",
    "alone": "-g 2 --gpu-mem 8G --exclusive --gpu-id 0-2 --exclude-gpu 1 --hold",
    "learned": "--gpu-mem auto -n known --hold",
    "bounds": "-g 0 -c 1 --mem 2G -p -3 --preemptible --preempt-signal USR1 --hold",
    "ends": "-t 90m --heartbeat 20s --grace 33s --stop-to main --on-kill 'echo \"$0\"' --hold "
    "--retries 2 --backoff 2s,4s --retry-on oom,exit:75 --on-failure stop:3 --key 'a key'",
    "output": "-o out-%j.txt --stderr err.txt --on-start 'echo go' --on-end 'echo over' --hold",
    "words": "-n 'a name' --tag one --tag two -e 'A=b c' -e EMPTY= --seed 7 -C / --hold",
    "later": "--begin '2099-01-01T10:00' --after 1:any",
    "element": "--array 3 --grid 'lr=0.1' --seed 9 --grace 1m -o 'o-{lr}.txt' --hold",
}
# Other words for those above, and what wants settings or a work tree.
ELSEWHERE = {"dependency", "env_file", "shell", "queue", "snapshot"}
ITS_OWN = {
    *(
        "id",
        "group",
        "submitted_at",
        "log",
        "output_dir",
        "snapshot",
        "reason",
        "place",
        "place_of",
    ),
    *("attempts", "differs_in", "delayed_until", "after", "expected_start"),
}


@pytest.mark.parametrize("kind", LINES)
def test_the_line_submits_the_same_job(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    daemon.gpuq("submit", "-g", "0", "true")
    daemon.gpuq("wait", "1")
    words = ["submit", *shlex.split(LINES[kind]), "--", "sh", "-c", 'echo "$A" {lr}', "it's"]
    ran = daemon.gpuq(*words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    first = shown(daemon, "2")
    line = submit_again(daemon, "2")
    daemon.gpuq("kill", "2")
    ran = daemon.gpuq(*line[1:], cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert shown(daemon, "3") == first


def test_every_option_of_submit_is_tried_here() -> None:
    """Who adds an option adds it to the line that `gpuq show` tells, and above."""
    offered = {
        name: {f"--{name.replace('_', '-')}", *_spellings(parameter.annotation.__metadata__[0])}
        for name, parameter in inspect.signature(declared(describe)).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    said = {word for line in LINES.values() for word in shlex.split(line)}
    assert {name for name, words in offered.items() if said.isdisjoint(words)} == ELSEWHERE


def _spellings(option: Any) -> tuple[str, ...]:
    """typer takes the first for a default value."""
    return (option.default, *option.param_decls)


def test_what_the_line_cannot_say_is_said_beside_it(daemon: Daemon) -> None:
    daemon.gpuq("submit", "-g", "0", "-e", "TOKEN=secret", "--hold", "true")
    said = daemon.gpuq("show", "1").stdout
    assert "secret" not in said
    assert "without\tthe values of TOKEN, which -e set: gpuq show --with-env 1\n" in said
    line = next(line for line in said.splitlines() if line.startswith("submit again"))
    ran = daemon.gpuq(*shlex.split(line.partition("\t")[2])[1:])
    assert (ran.returncode, ran.stderr) == (2, "gpuq: -e: 'TOKEN' is no K=V\n")


def shown(daemon: Daemon, job: str) -> dict[str, Any]:
    (view,) = json.loads(daemon.gpuq("show", "--json", "--with-env", job).stdout)["jobs"]
    view["environment"] = [one for one in view["environment"] if not one.startswith("PWD=")]
    needs = [(need["jobs"], need["when"]) for need in view["after"]]
    begins = view["delayed_until"]
    kept = {name: value for name, value in view.items() if name not in ITS_OWN}
    return kept | {"needs": needs, "begins": begins}


def submit_again(daemon: Daemon, job: str) -> list[str]:
    lines = daemon.gpuq("show", "--with-env", job).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("submit again")]
    return shlex.split(line.partition("\t")[2])
