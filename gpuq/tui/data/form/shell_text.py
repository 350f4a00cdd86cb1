"""A command as somebody writes it into a field: the words of a program, or a text for a shell.

Nothing is expanded here: what asks a shell to do something (a pipe, a variable, a pattern, a second
line) makes all of it a text for a shell. Braces do not, they are the places of an array's values.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gpuq.cli.render import ansi_quoted, command_line

SHELL = "/bin/sh"
_FOR_A_SHELL = set("|&;<>()$`*?[")
_RESERVED = ("!", "{", "if", "for", "while", "until", "case")
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_IN_ANSI = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "e": 27, "E": 27, "f": 12, "v": 11}
_ANSI = re.compile(
    r"\\(?:([ntrabeEfv])|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))",
    re.DOTALL,
)


class Command(NamedTuple):
    """`argv` is exact, unless it is a text for a shell: then `shell` has that, and `why` the sign."""

    argv: Sequence[str]
    shell: str | None = None
    why: str = ""


def read_command(text: str) -> Command:
    """ValueError where a quote is not closed."""
    reader = _Reader(text)
    words = reader.words()
    if reader.why:
        return Command((), text.strip(), reader.why)
    return Command(words)


def read_words(text: str) -> list[str]:
    """The same where no shell may be asked for anything: ValueError names the sign."""
    reader = _Reader(text)
    words = reader.words()
    if reader.why:
        raise ValueError(f"no shell reads this, so {reader.why} goes into quotes: '…'")
    return words


def write_command(argv: Sequence[str]) -> str:
    """A text that is read as these words again; that of a shell as it was."""
    if tuple(argv[:2]) == (SHELL, "-c") and len(argv) == 3:
        text = argv[2]
        if text.replace("\n", "").isprintable() and _reads_as_shell(text):
            return text
    line = command_line(argv)
    if read_command(line).why:  # the first word would be a shell's: if, for, A=1
        return f"'{argv[0]}'{line[len(argv[0]) :]}"
    return line


def _reads_as_shell(text: str) -> bool:
    try:
        return read_command(text).shell == text
    except ValueError:
        return False


def read_value(text: str) -> str:
    """What a field of one value says: as it stands, or $'…' for what cannot be written like that."""
    text = text.strip()
    if text.startswith("$'") and text.endswith("'") and len(text) > 2:
        return _Reader(text).words()[0]
    return text


def write_value(value: str) -> str:
    is_plain = value.isprintable() and value == value.strip() and not value.startswith("$'")
    return value if is_plain else ansi_quoted(value)


class _Reader:
    """`why` is the first thing that is for a shell; there it stops."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.why = ""

    def words(self) -> list[str]:
        words: list[str] = []
        while not self.why and self._skip_gap(bool(words)):
            words.append(self._word(is_first=not words))
        return words

    def _skip_gap(self, has_words: bool) -> bool:
        """Whether there is another word."""
        while self._at < len(self._text):
            if self._text.startswith("\\\n", self._at):
                self._at += 2
            elif (sign := self._text[self._at]) in " \t\n":
                if sign == "\n" and has_words and self._text[self._at :].strip():
                    self.why = "a second line"
                    return False
                self._at += 1
            else:
                return True
        return False

    def _word(self, *, is_first: bool) -> str:
        begin, parts = self._at, list[str]()
        if self._text[begin] in "~#":
            self.why = self._text[begin]
        if is_first and _ASSIGNED.match(self._text, begin):
            self.why = "a variable that is set"
        while not self.why and self._at < len(self._text) and self._text[self._at] not in " \t\n":
            parts.append(self._part())
        word = "".join(parts)
        if is_first and word in _RESERVED and self._text[begin : self._at] == word:
            self.why = word
        return word

    def _part(self) -> str:
        sign = self._text[self._at]
        if sign == "\\":
            return self._escaped()
        if sign == "'":
            return self._until_quote()
        if sign == '"':
            return self._in_double_quotes()
        if self._text.startswith("$'", self._at):
            return self._in_ansi_quotes()
        if sign in _FOR_A_SHELL:
            self.why = sign
        self._at += 1
        return sign

    def _escaped(self) -> str:
        if self._at + 1 == len(self._text):
            raise ValueError("a backslash stands at the end, and nothing behind it")
        self._at += 2
        sign = self._text[self._at - 1]
        return "" if sign == "\n" else sign

    def _until_quote(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise ValueError("a quote ' is not closed")
        word, self._at = self._text[self._at + 1 : end], end + 1
        return word

    def _in_double_quotes(self) -> str:
        self._at += 1
        parts: list[str] = []
        while self._at < len(self._text):
            sign = self._text[self._at]
            if sign == '"':
                self._at += 1
                return "".join(parts)
            if sign in "$`":
                self.why = sign
                return ""
            if sign == "\\" and self._text[self._at + 1 : self._at + 2] in (
                "$",
                "`",
                '"',
                "\\",
                "\n",
            ):
                parts.append(self._escaped())
            else:
                parts.append(sign)
                self._at += 1
        raise ValueError('a quote " is not closed')

    def _in_ansi_quotes(self) -> str:
        found = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL).match(self._text, self._at)
        if found is None:
            raise ValueError("a quote $' is not closed")
        self._at = found.end()
        return (
            _ANSI.sub(_ansi, found[1])
            .encode("utf-8", "surrogateescape")
            .decode("utf-8", "surrogateescape")
        )


def _ansi(found: re.Match[str]) -> str:
    r"""\x and octal numbers are bytes, those from 128 on parts of a character or none."""
    letter, byte, short, long, octal, other = found.groups()
    if letter:
        return chr(_IN_ANSI[letter])
    if short or long:
        return chr(min(int(short or long, 16), 0x10FFFF))
    if byte or octal:
        code = int(byte, 16) if byte else int(octal, 8) & 0xFF
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
    return str(other)
