"""The jobs that a file in a spool folder asks for, by its name and what it holds."""

import json
import os
from inspect import signature
from typing import Any, cast

import typer

from gpuq.cli import console
from gpuq.cli.asking import ask_script
from gpuq.cli.commands import load
from gpuq.cli.job_options import describe
from gpuq.cli.lines import read_line
from gpuq.cli.many_options import MANY
from gpuq.cli.script import Script
from gpuq.core.asked.scripts import directives
from gpuq.errors import UsageError

Job = dict[str, Any]


def jobs_in(context: typer.Context, name: str, data: bytes) -> list[Job]:
    """As `Client.submit_many` takes them; UsageError where the file is no such thing. They run where
    this process is, unless the file says something else."""
    kind = name.rpartition(".")[2].lower()
    if kind == "toml":
        from gpuq.cli.pipeline_file import read_pipeline

        return read_pipeline(name, data, os.getcwd()).jobs()
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if "\0" in text:
        raise UsageError("it holds a NUL byte, and so is no text")
    if kind == "json":
        return _from_json(text)
    if kind == "jsonl":
        return _from_lines(text)
    return [_from_script(context, name, text)]


def _from_json(text: str) -> list[Job]:
    """One object, or a list of them."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise UsageError(f"it is no JSON: {error}") from None
    entries = said if isinstance(said, list) else [said]
    return [job for entry in entries if (job := _entry(entry)) is not None]


def _entry(said: Any) -> Job | None:
    if not isinstance(said, dict):
        raise UsageError("a job is an object of JSON with argv or shell in it")
    return read_line(json.dumps(said))


def _from_lines(text: str) -> list[Job]:
    jobs = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            job = read_line(line)
        except UsageError as error:
            raise UsageError(f"line {number}: {error}") from None
        if job is not None:
            jobs.append(job)
    return jobs


def _from_script(context: typer.Context, name: str, text: str) -> Job:
    """With no options beside those that it says itself."""
    usual = load("submit").make_context("submit", [], obj=context.obj)
    known = {*signature(describe).parameters, *MANY} - {"words"}
    options = {option: value for option, value in usual.params.items() if option in known}
    said = list(directives(text))
    script = Script(name=name, path=os.path.abspath(name), text=text, directives=said)
    job = ask_script(cast("typer.Context", usual), script, [name], options)
    console.say_kept(cast("typer.Context", usual))
    return job
