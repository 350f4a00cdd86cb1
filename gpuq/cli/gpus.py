"""`gpuq gpus`: the GPUs and who is on them."""

from typing import Annotated

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.gpu_text import gpu_row, gpu_table, process_row, process_table
from gpuq.cli.render import plain, printable


def gpus(
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
      gpuq gpus --json | jq '.gpus[] | select(.state == "free") | .index'

    On a pipe the columns are index, uuid, model, simulated or real, state, memory used and in all,
    utilisation, temperature, power, jobs, reason.
    """
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
