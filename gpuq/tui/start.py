"""How the screen is started and left: the terminal is found as it was, however that comes about."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from textual.theme import BUILTIN_THEMES

from gpuq.client import Client
from gpuq.errors import UsageError
from gpuq.tui.app import GpuqApp
from gpuq.tui.keymap import read_keymap
from gpuq.tui.looks import Signs
from gpuq.tui.settings import TopSettings, read_top
from gpuq.tui.terminal.driver import Terminal

LEAVING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
# What is still being asked of a daemon that does not answer may not keep the shell waiting.
LEAVE_S = 3.0
LIGHT_GROUNDS = ("7", "15")  # white, of the sixteen colours


class Options(NamedTuple):
    """As given on the command line; None where the settings decide."""

    theme: str | None = None
    ascii: bool | None = None
    mouse: bool | None = None
    is_readonly: bool | None = None
    daemon: Sequence[str] = ()  # the options that tell which daemon is meant


def run(client: Client, user: str, host: str, options: Options) -> int:
    """Until it is left; its exit code, 128 and the signal where that ended it."""
    settings = read_top(os.environ)
    app = make_app(client, user, host, options, settings)
    asyncio.run(_run(app, is_mouse=settings.of("mouse", options.mouse)))
    return app.return_code or 0


def make_app(
    client: Client, user: str, host: str, options: Options, settings: TopSettings
) -> GpuqApp:
    """UsageError where an option or a setting is none."""
    # An empty one says nothing (no-color.org).
    if os.environ.get("NO_COLOR") == "":
        del os.environ["NO_COLOR"]
    app = GpuqApp(
        client,
        user=user,
        host=host,
        signs=Signs(unicode=not settings.of("ascii", options.ascii)),
        theme=_theme(settings, options, os.environ),
        is_readonly=settings.of("readonly", options.is_readonly),
        keymap=read_keymap(settings.keys),
        daemon_options=options.daemon,
    )
    if settings.trouble is not None:
        app.say(f"the machine's settings are left aside: {settings.trouble}", is_error=True)
    if "TEXTUAL_DRIVER" not in os.environ:
        app.driver_class = Terminal
    return app


def check(options: Options) -> None:
    """UsageError where an option or a setting is none: before anything is begun that needs them."""
    settings = read_top(os.environ)
    _theme(settings, options, os.environ)
    read_keymap(settings.keys)


async def _run(app: GpuqApp, *, is_mouse: bool) -> None:
    """Signals come from here on through the app, which gives the terminal back before it goes."""
    loop = asyncio.get_running_loop()
    for number in LEAVING:
        loop.add_signal_handler(number, app.leave, 128 + number)
    await app.run_async(mouse=is_mouse)
    hurry = threading.Timer(LEAVE_S, _leave, [app.return_code or 0])
    hurry.daemon = True
    hurry.start()


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(code)


def _theme(settings: TopSettings, options: Options, environ: Mapping[str, str]) -> str:
    theme: str | None = settings.of("theme", options.theme)
    if theme is None:
        return "ansi-light" if _is_light(environ) else "ansi-dark"
    if theme not in BUILTIN_THEMES:
        where = "--theme" if options.theme is not None else settings.where("theme", "--theme")
        raise UsageError(f"{where}: there is no theme {theme!r}; there are {', '.join(THEMES)}")
    return theme


def _is_light(environ: Mapping[str, str]) -> bool:
    """As rxvt, Konsole and others say it: colour of the text, then of the ground."""
    return environ.get("COLORFGBG", "").rpartition(";")[2] in LIGHT_GROUNDS


THEMES = sorted(BUILTIN_THEMES)
