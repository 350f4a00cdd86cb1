"""`gpuq submit --dry-run`: what would become of it, said and not done."""

from collections.abc import Sequence
from typing import Any

from gpuq.cli import console
from gpuq.cli.render import printable
from gpuq.client import Client


def show_verdicts(
    client: Client,
    asked: Sequence[dict[str, Any]],
    json: bool,
    *,
    stages: Sequence[str] = (),
) -> int:
    """One line for each job or array, behind the name of the stage that it is; or all as JSON."""
    verdicts = client.dry_run_many(asked)
    if json:
        console.say_json(dry_run=True, verdict=verdicts)
    else:
        named = [f"{stage}: " for stage in stages] or [""] * len(verdicts)
        said = zip(named, verdicts, strict=True)
        console.say(*(printable(f"{name}{one['words']}") for name, one in said))
    return 0
