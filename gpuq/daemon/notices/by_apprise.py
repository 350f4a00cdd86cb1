"""A message to an address of Apprise, which is a library that need not be there."""

import logging
from collections.abc import Iterable
from importlib.util import find_spec

from gpuq.core.asked.hooks import HookKind, kind_of, shown_hook
from gpuq.daemon.notices.bounded import CHUNK_BYTES

NOT_THERE = (
    "addresses like this one take Apprise, which is not installed where gpuqd is: "
    "pip install '.[notify]' in the folder of its source, or use a command or an https:// address"
)
TYPES = {"good": "success", "bad": "failure"}


def note_of(hooks: Iterable[str | None]) -> str | None:
    """What whoever submits a job with these has to know. Looks for the library without loading it."""
    of_apprise = [hook for hook in hooks if hook and kind_of(hook) is HookKind.APPRISE]
    if not of_apprise or find_spec("apprise") is not None:
        return None
    return f"{shown_hook(of_apprise[0])} will not be told: {NOT_THERE}"


def is_there() -> bool:
    """Imports it: with the rights that the daemon's own libraries are read with."""
    try:
        import apprise  # noqa: F401
    except ImportError:
        return False
    return True


def send(address: str, title: str, text: str, mood: str) -> None:
    """Raises ValueError where the address is none, OSError where it was not delivered."""
    import apprise

    target = apprise.Apprise()
    if not target.add(address):
        raise ValueError("Apprise knows no such address; see its list of services")
    capture = apprise.LogCapture(level=logging.WARNING, fmt="%(message)s")  # type: ignore[no-untyped-call]
    with capture as said:
        is_sent = target.notify(body=text, title=title, notify_type=TYPES.get(mood, "info"))
        words = said.getvalue()[:CHUNK_BYTES].strip()
    if not is_sent:
        raise OSError(words.splitlines()[-1] if words else "Apprise could not deliver it")
