"""`gpuq doctor`: what is wrong here, and what to do about it."""

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.doctor.finding import Finding
from gpuq.cli.doctor.look_over import as_json, look_over
from gpuq.cli.render import GREEN, RED, YELLOW, Column, Look, printable, tabbed, table
from gpuq.client import Client
from gpuq.core.units import count

COLOURS = {"ok": GREEN, "warning": YELLOW, "failure": RED}


def doctor(
    context: typer.Context,
    deep: Annotated[
        bool,
        Option("--deep", help="Read all of the database and test every idle GPU, too."),
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Look over this machine and this installation; exit 1 where something is broken.

    Examples:
      gpuq doctor
      gpuq doctor --deep     is the database whole, do the GPUs compute and remember right?
      gpuq bundle            all of it in one file, for a report, without any secret

    Each thing is ok, a warning or a failure, with what to do. Nothing is changed, but that a GPU whose
    test (--deep) is bad is set aside until one is good; one in use is not tested.
    """
    look = console.look(context)
    with console.connect(context) as client:
        found = look_over(client, os.environ, deep=deep)
        findings = [finding for _, finding in found]
        if not json:
            _say(findings, look)
        tests = _test(client, look, quiet=json) if deep and _answers(found) else []
        if json:
            console.say_json(findings=as_json(found), tests=tests)
    is_broken = any(finding.level == "failure" for finding in findings)
    is_bad = any(test["verdict"] in ("bad", "undecided") for test in tests)
    return 1 if is_broken or is_bad else 0


def _answers(found: Sequence[tuple[str, Finding]]) -> bool:
    """Is there a daemon that can test its GPUs?"""
    return any(name == "gpus" for name, _ in found)


def _test(client: Client, look: Look, *, quiet: bool) -> list[dict[str, Any]]:
    from gpuq.cli.gpu_tests import run_tests

    return run_tests(client, look, quiet=quiet)


def _say(findings: Sequence[Finding], look: Look) -> None:
    if not look.terminal:
        console.say(*map(tabbed, findings))
        return
    columns = [
        Column("", lambda finding: (finding.level, COLOURS[finding.level])),
        Column("", _sentence),
    ]
    console.say(*table(columns, findings, look._replace(width=10**6))[1:])
    console.say(_summary(findings))


def _sentence(finding: Finding) -> str:
    stop = "" if finding.what.endswith(("?", ".")) else "."
    return printable(f"{finding.what}{stop} {finding.remedy}" if finding.remedy else finding.what)


def _summary(findings: Sequence[Finding]) -> str:
    levels = [finding.level for finding in findings]
    failures, warnings = levels.count("failure"), levels.count("warning")
    if not failures and not warnings:
        return "all is well"
    return f"{count(failures, 'failure')}, {count(warnings, 'warning')}"
