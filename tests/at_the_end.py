"""What is told at the end of a run: the faults that were tried, and what was seen of systemd.

Where the tests go on several processes, what each saw comes together in the one that tells.
"""

from typing import Any

import pytest

REPORTED: list[str] = []  # of systemd


class Row:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.tried = 0
        self.seconds = 0.0
        self.failed = 0
        self.words: list[str] = []

    def take(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        self.seconds += report.duration
        self.failed += report.failed
        if report.skipped and isinstance(report.longrepr, tuple):
            self.words = [f"SKIPPED: {report.longrepr[2].removeprefix('Skipped: ')}"]
        if report.when == "call" and not report.skipped:
            self.tried += properties.get("tried", 1)
            self.words += [properties["figures"]] if "figures" in properties else []

    def cells(self) -> tuple[str, str, str, str]:
        result = f"{self.failed} FAILED" if self.failed else "well"
        words = "; ".join(self.words)
        if words.startswith("SKIPPED"):
            result, words = words, ""
        return self.fault, str(self.tried), f"{self.seconds:.1f}", f"{result}  {words}".strip()


_rows: dict[str, Row] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if (fault := dict(report.user_properties).get("fault")) is not None:
        _rows.setdefault(str(fault), Row(str(fault))).take(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["reported"] = REPORTED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    REPORTED.extend(getattr(node, "workeroutput", {}).get("reported", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _rows:
        _write_faults(terminalreporter)
    if REPORTED:
        terminalreporter.section("systemd in a container")
        for line in REPORTED:
            terminalreporter.line(line)


def _write_faults(terminalreporter: pytest.TerminalReporter) -> None:
    table = [("fault", "tried", "s", "result"), *(row.cells() for row in _rows.values())]
    widths = [max(len(cells[column]) for cells in table) for column in range(3)]
    terminalreporter.section("faults")
    for fault, tried, seconds, result in table:
        left = f"{fault:<{widths[0]}}  {tried:>{widths[1]}}  {seconds:>{widths[2]}}"
        terminalreporter.write_line(f"{left}  {result}")
