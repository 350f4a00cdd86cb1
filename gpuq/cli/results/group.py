"""`gpuq group`: what came of many jobs, as counts and as a table."""

import sys
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.job_options import read_option
from gpuq.cli.render import Look, clip, plain
from gpuq.cli.results.group_rows import job_table
from gpuq.cli.results.group_text import (
    exported,
    exported_about,
    foot,
    job_row,
    summary,
    summary_row,
)
from gpuq.client import Client
from gpuq.core.results.ranking import parse_goal, parse_order
from gpuq.errors import UsageError
from gpuq.group_table import pages, read, unreported

ROWS_ON_A_TERMINAL = 25


def group(
    context: typer.Context,
    name: Annotated[str, Argument(metavar="GROUP", show_default=False)] = "@",
    best: Annotated[
        str | None,
        Option(metavar="METRIC:HOW", help="The best by this metric, acc:max or loss:min."),
    ] = None,
    sort: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="By a metric, or a parameter where no metric is called so, the least first; -NAME: "
            "the most first. With --best by that, unless said.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        Option(
            "-u", "--user", metavar="NAME", help="Of a name or a tag: that user's jobs, not mine."
        ),
    ] = None,
    all_: Annotated[
        bool, Option("-a", "--all", help="Of a name or a tag: everybody's jobs.")
    ] = False,
    limit: Annotated[
        int | None, Option(metavar="N", help="At most N jobs; 0: all. On a terminal 25.")
    ] = None,
    summary_: Annotated[
        bool, Option("--summary", help="Only what became of them, no jobs.")
    ] = False,
    export: Annotated[
        str | None,
        Option(metavar="FILE", help="Write all jobs to FILE, by its name as .csv, .json or .yaml."),
    ] = None,
    watch: Annotated[
        bool, Option("-w", "--watch", help="Redraw it as it changes, until Ctrl-C.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print all about it as JSON.")] = False,
) -> None:
    """What came of a group of jobs.

    Examples:
      gpuq group                      my last submission
      gpuq group g12 --best acc:max   that one, its best first
      gpuq group sweep --sort loss    the jobs called sweep, sweep-1, sweep-lr-0.1, ...
      gpuq group 'vit-*'              * and ? stand for any signs
      gpuq group tag:paper            of all submissions with this tag
      gpuq group g12 -w               watch it
      gpuq group g12 --export runs.csv
      gpuq group g12 --json | jq '.group | {total, succeeded, failed, best}'

    GROUP is g12, the id of one of its jobs, @ or @~1 (my last submission, the one before), a name, or
    tag:TAG; name:NAME where a name looks like one of the others. Names and tags are looked for among my
    own jobs. The best is a number: neither nan nor a text wins. On a pipe the columns are id, index,
    state, outcome, exit code, name, started, ended, progress, parameters, metrics, the last two as
    JSON; with --summary they are name, total, unstarted, running, succeeded, failed, cancelled,
    skipped, best, estimated end.
    """
    goal = read_option("--best", parse_goal, best)
    read_option("--sort", parse_order, sort)
    if goal is not None and sort is None:
        sort = f"{'-' if goal.highest else ''}{goal.metric}"
    if export is not None and (watch or json or summary_ or limit is not None):
        raise UsageError(
            "--export writes all jobs, once: it goes without --watch, --json, --summary and --limit"
        )
    asked = {"ref": name, "best": best, "sort": sort, "user": user, "all": all_}
    with console.connect(context) as client:
        if export is not None:
            _export(client, export, asked)
        elif watch:
            _watch(context, client, asked, limit, summary_, json)
        else:
            _show(context, client, asked, limit, summary_, json)


def _show(
    context: typer.Context,
    client: Client,
    asked: dict[str, Any],
    limit: int | None,
    only_summary: bool,
    json: bool,
) -> None:
    look = console.look(context)
    if json:
        console.say_json(**_whole(client, asked, limit, only_summary))
    elif look.terminal:
        shown = ROWS_ON_A_TERMINAL if limit is None else limit or None
        console.say(*_picture(client, asked, look, 0 if only_summary else shown))
    elif only_summary:
        console.say(summary_row(_whole(client, asked, limit, only_summary)["group"]))
    elif asked["sort"] is not None:
        console.say(*map(job_row, _whole(client, asked, limit, only_summary)["jobs"]))
    else:
        _say_rows(client, asked, limit)


def _say_rows(client: Client, asked: dict[str, Any], limit: int | None) -> None:
    """For a pipe: page by page, as there may be a million of them."""
    whose = {name: asked[name] for name in asked.keys() - {"sort"}}
    is_first = True
    for page in pages(client.call, limit=limit or None, **whose):
        if is_first and (why := unreported(page, asked["best"], None)):
            console.note(why)
        console.say(*map(job_row, page["jobs"]))
        is_first = False


def _whole(
    client: Client, asked: dict[str, Any], limit: int | None, only_summary: bool
) -> dict[str, Any]:
    whole = read(client.call, limit=0 if only_summary else limit or None, **asked)
    if why := unreported(whole, asked["best"], asked["sort"]):
        console.note(why)
    found = {**whole}
    jobs = found.pop("jobs")
    return {"group": found, "jobs": jobs}


def _picture(client: Client, asked: dict[str, Any], look: Look, limit: int | None) -> list[str]:
    """What has not begun stands together, as it does in the queue."""
    found = read(client.call, each=False, limit=limit, **asked)
    lines = summary(found, look)
    if why := unreported(found, asked["best"], asked["sort"]):
        lines.append(clip(plain(why, look), look.width))
    if limit == 0:
        return lines
    rows = found["jobs"]
    first = None if asked["sort"] is None else asked["sort"].removeprefix("-")
    return [*lines, "", *job_table(rows, look, first), *foot(found, rows, look)]


def _watch(
    context: typer.Context,
    client: Client,
    asked: dict[str, Any],
    limit: int | None,
    only_summary: bool,
    json: bool,
) -> None:
    from gpuq.cli import watch

    if json:
        watch.print_answers(lambda: _whole(client, asked, limit, only_summary))
        return
    if not sys.stdout.isatty():
        raise UsageError("--watch draws on a terminal. In a pipe: gpuq group --watch --json")

    def picture(columns: int, rows: int) -> list[str]:
        look = console.look(context)._replace(width=columns)
        most = 0 if only_summary else min(limit or rows, rows)
        return [clip(line, columns) for line in _picture(client, asked, look, most)[:rows]]

    watch.redraw(picture)


def _export(client: Client, path: str, asked: dict[str, Any]) -> None:
    from gpuq.cli.results.exports import export, format_of

    format_of(path)
    found = read(client.call, **asked)
    rows = [exported(row) for row in found["jobs"]]
    export(path, "jobs", rows, group=exported_about(found))
    console.note(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} written to {path}")
