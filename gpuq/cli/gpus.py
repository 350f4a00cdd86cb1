"""`gpuq gpus`: the GPUs and who is on them; one of them drained, and given out again."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.commands import Command, Verbs, family
from gpuq.cli.gpu_text import gpu_row, gpu_table, process_row, process_table
from gpuq.cli.render import Look, plain, printable, tabbed
from gpuq.core.units import count, format_ranges

gpus = family(
    cls=Verbs,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    options_metavar="[OPTION ...]",
)

Gpus = Annotated[list[str], Argument(metavar="GPU ...", show_default=False)]


@gpus.callback()
def gpus_(
    context: typer.Context,
    procs: Annotated[
        bool, Option("--procs", help="The processes on them in place of them.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print all about them as JSON.")] = False,
) -> None:
    """The GPUs and who is on them, gpuq's jobs and others.

    Examples:
      gpuq gpus
      gpuq gpus --procs          each process
      gpuq gpus drain 3 -m "new fan"
      gpuq gpus --json | jq '.gpus[] | select(.state == "free") | .index'

    On a pipe the columns are index, uuid, model, simulated or real, state, memory used and in all,
    utilisation, temperature, power, jobs, reason. All about one of them: gpuq why gpu:3
    """
    if context.invoked_subcommand is not None:
        return
    with console.connect(context) as client:
        answer = client.gpus()
        look = console.look(context)
        jobs = client.call("status")["jobs"] if look.terminal and not json else []
    found = answer["gpus"]
    if json:
        console.say_json(gpus=found)
    elif look.terminal:
        table = process_table(found, look) if procs else gpu_table(found, jobs, look, full=True)
        console.say(*table)
    elif procs:
        console.say(*(process_row(gpu, process) for gpu in found for process in gpu["processes"]))
    else:
        console.say(*map(gpu_row, found))
    if answer["gpu_trouble"]:
        console.note(plain(f"no GPUs: {printable(answer['gpu_trouble'])}", look))
    elif not found:
        console.note(
            "there is no GPU here. Four simulated ones: GPUQ_GPUS=sim:4x24G gpuq daemon run"
        )


@gpus.command("drain", cls=Command)
def drain(
    context: typer.Context,
    gpus: Gpus,
    reason: Annotated[
        str | None, Option("-m", "--message", metavar="WHY", help="Shown to all who look.")
    ] = None,
) -> None:
    """Give a GPU to nobody any more; what runs on it goes on. It lasts through restarts.

    Examples:
      gpuq gpus drain 3 -m "new fan"
      gpuq gpus drain 0-2,5
      gpuq gpus drain GPU-8f3a          by the beginning of its UUID

    Without -m the reason is that none was given. End it: gpuq gpus resume 3
    """
    with console.connect(context) as client:
        done = client.call("drain_gpus", refs=gpus, reason=reason)["gpus"]
    _say(done, console.look(context), _drained)


@gpus.command("resume", cls=Command)
def resume(
    context: typer.Context,
    gpus: Gpus,
    untested: Annotated[
        bool, Option("--untested", help="One that is set aside, too, without a test.")
    ] = False,
) -> int:
    """Give out a GPU again: one that is drained at once, one that is set aside after a good test.

    Examples:
      gpuq gpus resume 3
      gpuq gpus resume 3 --untested     you know better than a test

    It waits for the test and exits 1 where that was bad. Ctrl-C only stops waiting.
    """
    from gpuq.cli.gpu_tests import follow_tests

    look = console.look(context)
    with console.connect(context) as client:
        before = {gpu["uuid"]: gpu["tested_at"] for gpu in client.gpus()["gpus"]}
        done = client.call("resume_gpus", refs=gpus, untested=untested)["gpus"]
        _say(done, look, _resumed)
        testing = {gpu["uuid"]: before.get(gpu["uuid"]) for gpu in done if gpu["done"] == "testing"}
        tests = follow_tests(client, testing, look)
    return 1 if any(test["verdict"] != "good" for test in tests) else 0


def _say(done: Sequence[dict[str, Any]], look: Look, sentence: Any) -> None:
    for gpu in done:
        if look.terminal:
            console.say(plain(printable(sentence(gpu)), look))
        else:
            console.say(tabbed([gpu["index"], gpu["uuid"], gpu["done"]]))


def _drained(gpu: dict[str, Any]) -> str:
    words = f"GPU {gpu['index']} is drained: {gpu['reason']}"
    if gpu["jobs"]:
        verb = "goes" if len(gpu["jobs"]) == 1 else "go"
        jobs = f"{count(len(gpu['jobs']), 'job')} on it ({format_ranges(gpu['jobs'])})"
        return f"{words}; {jobs} {verb} on"
    return words


def _resumed(gpu: dict[str, Any]) -> str:
    what = {
        "resumed": "is given out again",
        "readmitted": "is given out again, untested",
        "testing": f"is tested first; it was set aside: {gpu['reason']}",
        "waits": f"is given out again after a test, and cannot be tested now: {gpu['reason']}",
        "nothing": "was neither drained nor set aside",
    }
    return f"GPU {gpu['index']} {what.get(gpu['done'], gpu['done'])}"
