"""What the options of commands are declared with, and how a declaration becomes what Typer reads.

The commands that are answered ahead of Typer (`gpuq.cli.quick`) keep their declarations as text: they
import nothing of this, and it is read for help, for completion and for what Typer has to read.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import typer
from typer import Argument, Option

# What declarations name beside what stands here.
__all__ = ["Annotated", "Any", "Argument", "Callable", "Option", "Sequence", "typer"]

Function = TypeVar("Function", bound=Callable[..., Any])

# The panels of the help.
resources = partial(Option, rich_help_panel="Resources")
placement = partial(Option, rich_help_panel="Placement")
order = partial(Option, rich_help_panel="Order")
ends = partial(Option, rich_help_panel="Ends and retries")
results = partial(Option, rich_help_panel="Output")
many = partial(Option, rich_help_panel="Many at once")
selector = partial(Option, rich_help_panel="Instead of JOB, or to choose among those")
hidden = partial(Option, hidden=True)

Words = Annotated[list[str] | None, Argument(metavar="COMMAND ...", show_default=False)]
State = Annotated[
    list[str] | None,
    selector(
        "-s", "--state", metavar="WORD", help="queued, running, failed, held, ...; repeatable."
    ),
]
Name = Annotated[
    str | None,
    selector("-n", "--name", metavar="NAME", help="By name; * and ? stand for any letters."),
]
Tag = Annotated[str | None, selector("--tag", metavar="TAG", help="Those with this tag.")]
Queue = Annotated[
    str | None, selector("-q", "--queue", metavar="NAME", help="Those in this queue.")
]
Mine = Annotated[bool, selector("-m", "--mine", help="My own.")]
Yes = Annotated[
    bool, Option("-y", "--yes", help="Do not ask where more than one running job is meant.")
]


def declared(command: Function) -> Function:
    """The command with its declarations read, and with the options that it borrows from others in place
    of its own `**options`."""
    if hasattr(command, "__signature__"):
        return command
    own = parameters_of(command)
    if offers := getattr(command, "offers", ()):
        own.pop()
        borrowed = [one for offer in offers for one in parameters_of(offer) if _is_option(one)]
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + borrowed
    command.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in own}
    return command


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """With their annotations read, where those are text."""
    known = {**globals(), **inspect.unwrap(function).__globals__}
    signature = inspect.signature(function, globals=known, eval_str=True)
    return list(signature.parameters.values())


def _is_option(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY
