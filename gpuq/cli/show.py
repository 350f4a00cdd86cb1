"""`gpuq show`: all about one job, or what a group is."""

from __future__ import annotations

import sys

from gpuq.cli import console
from gpuq.cli.job_page import attempt_table, end_of, job_fields
from gpuq.cli.job_text import chosen_table, job_row
from gpuq.cli.render import Job, Look, command_line, fields, plain, tabbed
from gpuq.cli.several import Several, ids_of_first, reasons, several
from gpuq.cli.submit_again import left_out, submit_line
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

    import typer

    from gpuq.cli.declaring import Argument, Option
    from gpuq.client import Client

LISTED = 25  # jobs of a group
MOST_IN_FULL = 200  # of which all is told at once, as JSON


def show(
    context: typer.Context,
    job: Annotated[str, Argument(metavar="JOB", show_default=False)],
    with_env: Annotated[
        bool, Option("--with-env", help="Its environment, too; only for its owner.")
    ] = False,
    diff: Annotated[
        bool,
        Option("--diff", help="What its copy of a work tree (--snapshot) has over its commit."),
    ] = False,
    json: Annotated[bool, Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """All about one job: every field, each attempt, why it waits, and how to submit it again.

    Examples:
      gpuq show 184
      gpuq show @            your last submission
      gpuq show --diff 184   what was not committed when it was submitted with --snapshot
      gpuq show --json 184
      gpuq show g187         what a group is: how many do what, and its jobs with their parameters
    """
    look = console.look(context)
    with console.connect(context) as client:
        if (group := several(client, job)) is not None:
            if json:
                console.say_json(jobs=_each_in_full(client, group, with_env))
                return
            if diff or with_env:
                raise UsageError(f"--diff and --with-env are of one job, and {group.words}")
            _show_several(context, client, group, look)
            return
        found: Job = client.call("show", ref=job, with_env=with_env)["job"]
    if diff:
        sys.stdout.buffer.write(snapshot_text().changes(found))
        return
    if json:
        console.say_json(jobs=[found])
        return
    console.say(*fields(_pairs(found, look.now), look))
    if not found["attempts"]:
        return
    if look.terminal:
        console.say("", *attempt_table(found["attempts"], look))
    else:
        console.say(*(tabbed([f"attempt {a['attempt']}", end_of(a)]) for a in found["attempts"]))


def _each_in_full(client: Client, group: Several, with_env: bool) -> list[Job]:
    ids = ids_of_first(group, MOST_IN_FULL + 1)
    if len(ids) > MOST_IN_FULL:
        raise UsageError(
            f"{group.words}. All about each is told of up to {MOST_IN_FULL} at once; "
            f"a list of them: gpuq status --json {group.ref}"
        )
    return [client.call("show", ref=str(number), with_env=with_env)["job"] for number in ids]


def _show_several(context: typer.Context, client: Client, group: Several, look: Look) -> None:
    """The first of its jobs are listed; all about one is for who asks for that one."""
    ids = ids_of_first(group, LISTED)
    jobs: list[Job] = list(client.jobs([",".join(map(str, ids))]))
    has = {"outcome": "outcome", "params": "parameters"}
    columns = ("id", "state", "outcome", "name", "params", "command")
    names = [name for name in columns if name not in has or any(j[has[name]] for j in jobs)]
    if not look.terminal:
        console.say(*(tabbed(["jobs", line]) for line in [group.words, *reasons(group)]))
        console.say(*(tabbed(["job", *job_row(job, names).split("\t")]) for job in jobs))
        return
    console.say(*(plain(line, look) for line in [f"{group.words}.", *reasons(group)]), "")
    console.say(*chosen_table(jobs, names, look))
    if group.number > len(jobs):
        more = console.hint(context, f"gpuq status --limit 0 {group.ref}")
        console.say(f"the first {len(jobs)} of {group.number}; all: {more}")
    console.say(f"all about the first: {console.hint(context, f'gpuq show {ids[0]}')}")


def snapshot_text() -> Any:
    """Imported for those jobs alone that have one."""
    from gpuq.cli import snapshot_text

    return snapshot_text


def _pairs(job: Job, now: float) -> list[tuple[str, str]]:
    again = []
    if not job.get("hidden"):
        again = [("submit again", command_line(submit_line(job)))]
        again += [("without", what) for what in left_out(job)]
    environment = [("environment", variable) for variable in job.get("environment") or []]
    if job["snapshot"] is not None:
        job = job | {"snapshot": snapshot_text().describe(job)}
    return [*job_fields(job, now), *again, *environment]
