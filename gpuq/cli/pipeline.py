"""`gpuq submit --pipeline`: the stages of a file, queued in one go."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, TypeAlias

import typer

from gpuq.cli import console
from gpuq.cli.ending import exit_code, own_failures
from gpuq.cli.job_options import describe
from gpuq.cli.job_text import farewell
from gpuq.cli.many_options import many_at_once
from gpuq.cli.pipeline_file import Pipeline, read_pipeline
from gpuq.cli.render import Column, Look, printable, tabbed, table
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.errors import UsageError

Job: TypeAlias = Any


def check_alone(words: Sequence[str] | None, follow: bool, options: Mapping[str, Any]) -> None:
    """Beside a pipeline nothing is said about a job: its stages say that themselves."""
    if follow:
        raise UsageError("--follow shows one log, and a pipeline has several; see gpuq logs JOB")
    if words:
        raise UsageError(f"--pipeline holds the commands, so {words[0]!r} has no place beside it")
    own = [*signature(describe).parameters.values(), *signature(many_at_once).parameters.values()]
    usual = {parameter.name: parameter.default for parameter in own}
    said = [name for name, value in options.items() if value not in (None, [], usual.get(name))]
    if said:
        option = f"--{said[0].replace('_', '-')}"
        raise UsageError(f"{option} stands in the pipeline's file: {said[0]} = …")


def submit_pipeline(
    context: typer.Context, path: str, *, wait: bool, json: bool, dry_run: bool
) -> int:
    """All of its stages or none. With `wait` the highest of their codes."""
    pipeline = read_pipeline(path)
    if dry_run:
        from gpuq.cli.dry_run import show_verdicts

        with console.connect(context) as client:
            stages = [stage.name for stage in pipeline.stages]
            return show_verdicts(client, pipeline.jobs(), json, stages=stages)
    with console.connect(context, autostart=True) as client:
        entries = client.submit_entries(pipeline.jobs())
        if not (wait and json):
            _say(context, client, pipeline, entries, json)
        return _await(client, entries, json) if wait else 0


def _say(
    context: typer.Context, client: Client, pipeline: Pipeline, entries: list[range], json: bool
) -> None:
    look = console.look(context)
    named = list(zip(pipeline.stages, entries, strict=True))
    if not json and not look.terminal:
        console.say(*(tabbed([_ids(ids), stage.name]) for stage, ids in named))
        return
    refs = [_ids(ids) for ids in entries]
    jobs = (
        client.call("status", refs=refs, after_turn=True)["jobs"] if not json else client.jobs(refs)
    )
    if json:
        console.say_json(jobs=jobs)
        return
    first = {job["id"]: job for job in jobs}
    rows = [
        {"ids": _ids(ids), "stage": stage.name, "job": first.get(ids[0])} for stage, ids in named
    ]
    said = f"Pipeline {printable(pipeline.name)}: {count(len(rows), 'stage')} queued"
    console.say(f"{said}, group {_group(jobs)}", *_table(rows, look))
    hint = f"  look: gpuq status {_group(jobs)}      stop: gpuq kill {_group(jobs)}"
    console.say(console.hint(context, hint))


def _table(rows: list[Job], look: Look) -> list[str]:
    columns = [
        Column("ID", lambda row: row["ids"]),
        Column("STAGE", lambda row: printable(row["stage"])),
        Column("STATE", lambda row: row["job"]["state"] if row["job"] else "queued"),
        Column("REASON", lambda row: printable((row["job"] or {}).get("reason") or "")),
    ]
    return table(columns, rows, look)


def _group(jobs: list[Job]) -> str:
    return str(jobs[0]["group"]) if jobs else "@"


def _ids(ids: range) -> str:
    return str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}"


def _await(client: Client, entries: list[range], json: bool) -> int:
    with own_failures():
        jobs = client.wait([_ids(ids) for ids in entries])
    if json:
        console.say_json(jobs=jobs)
    for job in jobs:
        if exit_code(job):
            console.note(farewell(job))
    return max(map(exit_code, jobs), default=0)
