"""Many jobs under one name: an array as it is queued, and the end of a whole group."""

from typing import Any

import typer

from gpuq.cli import console
from gpuq.cli.ending import exit_code, own_failures
from gpuq.cli.gpu_text import are_simulated
from gpuq.cli.job_text import farewell, greeting
from gpuq.client import Client
from gpuq.core.units import count

SHOWN_FAILURES = 10


def submit_array(
    context: typer.Context, client: Client, asked: dict[str, Any], *, wait: bool, json: bool
) -> int:
    answer = client.submission([asked])
    console.say_kept(context)
    ids = range(answer["first"], answer["first"] + answer["count"])
    if not (wait and json):
        most = asked["array"].get("max_running")
        _say_queued(context, client, ids, most, json, is_new=answer.get("is_new", True))
    return await_group(client, f"g{ids.start}", json=json) if wait else 0


def _say_queued(
    context: typer.Context,
    client: Client,
    ids: range,
    most: int | None,
    json: bool,
    *,
    is_new: bool,
) -> None:
    group = f"g{ids.start}"
    if json:
        console.say_json(group=group, first=ids.start, count=len(ids))
        return
    look = console.look(context)
    if not look.terminal:
        console.say(group)
        return
    if is_new:
        answer = client.call("status", refs=[str(ids.start)], after_turn=True)
        simulated = are_simulated(answer["gpus"])
        first = greeting(
            answer["jobs"][0],
            simulated=simulated,
            now=look.now,
            release=console.hint(context, f"gpuq release {group}"),
        )
        at_once = f", at most {most} at once" if most else ""
        console.say(f"Array {group} of {count(len(ids), 'job')} queued{at_once}. {first}")
    hint = f"  see: gpuq group {group}      follow: gpuq logs -f {ids.start}"
    console.say(console.hint(context, f"{hint}      stop: gpuq kill {group}"))


def await_group(client: Client, group: str, *, json: bool) -> int:
    """Waits for the end of all of them; the highest of their codes."""
    with own_failures():
        jobs = client.wait([group])
    if json:
        console.say_json(group=group, jobs=jobs)
    codes = [exit_code(job) for job in jobs]
    failed = [job for job, code in zip(jobs, codes, strict=True) if code]
    for job in failed[:SHOWN_FAILURES]:
        console.note(farewell(job))
    if len(failed) > SHOWN_FAILURES:
        more = len(failed) - SHOWN_FAILURES
        console.note(f"and {more} more of {group} did not end well. See: gpuq status {group}")
    return max(codes, default=0)
