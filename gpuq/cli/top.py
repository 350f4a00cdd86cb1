"""`gpuq top`: the screen."""

import os
import sys
from typing import Annotated

import typer
from typer import Option

from gpuq.cli import console
from gpuq.errors import UsageError


def top(
    context: typer.Context,
    readonly: Annotated[
        bool, Option("--readonly", help="Only look: keys that change something are off.")
    ] = False,
    theme: Annotated[
        str | None,
        Option(
            metavar="NAME", help="Its colours; ansi-dark and ansi-light are the terminal's own."
        ),
    ] = None,
    ascii_: Annotated[
        bool, Option("--ascii", help="Draw with plain signs; so it is where UTF-8 is not spoken.")
    ] = False,
    no_mouse: Annotated[
        bool, Option("--no-mouse", help="Leave the mouse to the terminal: it marks text, as ever.")
    ] = False,
    web: Annotated[
        bool,
        Option("--web", help="Serve it on 127.0.0.1, to look at in a browser; prints the address."),
    ] = False,
    port: Annotated[
        int, Option(metavar="N", min=0, max=65535, help="For --web; 0 takes a free one.")
    ] = 0,
) -> int:
    """The screen: GPUs, jobs, logs; acts on them with a key.

    Examples:
      gpuq top                   ? shows all keys, q leaves; jobs go on
      gpuq top --readonly        for a screen on the wall
      gpuq top --theme nord
      gpuq top --web             the same in a browser; whoever has the address may look

    Theme, mouse and keys can be set for good, in [top] of ~/.config/gpuq/gpuq.toml. Where there is
    no terminal it does not start; on one that can only print lines it is gpuq status.
    """
    if web:
        return _serve(context, port, theme, ascii_, no_mouse)
    if "TEXTUAL_DRIVER" not in os.environ:  # it draws elsewhere
        _find_terminal()
        if os.environ.get("TERM", "") in console.LINES_ONLY:
            return _print_status(context)
    if context.obj.color == "never":
        os.environ["NO_COLOR"] = "1"
    from gpuq.tui.start import Options, run

    look = console.look(context)
    options = Options(
        theme=theme,
        ascii=True if ascii_ or not look.unicode else None,
        mouse=False if no_mouse else None,
        is_readonly=readonly or None,
        daemon=console.daemon_options(context),
    )
    with console.connect(context) as client:
        return run(client, look.user, os.uname().nodename, options)


def _find_terminal() -> None:
    for stream, name in ((sys.stdin, "read keys from"), (sys.stdout, "draw on")):
        if stream is None or not stream.isatty():
            raise UsageError(
                f"top needs a terminal, and there is none to {name}. In a pipe: gpuq status, "
                "gpuq status --watch"
            )


def _print_status(context: typer.Context) -> int:
    from gpuq.cli.jobs import status

    term = os.environ.get("TERM", "")
    console.note(f"no screen can be drawn on this terminal (TERM={term}); here is gpuq status")
    return status(context) or 0


def _serve(
    context: typer.Context, port: int, theme: str | None, ascii_: bool, no_mouse: bool
) -> int:
    try:
        from gpuq.tui.start import Options, check
        from gpuq.tui.web.site import serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"top --web needs {error.name}, which is not here: pip install '.[web]' in the folder of "
            "the source"
        ) from None

    def say(address: str) -> None:
        console.say(address)
        sys.stdout.flush()
        console.note("read-only, for whoever has that address; Ctrl-C ends it")

    check(Options(theme=theme))  # nobody sees what a screen behind a page complains of
    color = context.obj.color
    before = [*console.daemon_options(context), *(["--color", color] if color != "auto" else [])]
    shown = ["top", "--readonly", *(["--theme", theme] if theme is not None else [])]
    shown += (["--ascii"] if ascii_ else []) + (["--no-mouse"] if no_mouse else [])
    return serve([sys.executable, "-P", "-m", "gpuq", *before, *shown], port, say)
