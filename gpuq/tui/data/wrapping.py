"""Text broken into lines of so many cells."""

from collections.abc import Iterator

from gpuq.cli.render import width


def wrapped(text: str, room: int) -> list[str]:
    """At spaces where there are some, else in the middle of a word. No line is wider than `room`."""
    lines, line = [], ""
    for word in _pieces(text, max(room, 2)):
        if line and width(line) + width(word.rstrip(" ")) > room:
            lines.append(line.rstrip(" "))
            line = ""
        line += word
    return [*lines, line.rstrip(" ")]


def _pieces(text: str, room: int) -> Iterator[str]:
    """Words with the space behind them, long ones in parts."""
    piece = ""
    for sign in text:
        if width(piece) + width(sign) > room and sign != " ":
            yield piece
            piece = ""
        piece += sign
        if sign == " ":
            yield piece
            piece = ""
    yield piece
