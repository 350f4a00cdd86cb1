"""`gpuq bundle`: all that somebody who helps needs to know, in one file without any secret."""

import os
import time
from typing import Annotated

import typer
from typer import Argument

from gpuq.cli import console
from gpuq.cli.render import printable
from gpuq.core.units import format_bytes

WHAT = {
    "doctor.json": "what `gpuq doctor` finds",
    "versions.json": "versions of gpuq, Python, kernel, system and libraries",
    "daemon.json": "what the daemon says of itself, with how many jobs run and wait",
    "settings.json": "each setting with where it comes from; hooks only as set",
    "gpus.json": "the GPUs without whose processes are on them",
    "database.json": "rows of each table, jobs by state, the last attempts and events",
    "units/": "units of systemd, without their environment",
    "daemon.log": "the last of the daemon's own log",
    "journal.txt": "the last of the journal of gpuqd, where you may read it",
    "kernel.txt": "lines of the kernel's log with Xid or NVRM, where you may read it",
    "nvidia-smi.txt": "nvidia-smi -q without processes and serial numbers",
}
LEFT_OUT = (
    "any environment, and each value of yours wherever it stands",
    "commands of jobs beyond the name of a usual program, names, tags, directories, logs and outputs",
    "values of -e and --env-file, job files of the spool, hooks, addresses and tokens",
    "names of people, homes and machines: in every text only words stay that gpuq itself uses",
)
README = """\
What `gpuq bundle` gathered for a report of a fault, {at}.

In here:
{what}

Not in here:
{left_out}

What was left out of a text stands there as "…". Numbers of jobs, processes and users (uid) stay, as do
UUIDs of GPUs. Please look it over before you pass it on.
"""


def bundle(
    context: typer.Context,
    file: Annotated[
        str | None, Argument(metavar="FILE", help="Where it goes.", show_default=False)
    ] = None,
) -> None:
    """Gather for a report of a fault what somebody who helps needs to know, without any secret.

    Examples:
      gpuq bundle                  into gpuq-bundle-DATE.tar.gz, here
      gpuq bundle /tmp/box7.tar.gz
      tar -xzOf FILE | less        look it over before you pass it on

    In it are doctor's findings, versions, settings, units, the daemon's log and journal, figures of the
    database, the last events and attempts, Xid lines of the kernel, and nvidia-smi. Not in it are
    environments, arguments of commands, names of jobs, people and homes, logs of jobs, and hooks.
    """
    from gpuq.cli.bundle.archive import write
    from gpuq.cli.bundle.collected import Collected

    name = time.strftime("gpuq-bundle-%Y%m%d-%H%M%S")
    path = file or f"{name}.tar.gz"
    if os.path.isdir(path):
        path = os.path.join(path, f"{name}.tar.gz")
    with console.connect(context) as client:
        console.note("gathering, which takes some seconds")
        parts = list(Collected(client, os.environ).parts())
    write(path, name, [("README.txt", _readme()), *parts])
    if console.look(context).terminal:
        console.say(*_in_words(path))
    else:
        console.say(printable(path))


def _readme() -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    what = "\n".join(f"  {name:<16} {words}" for name, words in WHAT.items())
    return README.format(at=at, what=what, left_out="\n".join(f"  - {one}" for one in LEFT_OUT))


def _in_words(path: str) -> list[str]:
    return [
        f"wrote {printable(path)} ({format_bytes(os.path.getsize(path))}), for you alone to read",
        "in it:",
        *(f"  {words}" for words in WHAT.values()),
        "not in it:",
        *(f"  {one}" for one in LEFT_OUT),
        f"look it over before you pass it on: tar -xzOf {printable(path)} | less",
    ]
