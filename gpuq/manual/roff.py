"""A manual page in roff, the markup of man(7)."""

from collections.abc import Iterable

import gpuq


class Page:
    """Is written from top to bottom; `text` is the page. Whatever a text holds, nothing in it is
    taken for markup."""

    def __init__(self, name: str, section: int, summary: str) -> None:
        title = name.upper()
        self._lines = [f'.TH "{title}" "{section}" "" "gpuq {gpuq.__version__}" "gpuq"']
        self.heading("NAME")
        self._lines.append(f"{_plain(name)} \\- {_plain(summary)}")

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def heading(self, title: str) -> None:
        self._lines.append(f'.SH "{_plain(title)}"')

    def subheading(self, title: str) -> None:
        self._lines.append(f'.SS "{_plain(title)}"')

    def paragraph(self, text: str) -> None:
        self._lines += [".PP", _plain(" ".join(text.split()))]

    def verbatim(self, lines: Iterable[str]) -> None:
        """Lines that stay as they are, such as examples."""
        self._lines += [".PP", ".RS 2", ".nf", *map(_plain, lines), ".fi", ".RE"]

    def definitions(self, pairs: Iterable[tuple[str, str]]) -> None:
        """What is defined in bold, and what it is below it."""
        for term, meaning in pairs:
            self._lines += [".TP", f"\\fB{_plain(term)}\\fR", _plain(" ".join(meaning.split()))]

    def help(self, text: str) -> None:
        """The text of a `--help`: paragraphs, and indented lines that stay as they are."""
        for block in text.strip().split("\n\n"):
            lines = block.split("\n")
            prose = [line for line in lines if not line.startswith("  ")]
            examples = [line.removeprefix("  ") for line in lines if line.startswith("  ")]
            if prose:
                self.paragraph(" ".join(prose))
            if examples:
                self.verbatim(examples)


def _plain(text: str) -> str:
    """Hyphens as they are typed, no escapes, and no line that begins like a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
