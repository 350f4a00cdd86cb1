"""`gpuq spool`: the folder whose files become jobs; and the process that empties it."""

from functools import partial
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.render import Column, Look, printable, tabbed, table
from gpuq.errors import GpuqError
from gpuq.protocol import SPOOL_LATER


def spool(
    context: typer.Context,
    list_: Annotated[
        bool, Option("--list", help="What waits in it, and what was rejected and why.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """The folder whose files become jobs: print its path, and make it if it is not there.

    Examples:
      gpuq spool                                       its path
      mv train.sh "$(gpuq spool)"                      a script is a job
      gpuq spool --list                                what was rejected, and why

    A file is moved on to accepted/ID-NAME once it is a job, or to rejected/, with the reason in a file
    beside it. Scripts are read as `gpuq submit SCRIPT` reads them, .json and .jsonl files as
    `gpuq submit --from` does, .toml files as pipelines. Write a file elsewhere on the same disk and
    move it in, or call it .tmp, .part or NAME~ until it is whole.
    """
    with console.connect(context, autostart=True) as client:
        path: str = client.call("spool")["path"]
        look = console.look(context)
    if json:
        console.say_json(path=path, **_contents(path))
    elif list_:
        console.say(*_listed(_contents(path), look))
    else:
        console.say(path)


def _contents(path: str) -> dict[str, Any]:
    from gpuq.cli.spool_files import contents

    return contents(path)


def _listed(contents: dict[str, Any], look: Look) -> list[str]:
    rows = [{"file": name, "why": "waits to be taken"} for name in contents["waiting"]]
    rows += [
        {"file": f"rejected/{one['name']}", "why": one["reason"]} for one in contents["rejected"]
    ]
    if not look.terminal:
        return [tabbed([row["file"], row["why"]]) for row in rows]
    columns = [
        Column("FILE", lambda row: printable(row["file"])),
        Column("WHY", lambda row: printable(row["why"])),
    ]
    return table(columns, rows, look) if rows else ["nothing waits, and nothing was rejected"]


def empty(
    context: typer.Context, folder: Annotated[str, Argument(metavar="FOLDER", show_default=False)]
) -> int:
    """Takes what lies in the folder; the daemon starts it."""
    from gpuq.cli.spool_files import Taking
    from gpuq.cli.spool_jobs import jobs_in

    with console.connect(context) as client:
        try:
            return Taking(client, folder, partial(jobs_in, context)).run()
        except GpuqError as error:  # it stays there, and is tried again
            console.note(str(error))
            return SPOOL_LATER
