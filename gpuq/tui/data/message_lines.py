"""A message in as many lines as there are for it. What came of a deed is to be read: where there is no
room for all, the command line is cut, then the ids in what is said, and only then its end."""

import re
from collections.abc import Iterator
from textwrap import wrap

from gpuq.cli.render import printable
from gpuq.tui.data.messages import Message

LEAST_OF_COMMAND = 12  # signs: in fewer nobody sees what it was
_MANY_IDS = re.compile(r"(\d+(?:-\d+)?),(?:\d+(?:-\d+)?,)+(\d+(?:-\d+)?)")


def message_lines(message: Message, room: int, most: int, *, beside: int, mark: str) -> list[str]:
    """`most` lines of so many cells, of which the last one leaves `beside` free. What does not begin
    with a command line that can be cut, and is no error, has its middle cut instead. `mark` stands
    behind what is not whole."""
    if not message.command and not message.is_error:
        return [_without_its_middle(printable(message.text), room - beside, mark)]
    # A line more shows the command whole, where that helps; but not four lines of ids.
    counts = (most,) if message.is_error else (1, most)
    tries = [(count, printable(message.whole)) for count in counts]
    for count in counts:
        shorter = _shorter_and_shorter(message, room * count - beside, mark)
        tries.extend((count, words) for words in shorter)
    for count, words in tries:
        lines = wrap(words, room, break_on_hyphens=False) or [""]
        if len(lines) <= count and len(lines[-1]) <= room - beside:
            return lines
    *lines, last = lines[:most]
    cut = f" … {mark}"
    return [*lines, last[: max(room - beside - len(cut), 0)] + cut]


def _shorter_and_shorter(message: Message, room: int, mark: str) -> Iterator[str]:
    command, text = printable(message.command), printable(message.text)
    end = f" …: {text} {mark}"
    left = min(room - len(end), len(command) - 1)
    while left >= LEAST_OF_COMMAND:
        yield command[:left].rstrip() + end
        left -= max(room // 4, 1)  # lines that end between words hold less
    if command:
        yield f"{text} {mark}"
    few_ids = _MANY_IDS.sub(r"\1,…,\2", text)
    yield f"{few_ids} {mark}"


def _without_its_middle(text: str, room: int, mark: str) -> str:
    """What was done stands at the beginning, what came of it at the end."""
    if len(text) <= room:
        return text
    gap, end = " … ", f" {mark}"
    left = max(room - len(end) - len(gap), 2)
    return f"{text[: left // 2]}{gap}{text[len(text) - (left - left // 2) :]}{end}"
