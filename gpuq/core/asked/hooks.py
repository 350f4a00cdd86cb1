"""What is to be done when something happens: a command, a webhook, or an address of Apprise.

They are told apart by how they begin. A word and "://" make an address: http and https are webhooks,
all others are Apprise's. Everything else is a command for /bin/sh.
"""

import re
from enum import Enum

LONGEST_HOOK = 4096  # bytes
HIDDEN = "…"  # stands for what only its owner is shown

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = r"(?:\[[0-9a-f:.]+\]|[^/?#@:\[\]]+)(?::[0-9]{1,5})?"
_WEBHOOK = re.compile(rf"(https?)://(?:[^/?#]*@)?({_HOST})([/?#].*)?", re.IGNORECASE)


class Moment(Enum):
    """When a hook is for, by the name that it has in settings without "on_"."""

    START = "start"  # a job's own program has begun to run
    END = "end"  # a job has ended and is not tried again
    GPU_PROBLEM = "gpu_problem"  # a GPU is set aside


class HookKind(Enum):
    COMMAND = "command"
    WEBHOOK = "webhook"
    APPRISE = "apprise"


def kind_of(hook: str) -> HookKind:
    scheme = _SCHEME.match(hook)
    if scheme is None:
        return HookKind.COMMAND
    return HookKind.WEBHOOK if scheme[1].lower() in ("http", "https") else HookKind.APPRISE


def read_hook(text: object) -> str:
    """A hook as it was written, without the spaces around it. Raises ValueError."""
    hook = text.strip() if isinstance(text, str) else ""
    if not hook:
        raise ValueError(
            "it is a command, like 'mail -s done me', or an address, like https://host/path"
        )
    try:
        size = len(hook.encode())
    except UnicodeEncodeError:
        raise ValueError("it holds what is no text in UTF-8") from None
    if size > LONGEST_HOOK:
        raise ValueError(
            f"it has {size} bytes, and {LONGEST_HOOK} are the most: put it in a script"
        )
    if "\0" in hook:
        raise ValueError("a NUL byte cannot be passed to a program")
    if kind_of(hook) is not HookKind.COMMAND:
        _check_address(hook)
    return hook


def _check_address(hook: str) -> None:
    if any(sign.isspace() or not sign.isprintable() for sign in hook):
        raise ValueError(f"{shown_hook(hook)} has a space in it; an address writes that as %20")
    if kind_of(hook) is HookKind.WEBHOOK and _WEBHOOK.fullmatch(hook) is None:
        raise ValueError("the address names no host, as in https://example.org/path")


def shown_hook(hook: str) -> str:
    """A hook as others than its owner see it. Of a webhook the host is told, and of an address of
    Apprise not even that: in some of them a token stands in its place. Of a command nothing is."""
    match kind_of(hook):
        case HookKind.COMMAND:
            return "a command"
        case HookKind.WEBHOOK if parts := _WEBHOOK.fullmatch(hook):
            return f"{parts[1].lower()}://{parts[2]}{f'/{HIDDEN}' if parts[3] else ''}"
        case _:
            return f"{hook.partition('://')[0].lower()}://{HIDDEN}"
