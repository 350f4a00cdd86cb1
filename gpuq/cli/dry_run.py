"""`gpuq submit --dry-run`: what would become of it, said and not done."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli import console
from gpuq.cli.render import printable
from gpuq.client import Client


def show_verdicts(client: Client, asked: Sequence[dict[str, Any]], json: bool) -> int:
    """One line for each job or array, or all of them as JSON."""
    verdicts = client.dry_run_many(asked)
    if json:
        console.say_json(dry_run=True, verdict=verdicts)
    else:
        console.say(*(printable(one["words"]) for one in verdicts))
    return 0
