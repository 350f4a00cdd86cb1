"""The manual pages say what `--help` says, all of it, in roff that groff has no word against."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpuq import config
from gpuq.cli.commands import COMMANDS
from gpuq.manual.command_page import command_page
from gpuq.manual.daemon_pages import daemon_page, settings_page
from gpuq.manual.roff import Page

PAGES = {"gpuq.1": command_page, "gpuqd.8": daemon_page, "gpuq.toml.5": settings_page}


def read(page: str, folder: Path) -> str:
    """As man shows it; what groff warns of is an error here."""
    if shutil.which("groff") is None:
        pytest.skip(
            "no groff here (Debian: groff-base): nobody looks at the pages as man shows them"
        )
    command = ["groff", "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=200n"]
    shown = subprocess.run(
        command, input=page, capture_output=True, text=True, cwd=folder, check=False
    )
    assert (shown.stderr, shown.returncode) == ("", 0)
    return shown.stdout


@pytest.mark.parametrize("name", PAGES)
def test_each_page_reads_without_a_warning(name: str, tmp_path: Path) -> None:
    assert "SEE ALSO" in read(PAGES[name](), tmp_path)


def test_every_command_and_what_its_help_says_stands_in_the_page(tmp_path: Path) -> None:
    page = read(command_page(), tmp_path)
    for name in (name for name, entry in COMMANDS.items() if entry.panel):
        assert f"   gpuq {name}" in page
    for words in ("gpuq daemon stop", "--gpu-mem SIZE|auto", "GPUs; 1 unless said.", "Placement:"):
        assert words in page
    assert "gpuq submit -g 2 -n vit python train.py -g 7  two GPUs; `-g 7` belongs" in page
    for code, meaning in (("4", "no daemon, or one that does"), ("124", "`wait --timeout` ran")):
        assert any(line.split()[:1] == [code] and meaning in line for line in page.split("\n"))


def test_every_setting_stands_in_its_page_and_is_an_option_of_the_daemon(tmp_path: Path) -> None:
    file, options = read(settings_page(), tmp_path), read(daemon_page(), tmp_path)
    for setting in config.SETTINGS:
        assert f"{setting.name} = {setting.form}{' (restart)' * setting.at_start}\n" in file
        assert f"{setting.flag}" in options
    assert "the middle of a longer log is dropped. Default: 1G." in file
    assert "gpuqd backup" in options
    assert "--force" in options


def test_nothing_in_a_text_is_taken_for_markup(tmp_path: Path) -> None:
    page = Page("x", 1, "a page")
    page.paragraph(".SH not a heading")
    page.verbatim(["'ignored?", 'C:\\new -- "quoted"', ""])
    page.definitions([("-x 'y'", ".it is one")])
    shown = read(page.text, tmp_path)
    for text in (".SH not a heading", "'ignored?", 'C:\\new -- "quoted"', "-x 'y'", ".it is one"):
        assert text in shown


def test_the_module_writes_them_where_man_looks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpuq.manual", str(tmp_path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "man8" / "gpuqd.8").read_text() == daemon_page()
    assert {file.name for file in tmp_path.glob("man?/*")} == set(PAGES)


def test_the_module_says_where_it_could_not_write(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    command = [sys.executable, "-m", "gpuq.manual", str(there)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = f"python -m gpuq.manual: cannot write {there}/man1/gpuq.1: Not a directory\n"
    assert (ran.stderr, ran.returncode) == (said, 1)
