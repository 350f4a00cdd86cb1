"""How the screen is started: what the terminal can do is found out before it is taken over."""

from typing import NamedTuple

from gpuq.client import Client
from gpuq.tui.app import GpuqApp
from gpuq.tui.looks import Signs


class Options(NamedTuple):
    theme: str = "ansi-dark"
    ascii: bool = False
    is_readonly: bool = False


def run(client: Client, user: str, host: str, options: Options) -> int:
    """Until it is left; its exit code."""
    app = GpuqApp(
        client,
        user=user,
        host=host,
        signs=Signs(unicode=not options.ascii),
        theme=options.theme,
        is_readonly=options.is_readonly,
    )
    app.run()
    return app.return_code or 0
