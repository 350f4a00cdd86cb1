"""`gpuq notices`: what was to be told to whom, and what became of that."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.render import Column, Look, cut, moment, plain, printable, rfc3339, tabbed, table
from gpuq.client import Client
from gpuq.core.units import format_seconds
from gpuq.errors import GpuqError

View = dict[str, Any]

LONGEST_TRIAL_S = 90.0
LOOK_AGAIN_S = 0.1
BELOW = "    "
OVER = ("done", "failed", "unknown", "dropped")
STATES = {"claimed": "under way", "unknown": "perhaps"}


def notices(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    test: Annotated[
        str | None,
        Option(metavar="HOOK", help="Do this once, now, as a trial, and say what came of it."),
    ] = None,
    limit: Annotated[int, Option(metavar="N", help="So many, the newest.")] = 25,
    json: Annotated[
        bool, Option("--json", help="Print them as JSON, with what they wrote.")
    ] = False,
) -> int:
    """What was done because a job started or ended or a GPU was set aside, and what is still to be.

    Examples:
      gpuq notices                        the last ones
      gpuq notices 184                    of one job, uncut and with what they wrote
      gpuq notices --test 'mail -s gpuq me'
      gpuq notices --test ntfys://my-topic
      gpuq submit --on-end 'notify-send "$GPUQ_TITLE"' -- python train.py

    A hook is a command for /bin/sh, a webhook (http:// or https://), or an address of Apprise. It is
    given by --on-start and --on-end, or for all jobs by the settings on_start, on_end and
    on_gpu_problem. What fails is tried again after 10 s, 1 min and 5 min. "perhaps": whoever did it
    died over it.

    On a pipe the columns are id, time, job, moment, state, tries, target, ended, trouble.
    """
    look = console.look(context)
    with console.connect(context) as client:
        if test is not None:
            return _try(client, test, json)
        found = client.call("notices", refs=jobs or [], limit=limit)["notices"]
    if json:
        console.say_json(notices=found)
    elif not look.terminal:
        console.say(*map(_row, found))
    elif not found:
        console.say("nobody was told of anything. To be told: gpuq submit --on-end HOOK")
    else:
        console.say(*_picture(found, look, in_full=bool(jobs)))
    return 0


def _picture(found: Sequence[View], look: Look, *, in_full: bool) -> list[str]:
    """Each with its trouble below it; `in_full` with the whole address and what a command wrote."""
    wide = look._replace(width=10**6) if in_full else look
    head, *lines = table(_columns(look.now), found, wide)
    picture = [head]
    for line, one in zip(lines, found, strict=True):
        picture.append(line)
        below = [one["trouble"], *_lines(one)] if in_full else [one["trouble"]]
        picture += [
            cut(plain(f"{BELOW}{printable(words)}", look), wide.width) for words in below if words
        ]
    return picture


def _try(client: Client, hook: str, json: bool) -> int:
    asked = client.call("test_notice", target=hook)["notice"]
    until = monotonic() + LONGEST_TRIAL_S
    while True:
        (found,) = client.call("notices", notice=asked)["notices"] or [None]
        if found is None or monotonic() > until:
            raise GpuqError(f"nothing is known yet of notice {asked}. See: gpuq notices")
        if found["state"] in OVER:
            break
        sleep(LOOK_AGAIN_S)
    if json:
        console.say_json(notices=[found])
    else:
        said = f": {found['trouble']}" if found["trouble"] else ""
        lines = [f"  {printable(line)}" for line in _lines(found)]
        console.say(printable(f"{_state(found)}{said}"), *lines)
    return 0 if found["state"] == "done" else 1


def _lines(one: View) -> Sequence[str]:
    """What it wrote, unless its trouble says so already."""
    lines: list[str] = (one["output"] or "").rstrip().splitlines()
    return [] if lines == [one["trouble"]] else lines


def _state(one: View) -> str:
    return STATES.get(one["state"], str(one["state"]))


def _what_became(one: View, now: float) -> str:
    """ "waiting", "again in 0:52", "dropped, with 311 more"."""
    if one["state"] == "waiting" and one["tries"]:
        left = one["due_at"] - now if one["due_at"] else 0.0
        return f"again in {format_seconds(left)}" if left > 0 else "again soon"
    if one["stands_for"] > 1:
        return f"dropped, with {one['stands_for'] - 1} more"
    return _state(one)


def _about(one: View) -> str:
    if one["job"] is None:
        return str(one["gpu"] or "") if one["gpu_index"] is None else f"GPU {one['gpu_index']}"
    run = f"-{one['last_job']}" if one["last_job"] != one["job"] else ""
    return f"{one['job']}{run}"


def _moment(one: View) -> str:
    if one["origin"] == "trial":
        return "trial"
    return str(one["outcome"] or one["moment"]).replace("_", " ")


def _row(one: View) -> str:
    about = _about(one) or None
    told = (one["moment"], one["state"], one["tries"], one["target"], rfc3339(one["ended_at"]))
    return tabbed([one["id"], rfc3339(one["made_at"]), about, *told, one["trouble"]])


def _columns(now: float) -> list[Column]:
    return [
        Column("ID", lambda one: str(one["id"]), right=True),
        Column("TIME", lambda one: moment(one["made_at"], now)),
        Column("OF", _about, unused=""),
        Column("WHAT", _moment),
        Column("NOTICE", lambda one: _what_became(one, now)),
        Column("TRIES", lambda one: str(one["tries"]), right=True, unused="1"),
        Column("TO", lambda one: printable(one["target"])),
    ]
