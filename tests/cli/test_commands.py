"""How commands are found, what a slip leads to, and how help and errors look."""

import subprocess
from pathlib import Path

import pytest

import gpuq as package
from gpuq.cli import console, main
from gpuq.cli.commands import ALIASES, COMMANDS, load
from gpuq.cli.console import Chosen
from gpuq.errors import BY_CODE, GpuqError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, job, page
from tests.conftest import BIN

NAMES = [name for name, entry in COMMANDS.items() if entry.panel]


# ── a slip ──


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sumbit", "python"], "there is no command 'sumbit'; did you mean: gpuq submit"),
        (["lgos"], "there is no command 'lgos'; did you mean: gpuq logs"),
        (["sub", "x"], "there is no command 'sub'; did you mean: gpuq submit"),
        (
            ["python", "a b.py", "--lr"],
            "there is no command 'python'. To queue it: gpuq submit python 'a b.py' --lr",
        ),
        (["\x1b[2J"], "there is no command '\\\\x1b[2J'. To queue it: gpuq submit $'\\x1b[2J'"),
        (
            ["daemon", "stat"],
            "there is no command 'stat'; did you mean: gpuq daemon start or gpuq daemon status",
        ),
        (["daemon", "xyz"], "there is no command 'xyz'. See: gpuq daemon --help"),
        (["--verson"], "no such option: --verson (Possible options: --version). See: gpuq --help"),
        (["status", "--limit", "x"], "invalid value for '--limit': 'x' is not a valid int"),
        (["wait"], "missing argument 'JOB ...'. See: gpuq wait --help"),
        (["st", "--nope"], "no such option: --nope"),
        (["--color", "pink", "status"], "--color pink: it is auto, always or never"),
        (["completion", "tcsh"], "no completion for 'tcsh'"),
    ],
)
def test_a_slip_is_one_line_and_asks_nobody(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq(*words)
    assert (ran.code, ran.out, fake.asked) == (2, "", [])
    assert ran.err.startswith(f"gpuq: {complaint}")
    assert ran.err.count("\n") == 1


def test_nothing_goes_by_prefix(gpuq: Gpuq) -> None:
    for name in NAMES:
        if name[:-1] not in COMMANDS.keys() | ALIASES.keys():
            assert gpuq(name[:-1]).code == 2


# ── errors ──


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_every_error_is_one_line_with_its_own_code(
    gpuq: Gpuq, fake: FakeDaemon, kind: type[GpuqError]
) -> None:
    fake.answers["ping"] = kind("it went\nwrong \x1b[31m")
    assert gpuq("ping") == (kind.exit_code, "", "gpuq: it went wrong \\x1b[31m\n")


def test_where_no_daemon_answers_the_next_command_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["--state-dir", str(tmp_path), "status"]) == 4
    assert capfd.readouterr().err == (
        f"gpuq: no daemon answers at {tmp_path}/gpuq.sock (from --state-dir). "
        "Start one: gpuq daemon start\n"
    )


def test_an_interrupt_is_quiet(gpuq: Gpuq, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(console, "connect", interrupt)
    assert gpuq("ping") == (130, "", "")


def piped(fake: FakeDaemon, words: str, into: str) -> subprocess.CompletedProcess[str]:
    fake.answers["status"] = page(*(job(number, command=["x" * 2000]) for number in range(1, 200)))
    line = f'"{BIN}/gpuq" --socket "{fake.path}" {words} {into}; echo "${{PIPESTATUS[0]}}" >&2'
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_reader_who_has_seen_enough_is_no_error(fake: FakeDaemon) -> None:
    ran = piped(fake, "status", "| head -c 1")
    assert (ran.stdout, ran.stderr) == ("1", "141\n")


def test_a_full_disk_is_told_in_one_line(fake: FakeDaemon) -> None:
    ran = piped(fake, "status", "> /dev/full")
    assert ran.stderr == "gpuq: writing: No space left on device\n1\n"


# ── help ──


def test_help_names_every_command_and_loads_none_of_them(gpuq: Gpuq) -> None:
    ran = gpuq("--help")
    assert ran.code == 0
    for name in NAMES:
        assert f"\n  {name} " in ran.out


@pytest.mark.parametrize("name", NAMES)
def test_help_begins_with_its_purpose_and_examples(gpuq: Gpuq, name: str) -> None:
    lines = gpuq(name, "--help").out.splitlines()
    assert lines[0].endswith(".")
    assert lines[1:3] == ["", "Examples:"]
    assert lines[3].startswith("  ")
    usage = next(i for i, line in enumerate(lines) if line.startswith(f"Usage: gpuq {name}"))
    assert usage > 3
    assert all(line.isascii() for line in lines)


def test_the_options_of_submit_stand_in_panels(gpuq: Gpuq) -> None:
    out = gpuq("submit", "--help").out
    places = [
        out.index(f"\n{panel}:\n")
        for panel in ("Resources", "Placement", "Order", "Output", "Options")
    ]
    assert places == sorted(places)


def test_submit_and_run_offer_the_same_of_a_job() -> None:
    names = [{param.name for param in load(name).params} for name in ("submit", "run")]
    own = {"wait", "follow", "json", "dry_run", "pipeline", "from_"}
    assert names[0] - names[1] == own
    assert names[1] <= names[0]


def test_the_version_is_one_word(gpuq: Gpuq) -> None:
    assert gpuq("--version") == (0, f"gpuq {package.__version__}\n", "")


def test_an_alias_is_its_command(gpuq: Gpuq) -> None:
    assert gpuq("cancel", "--help").out == gpuq("kill", "--help").out


# ── the look ──


class Context:
    def __init__(self, color: str = "auto") -> None:
        self.obj = Chosen(color=color)


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)


@pytest.mark.parametrize(
    ("color", "variables", "colour"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("never", {}, False),
        ("always", {"NO_COLOR": "1"}, True),
    ],
)
def test_when_there_is_colour(
    tty: None,
    monkeypatch: pytest.MonkeyPatch,
    color: str,
    variables: dict[str, str],
    colour: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert console.look(Context(color)).colour is colour  # type: ignore[arg-type]


def test_a_pipe_has_neither_colour_nor_columns_unless_they_are_asked_for() -> None:
    assert console.look(Context())[:2] == (False, False)  # type: ignore[arg-type]
    assert console.look(Context("always"))[:2] == (True, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variables", "unicode"),
    [
        ({}, True),
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "en_US.utf8"}, True),
        ({"LC_ALL": "C"}, False),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, True),
    ],
)
def test_ascii_where_the_locale_has_no_more(
    tty: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], unicode: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert console.look(Context()).unicode is unicode  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [("status", "--color", "never"), ("kill", "--socket", "/x", "3")])
def test_an_option_of_gpuq_itself_is_told_its_place(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(list(words)) == 2
    told = f"gpuq: {words[1]} stands before the command: gpuq {words[1]} ... {words[0]}\n"
    assert capfd.readouterr().err == told
