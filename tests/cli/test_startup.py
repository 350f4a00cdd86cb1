"""What a command may not import: it is started anew for every question and pays for it each time.

typer itself brings subprocess, inspect and their like; what it brings is not counted, and what we
bring beyond it is held against a list.
"""

import json
import subprocess
import sys

import pytest

from tests.cli.said import FakeDaemon, ended, in_full, job, page

FORBIDDEN = {
    "asyncio",
    "concurrent",
    "dataclasses",
    "logging",
    "multiprocessing",
    "pickle",
    "psutil",
    "pygments",
    "pynvml",
    "apsw",
    "rich",
    "structlog",
    "subprocess",
    "tempfile",
    "textual",
    "tomllib",
    "torch",
    "uuid",
    "gpuq.autostart",
    "gpuq.config",
    "gpuq.core.decisions",
    "gpuq.core.gpus.gpu",
    "gpuq.core.model",
    "gpuq.core.policy",
    "gpuq.core.scheduling.scheduler",
    "gpuq.core.asked.spec",
    "gpuq.core.states",
    "gpuq.daemon",
    "gpuq.demo",
    "gpuq.tui",
}

# One family's module must not bring in another's.
FAMILIES = {"completion", "daemon", "demo", "doctor", "gpus", "jobs", "kill", "logs", "submit"}

SCRIPT = """
import json, sys
import typer
before = set(sys.modules)
from gpuq.cli.main import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(set(sys.modules) - before)]), file=sys.stderr)
"""


def imported(fake: FakeDaemon, *words: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--socket", fake.path, *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    return set(modules)


@pytest.fixture
def answering(fake: FakeDaemon) -> FakeDaemon:
    fake.answers["status"] = page(job(184))
    fake.answers["show"] = {"job": in_full(ended(184, log="/dev/null", output_dir="/dev/null"))}
    fake.answers["submit"] = {"first": 184, "count": 1, "group": "g184", "note": None}
    held = {"id": 184, "last_id": 184, "done": "already", "why": None, "by": "alice"}
    fake.answers |= {do: {"jobs": [held]} for do in ("hold", "edit")}
    fake.answers["kill"] = {"jobs": [{"id": 184, "done": "cancelled", "grace_s": None}]}
    fake.answers["gpus"] = page()
    fake.answers["history"] = {"jobs": [], "after": None}
    fake.answers |= {do: {do: [], "more": 0, "since": None} for do in ("stats", "errors")}
    usage = {"users": [], "total": {}, "more": 0, "since": 0.0, "fair_share": False}
    fake.answers["usage"] = usage | {"half_life_s": 1.0}
    return fake


@pytest.mark.parametrize(
    ("words", "family"),
    [
        ([], "jobs"),
        (["status"], "jobs"),
        (["--color", "always", "status"], "jobs"),
        (["status", "--json"], "jobs"),
        (["status", "--since", "2h", "--sort", "-started", "-o", "id,time"], "jobs"),
        (["show", "184"], "jobs"),
        (["why", "184"], "jobs"),
        (["history", "--since", "2h"], "jobs"),
        (["stats", "--by", "user"], None),
        (["errors"], None),
        (["usage", "--price", "1.006"], None),
        (["kill", "184"], "kill"),
        (["hold", "184"], None),
        (["edit", "184", "-n", "new"], None),
        (["logs", "184"], "logs"),
        (["output", "184"], None),
        (["submit", "true"], "submit"),
        (["submit", "--begin", "18:00", "true"], "submit"),
        (["--color", "always", "submit", "-g", "2", "true"], "submit"),
        (["gpus"], "gpus"),
        (["report", "loss=1"], None),
        (["--version"], None),
        (["--help"], None),
        (["submit", "--help"], "submit"),
    ],
)
def test_a_command_imports_what_it_needs_and_no_more(
    answering: FakeDaemon, words: list[str], family: str | None
) -> None:
    modules = imported(answering, *words)
    tops = {name.split(".")[0] for name in modules}
    assert not FORBIDDEN & (modules | tops)
    loaded = {name for name in FAMILIES if f"gpuq.cli.{name}" in modules}
    assert "gpuq.cli.watch" not in modules
    assert loaded - {"jobs"} <= {family}  # `kill` takes the words for states from there


def test_the_outcome_is_judged_by_the_core_and_only_at_the_end(answering: FakeDaemon) -> None:
    answering.answers["status"] = page(ended(184, outcome="succeeded", exit_code=0))
    answering.answers["wait"] = {"timed_out": False, "ended": "184"}
    modules = imported(answering, "wait", "184")
    assert "gpuq.core.ends.codes" in modules
    assert not {"asyncio", "rich", "tomllib", "gpuq.config", "gpuq.daemon"} & modules
