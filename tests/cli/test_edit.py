"""`gpuq edit`: by options and in an editor, which is a script here."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import edit_text
from gpuq.errors import NeverFits, UsageError
from tests.cli.conftest import Gpuq, Ran
from tests.cli.said import FakeDaemon

OPTIONS = {
    "name": "vit",
    "argv": ["python", "train.py", "--name", 'a "b"\n\x7f\udcff'],
    "cwd": "/home/alice",
    "gpus": 2,
    "gpu_mem_bytes": 20 * 2**30,
    "exclusive": False,
    "visible": "auto",
    "time_limit_s": 5400.5,
    "grace_s": 10.0,
    "stop_to": "all",
    "retries": 0,
    "priority": 0,
    "tags": ["a", "b"],
    "env": {"A": "1", "odd name": "x=\\y"},
}
EDITABLE = {"id": 184, "last_id": 184, "user": "alice", "version": 7, "options": OPTIONS}
EDITED = {"id": 184, "last_id": 184, "done": "edited", "why": None, "changed": ["time_limit_s"]}


@pytest.fixture
def editable(fake: FakeDaemon) -> FakeDaemon:
    fake.answers["editable"] = EDITABLE
    fake.answers["edit"] = {"jobs": [EDITED]}
    return fake


@pytest.fixture
def edit(gpuq: Gpuq, editable: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Edits 184 in an editor that is a shell script: it gets the file as $1."""
    texts = tmp_path / "texts"
    texts.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(texts))
    monkeypatch.delenv("VISUAL", raising=False)

    def run(script: str, terminal: bool = True) -> Ran:
        editor = tmp_path / "editor"
        editor.write_text(f"#!/bin/sh\n{script}\n")
        editor.chmod(0o700)
        monkeypatch.setenv("EDITOR", f"{editor} --wait")
        editor.write_text(f"#!/bin/sh\nshift\n{script}\n")
        return gpuq("edit", "184", terminal=terminal)

    return run


def changes(fake: FakeDaemon) -> dict[str, Any]:
    (asked,) = fake.requests("edit")
    return dict(asked["changes"])


# ── by options ──


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--time", "2h", "-g", "3"], {"time_limit_s": 7200.0, "gpus": 3}),
        (["--gpu-mem", "20G", "--exclusive"], {"gpu_mem_bytes": 20 * 2**30, "exclusive": True}),
        (["--gpu-mem", "auto"], {"gpu_mem": "auto"}),
        (["--gpu-id", "0-2,5"], {"gpu_ids": ["0", "1", "2", "5"]}),
        (["--clear", "time", "--clear", "gpu-mem"], {"time_limit_s": None, "gpu_mem_bytes": None}),
        (["-e", "A=1", "--clear", "env.B"], {"env": {"A": "1", "B": None}}),
        (["--clear", "env"], {"env": None}),
        (["--tag", "a", "--tag", "b", "-p", "-3"], {"tags": ["a", "b"], "priority": -3}),
        (["--shell", "a | b"], {"argv": ["/bin/sh", "-c", "a | b"]}),
        (["-C", "/x/../y", "-o", "/tmp/log"], {"cwd": "/y", "output": "/tmp/log"}),
        (["--retries", "2", "--backoff", "2s"], {"retries": 2, "backoff": "2s"}),
        (["-q", "night", "--preemptible"], {"queue": "night", "preemptible": True}),
        (["--", "python", "t.py", "--time", "2h"], {"argv": ["python", "t.py", "--time", "2h"]}),
        (["-n", "new", "--", "ls"], {"name": "new", "argv": ["ls"]}),
    ],
)
def test_what_options_change(
    gpuq: Gpuq, editable: FakeDaemon, words: list[str], wanted: dict[str, Any]
) -> None:
    ran = gpuq("edit", "12-18", "184", *words, terminal=True)
    assert ran == (0, "Job 184 is changed: time\n", "")
    (asked,) = editable.requests("edit")
    assert (asked["refs"], asked["version"]) == (["12-18", "184"], None)
    assert asked["changes"] == wanted


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--time", "30"], "time: 30 of what?"),
        (["--mem", "much"], "mem: 'much' is no"),
        (["--clear", "shell"], "--clear shell: it is one of"),
        (["--clear", "key"], "--clear key: no edit changes that: submit it anew"),
        (["--shell", "x", "--", "ls"], "--shell holds the whole command"),
    ],
)
def test_a_slip_changes_nothing(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq("edit", "184", *words)
    assert (ran.code, fake.asked) == (2, [])
    assert ran.err.startswith(f"gpuq: {complaint}")


def test_what_was_refused_is_said_and_the_code_tells(gpuq: Gpuq, fake: FakeDaemon) -> None:
    why = "it runs, and only what waits can be edited"
    fake.answers["edit"] = {"jobs": [EDITED, EDITED | {"id": 9, "last_id": 9, "done": "refused"}]}
    fake.answers["edit"]["jobs"][1]["why"] = why  # type: ignore[index]
    ran = gpuq("edit", "184,9", "-n", "x", terminal=True)
    assert (ran.code, ran.out) == (1, f"Job 184 is changed: time\nJob 9: {why}\n")
    assert json.loads(gpuq("edit", "184,9", "-n", "x", "--json").out)["jobs"][1]["why"] == why


# ── in an editor ──


def test_what_is_changed_in_the_text_is_asked_for_and_no_more(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    ran = edit("""sed -i 's/^time = .*/time = "4h"/' "$1" """)
    assert ran == (0, "Job 184 is changed: time\n", "")
    (asked,) = editable.requests("edit")
    assert (asked["refs"], asked["version"]) == (["184-184"], 7)
    assert asked["changes"] == {"time_limit_s": 14400.0}
    assert list((tmp_path / "texts").iterdir()) == [], "no text is left behind"


def test_a_line_that_is_taken_out_means_the_usual(edit: Any, editable: FakeDaemon) -> None:
    edit("""sed -i -e '/^time/d' -e 's/^tag/# tag/' -e '/^"A" =/d' "$1" """)
    assert changes(editable) == {"time_limit_s": None, "tags": None, "env": {"A": None}}


def test_what_the_job_does_not_say_can_be_written_in(edit: Any, editable: FakeDaemon) -> None:
    edit("""sed -i -e 's/^# mem = .*/mem = "8G"/' -e 's/^gpu_mem = .*/gpu_mem = "auto"/' "$1"
            echo '"NEW" = "1"' >> "$1" """)
    assert changes(editable) == {
        "mem_bytes": 8 * 2**30,
        "gpu_mem": "auto",
        "env": {"NEW": "1"},
    }


@pytest.mark.parametrize("script", ["true", "touch $1", "echo '# a remark' >> $1"])
def test_a_text_that_says_the_same_changes_nothing(
    edit: Any, editable: FakeDaemon, script: str
) -> None:
    ran = edit(script)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "gpuq: the text was not changed: nothing was done\n"
    assert editable.requests("edit") == []


def test_an_editor_that_fails_changes_nothing(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    ran = edit("echo 'name = \"x\"' > $1; exit 1")
    assert (ran.code, editable.requests("edit")) == (2, [])
    assert "left with 1: nothing was changed" in ran.err
    assert list((tmp_path / "texts").iterdir()) == []


def test_a_text_that_cannot_be_read_is_shown_again_with_the_reason(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    ran = edit(f"""
        if [ -e {seen} ]; then
          cp "$1" {seen}.again; sed -i 's/^time = .*/time = "4h"/' "$1"
        else
          cp "$1" {seen}; sed -i 's/^time = .*/time = "long"/' "$1"
        fi""")
    assert ran.code == 0
    assert changes(editable) == {"time_limit_s": 14400.0}
    again = Path(f"{seen}.again").read_text(errors="surrogateescape").splitlines()
    assert again[0].startswith("#! time: 'long' is no length of time")
    assert 'time = "long"' in again, "what was written is still there"


def test_what_the_daemon_refuses_is_shown_again_too(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    answers = [NeverFits("--gpus 9 can never start. Nothing was changed."), {"jobs": [EDITED]}]
    editable.answers["edit"] = lambda asked: answers.pop(0)  # type: ignore[return-value]
    ran = edit("""grep -q can.never "$1" && n=1 || n=9; sed -i "s/^gpus = .*/gpus = $n/" "$1" """)
    assert ran.code == 0
    assert [one["changes"] for one in editable.requests("edit")] == [{"gpus": 9}, {"gpus": 1}]


def test_who_does_not_mend_it_keeps_the_text(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    ran = edit("""grep -q '#!' "$1" || echo 'nonsense' >> "$1" """)
    assert (ran.code, editable.requests("edit")) == (2, [])
    (kept,) = (tmp_path / "texts").iterdir()
    assert f"your text is kept in {kept}" in ran.err
    assert "this is no TOML" in ran.err


def test_a_job_that_changed_meanwhile_is_said_so_and_the_text_is_kept(
    edit: Any, editable: FakeDaemon, tmp_path: Path
) -> None:
    why = "somebody has changed it meanwhile"
    editable.answers["edit"] = {"jobs": [EDITED | {"done": "refused", "why": why}]}
    ran = edit("sed -i 's/^name = .*/name = \"x\"/' $1")
    assert (ran.code, ran.out) == (1, f"Job 184: {why}\n")
    (kept,) = (tmp_path / "texts").iterdir()
    assert f"your text is kept in {kept}" in ran.err
    assert 'name = "x"' in kept.read_text(errors="surrogateescape")


def test_without_an_editor_it_says_what_to_do(
    gpuq: Gpuq, editable: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    monkeypatch.delenv("VISUAL", raising=False)
    ran = gpuq("edit", "184")
    assert ran.code == 2
    assert "editor /nowhere/editor: No such file or directory. Set EDITOR" in ran.err


# ── the text ──


def test_a_text_says_all_and_reads_back_to_the_same() -> None:
    text = edit_text.write(EDITABLE)
    assert edit_text.differences(OPTIONS, edit_text.read(text)) == {}


def test_a_text_names_what_else_can_be_said() -> None:
    text = edit_text.write(EDITABLE)
    for field in edit_text.FIELDS:
        assert f"{field.name} = " in text


@pytest.mark.parametrize(
    "line", ["gpus = true", 'gpus = "2"', "time = 30", "tag = 'a'", "exclusive = 1", "what = 1"]
)
def test_a_value_of_another_kind_is_named(line: str) -> None:
    with pytest.raises(UsageError, match=line.split()[0]):
        edit_text.read(line)
