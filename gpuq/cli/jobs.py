"""`gpuq status`, `show` and `why`: what runs, what waits, and for what."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.gpu_text import are_simulated, census, gpu_table
from gpuq.cli.job_page import attempt_table, job_fields, submit_line
from gpuq.cli.job_text import job_row, job_table, why_lines
from gpuq.cli.render import Gpu, Job, Look, command_line, fields, plain, printable
from gpuq.client import Client

ROWS_ON_A_TERMINAL = 25


def status(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    mine: Annotated[bool, Option("-m", "--mine", help="Only my own.")] = False,
    user: Annotated[str | None, Option("-u", "--user", metavar="NAME", help="Only theirs.")] = None,
    all_: Annotated[bool, Option("-a", "--all", help="Those that have ended, too.")] = False,
    state: Annotated[
        list[str] | None,
        Option(
            "-s", "--state", metavar="WORD", help="queued, running, failed, held, ...; repeatable."
        ),
    ] = None,
    tag: Annotated[str | None, Option(metavar="TAG", help="Only those with this tag.")] = None,
    limit: Annotated[
        int | None, Option(metavar="N", help="At most N; 0: all. On a terminal 25.")
    ] = None,
    no_trunc: Annotated[bool, Option("--no-trunc", help="Cut nothing to fit.")] = False,
    json: Annotated[bool, Option("--json", help="Print all about them as JSON.")] = False,
) -> int | None:
    """What runs and what waits, everyone's.

    Examples:
      gpuq                       the GPUs, and all that runs or waits
      gpuq status -a -s failed   what failed
      gpuq status 12-18,20       these
      gpuq status | cut -f1,2    on a pipe: TAB-separated, no head, all columns
      gpuq status --json | jq '.jobs[] | select(.state == "running")'

    On a pipe the columns are id, state, substate, outcome, name, user, gpus, priority, started,
    ended, reason, command. Beside ids a JOB may be @ (your last submission), @~2 (the one before
    that but one) or a group like g12.
    """
    asked: dict[str, Any] = {
        "mine": mine,
        "all": all_,
        "user": user,
        "states": split_words(state or []),
        "tag": tag,
    }
    refs = list(jobs or [])
    with console.connect(context) as client:
        look = console.look(context)
        if json:
            console.say_json(jobs=client.jobs(refs, limit=limit or None, **asked))
        elif look.terminal:
            look = look._replace(width=10**6) if no_trunc else look
            shown = ROWS_ON_A_TERMINAL if limit is None else limit
            _show_status(client, look, refs, asked, shown or None)
        else:
            console.say(*map(job_row, client.jobs(refs, limit=limit or None, **asked)))
    return None


def split_words(given: Sequence[str]) -> list[str]:
    """What may be repeated and may have commas in it."""
    return [word.strip() for text in given for word in text.split(",")]


def _show_status(
    client: Client, look: Look, refs: list[str], asked: dict[str, Any], limit: int | None
) -> None:
    one_more = 1 if limit is None else limit + 1
    answer = client.call("status", refs=refs, limit=one_more, **asked)
    found = client.jobs(refs, **asked) if limit is None else answer["jobs"]
    jobs = sorted(found[:limit], key=lambda job: int(job["id"]))
    if not refs:
        console.say(*_gpu_lines(answer["gpus"], jobs, answer["gpu_trouble"], look))
    console.say(*job_table(jobs, look))
    hidden = ""
    if len(found) > len(jobs):
        number = 0 if any(asked.values()) or refs else _active(answer) - len(jobs)
        hidden = f", {f'{number} ' if number > 0 else ''}more not shown: --limit 0"
    if not refs or hidden:
        console.say(plain(_foot(answer, hidden), look))


def _active(answer: dict[str, Any]) -> int:
    counts = answer["counts"]
    return int(counts["running"]) + int(counts["queued"])


def _gpu_lines(gpus: list[Gpu], jobs: list[Job], trouble: str | None, look: Look) -> list[str]:
    lines = gpu_table(gpus, jobs, look)
    if trouble:
        lines.append(plain(f"no GPUs: {printable(trouble)}", look))
    return [*lines, ""] if lines else []


def _foot(answer: dict[str, Any], hidden: str) -> str:
    counts = answer["counts"]
    yours = counts["queued_yours"]
    whose = f" ({yours} yours)" if yours != counts["queued"] else ""
    machine = f" | {census(answer['gpus'])}" if are_simulated(answer["gpus"]) else ""
    return (
        f"{counts['running']} running, {counts['queued']} queued{whose}{hidden}{machine}"
        " | finished: gpuq status -a"
    )


def show(
    context: typer.Context,
    job: Annotated[str, Argument(metavar="JOB", show_default=False)],
    with_env: Annotated[
        bool, Option("--with-env", help="Its environment, too; only for its owner.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """All about one job: every field, each attempt, why it waits, and how to submit it again.

    Examples:
      gpuq show 184
      gpuq show @            your last submission
      gpuq show --json 184
    """
    with console.connect(context) as client:
        answer = client.call("show", ref=job, with_env=with_env)
        found: Job = answer["job"]
        look = console.look(context)
    if json:
        console.say_json(jobs=[found])
        return
    console.say(*fields(_pairs(found), look))
    if found["attempts"] and look.terminal:
        console.say("", *attempt_table(found["attempts"], look))


def _pairs(job: Job) -> list[tuple[str, str]]:
    again = command_line(submit_line(job))
    environment = [("environment", variable) for variable in job.get("environment") or []]
    return [*job_fields(job), ("submit again", again), *environment]


def why(
    context: typer.Context, job: Annotated[str, Argument(metavar="JOB", show_default=False)]
) -> None:
    """Why a job waits, or how it ended, in sentences.

    Examples:
      gpuq why 184
      gpuq why @       your last submission
    """
    with console.connect(context) as client:
        answer = client.call("show", ref=job)
        simulated = are_simulated(client.gpus()["gpus"])
    look = console.look(context)
    lines = why_lines(answer["job"], look, simulated=simulated)
    console.say(*(plain(line, look) for line in lines))
