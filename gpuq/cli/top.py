"""`gpuq top`: the screen."""

import os
from typing import Annotated

import typer
from typer import Option

from gpuq.cli import console


def top(
    context: typer.Context,
    readonly: Annotated[
        bool, Option("--readonly", help="Only look: keys that change something are off.")
    ] = False,
    theme: Annotated[
        str, Option(metavar="NAME", help="Its colours; ansi-dark is the terminal's own.")
    ] = "ansi-dark",
    ascii_: Annotated[
        bool, Option("--ascii", help="Draw with plain signs; so it is where UTF-8 is not spoken.")
    ] = False,
) -> int:
    """The screen: GPUs, jobs, logs; acts on them with a key.

    Examples:
      gpuq top                   ? shows all keys, q leaves; jobs go on
      gpuq top --readonly        for a screen on the wall
      gpuq top --theme nord
    """
    from gpuq.tui.start import Options, run

    look = console.look(context)
    options = Options(theme=theme, ascii=ascii_ or not look.unicode, is_readonly=readonly)
    with console.connect(context) as client:
        return run(client, look.user, os.uname().nodename, options)
