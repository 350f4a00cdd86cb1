"""`[top]` of the config files: what may stand there, whose counts, and what is said of a mistake."""

from pathlib import Path

import pytest

from gpuq.errors import UsageError
from gpuq.tui.keymap import normal, read_keymap
from gpuq.tui.settings import TOP, TopSettings, read_top
from tests.cli.said import in_full
from tests.tui.screened import Screened, row, screened

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def read(tmp_path: Path, text: str | None, machine: str | None = None) -> TopSettings:
    """With the user's file and the machine's; None where there is none."""
    own, etc = tmp_path / "gpuq" / "gpuq.toml", tmp_path / "etc.toml"
    own.parent.mkdir(exist_ok=True)
    for path, written in ((own, text), (etc, machine)):
        if written is not None:
            path.write_text(written)
    return read_top({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}, str(etc))


def keymap(tmp_path: Path, text: str) -> dict[str, str]:
    return dict(read_keymap(read(tmp_path, f"[top.keys]\n{text}").keys))


def test_without_a_file_all_is_by_default(tmp_path: Path) -> None:
    found = read(tmp_path, None)
    assert [found.of(setting.name) for setting in TOP] == [None, False, True, False]
    assert read_keymap(found.keys) == {}


def test_an_option_beats_the_own_file_beats_that_of_the_machine(tmp_path: Path) -> None:
    machine = '[top]\ntheme = "nord"\nmouse = false\n[top.keys]\nlog = "L"\nquit = "Q"\n'
    found = read(tmp_path, '[top]\ntheme = "monokai"\n[top.keys]\nlog = "f3"\n', machine)
    assert (found.of("theme", "dracula"), found.of("theme"), found.of("mouse")) == (
        "dracula",
        "monokai",
        False,
    )
    assert read_keymap(found.keys) == {"log": "f3", "quit": "Q"}
    assert found.trouble is None


def test_a_mistake_in_the_file_of_the_machine_stops_nobody(tmp_path: Path) -> None:
    found = read(tmp_path, '[top]\ntheme = "nord"\n', "[top]\nmous = 3\n")
    assert found.of("theme") == "nord"
    assert found.trouble == f"{tmp_path}/etc.toml: [top] has no 'mous'; did you mean mouse?"


def test_what_else_is_wrong_in_the_file_is_for_the_daemon_to_say(tmp_path: Path) -> None:
    assert read(tmp_path, 'grece = 3\n[top]\ntheme = "nord"\n').of("theme") == "nord"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[top]\nthema = 3\n", "[top] has no 'thema'; did you mean theme?"),
        ("[top]\nxyz = 3\n", "[top] has no 'xyz'; known are theme, ascii, mouse, readonly, keys"),
        ("[top]\nmouse = 3\n", "[top] mouse: 3 is neither true nor false"),
        ("[top]\ntheme = 3\n", "[top] theme: 3 is not text"),
        ("top = 3\n", "top = 3 is no table. Write [top] on a line of its own"),
        ("[top]\nkeys = 3\n", "[top] keys: 3 is no table. Write [top.keys] on a line of its own"),
        ("[top.keys]\nlog = 3\n", "[top.keys] log: 3 is no key."),
        ('[top.keys]\nlog = ""\n', "[top.keys] log: '' is no key."),
        (
            '[top.keys]\nlgo = "x"\n',
            "[top.keys] lgo: there is no such key to set; did you mean log?",
        ),
        ('[top.keys]\nlog = "strg+x"\n', "[top.keys] log: 'strg+x' is no key."),
        ('[top.keys]\nlog = "l,bogus"\n', "[top.keys] log: 'bogus' is no key."),
        (
            '[top.keys]\nlog = "q"\n',
            "[top.keys] log: q is quit already (leave; jobs go on). Take another one, or set quit too",
        ),
        ('[top.keys]\nlog = "f9"\ndetail = "f9"\n', "f9 is "),
        ('[top.keys]\nhelp.close = "j"\n', "help.close: j is text.down already"),
        ("[top\n", "In TOML a text stands in quotes"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_keymap(read(tmp_path, text).keys)
    assert str(caught.value).startswith(f"{tmp_path}/gpuq/gpuq.toml: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("key", "letter"),
    [
        ("dialog.leave", "N"),
        ("dialog.leave", "enter"),
        ("dialog.no", "n,N"),
        ("filter.clear", "left"),
        ("form.send", "S"),
        ("form.keep", "f7"),
    ],
)
def test_nobody_is_left_in_a_field_that_takes_the_key_out_of_it_for_text(
    tmp_path: Path, key: str, letter: str
) -> None:
    with pytest.raises(
        UsageError, match=r"text is written, and .* belongs to that[.] Take another"
    ):
        keymap(tmp_path, f'{key} = "{letter}"')
    assert keymap(tmp_path, f'{key} = "{letter},f8"') == {key: f"{letter},f8"}


def test_keys_may_be_written_as_they_stand_on_the_keyboard(tmp_path: Path) -> None:
    assert keymap(tmp_path, 'log = "?,L, ctrl+l,f3"\nhelp = "f1"') == {
        "log": "question_mark,L,ctrl+l,f3",
        "help": "f1",
    }
    assert normal(",") == ["comma"]
    assert normal("x,,") == ["x", "comma"]
    assert normal("+") == ["plus"]


def test_names_with_a_dot_need_no_quotes(tmp_path: Path) -> None:
    assert keymap(tmp_path, 'move.down = "f6"\n"move.up" = "f7"\nnew = "f8"') == {
        "move.down": "f6",
        "move.up": "f7",
        "new": "f8",
    }


def test_two_keys_may_change_places(tmp_path: Path) -> None:
    assert keymap(tmp_path, 'log = "enter"\ndetail = "l"') == {"log": "enter", "detail": "l"}


def test_another_key_does_it_and_stands_in_the_help_and_at_the_foot(tmp_path: Path) -> None:
    async def deed(screen: Screened) -> None:
        assert "f3 Log" in screen.text()
        await screen.press("l")
        assert screen.app.screen.pane.tab == "detail"
        await screen.press("f3")
        assert screen.app.screen.pane.tab == "log"
        await screen.press("f2")
        await screen.shows("All keys")
        lines = screen.text().splitlines()
        assert any("f3" in line and "what it writes" in line for line in lines)

    asked = {"log": "f3", "help": "f2"}
    answers = {"show": {"job": in_full(row(181))}}
    screened(tmp_path, deed, jobs=[row(181)], keymap=asked, size=(100, 60), answers=answers)


def test_the_page_has_every_setting_of_the_screen() -> None:
    _, _, rest = PAGE.read_text().partition("\n## The screen\n")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert found == [
        [f"`{setting.name}`", setting.form, setting.shown_default, setting.help] for setting in TOP
    ]


def test_the_example_of_the_page_can_be_read(tmp_path: Path) -> None:
    _, _, rest = PAGE.read_text().partition("\n## The screen\n")
    text = rest.partition("```toml\n")[2].partition("```")[0]
    found = read(tmp_path, text)
    assert found.values
    assert read_keymap(found.keys)
