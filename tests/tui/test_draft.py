"""A job as it is written in the form, and the command line that it makes."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.cli.as_typed import options_of, read_edit, read_submit
from gpuq.cli.commands import load
from gpuq.cli.submit_again import submit_line
from gpuq.errors import UsageError
from gpuq.tui.data.form.draft import FIELDS, FLAGS, Draft, draft_of, submit_words
from gpuq.tui.data.form.form import (
    SAYS_NOTHING,
    Form,
    duplicate_of,
    edit_of,
    queued_words,
    read_form,
)
from tests.cli.said import ended, in_full, job

EDITABLE = {
    "id": 12,
    "last_id": 12,
    "user": "alice",
    "version": 3,
    "options": {
        "name": "vit",
        "argv": ["python", "train.py"],
        "cwd": "/home/alice/vit",
        "gpus": 1,
        "time_limit_s": 3600.0,
        "tags": ["sweep"],
        "grace_s": 30.0,
        "visible": "auto",
        "stop_to": "all",
        "retries": 0,
        "priority": 0,
        "preemptible": False,
        "env": {"SEED": "1", "LR": "0.1"},
    },
}


def wrong(**fields: str) -> dict[str, str]:
    return dict(read_form(Form(draft=Draft(**fields))).wrong)


def edited(**changes: str) -> list[str]:
    form = edit_of(EDITABLE)
    words = read_form(replace(form, draft=replace(form.draft, **changes))).words
    assert words is not None
    return list(words)


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


@settings(max_examples=100)
@given(
    argv=st.lists(texts, min_size=1),
    name=texts,
    tags=st.lists(texts, max_size=3),
    gpus=st.integers(0, 9),
    mem_gib=st.integers(1, 80) | st.none(),
    time_s=st.integers(1, 10**6) | st.none(),
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), texts, max_size=3),
)
def test_a_duplicate_asks_for_what_the_job_asked(
    argv: list[str],
    name: str,
    tags: list[str],
    gpus: int,
    mem_gib: int | None,
    time_s: int | None,
    env: dict[str, str],
) -> None:
    view = in_full(
        job(184, command=argv, name=name, tags=tags, gpu_count=gpus, time_limit_s=time_s),
        env=env,
        env_names=list(env),
        retries=2,
        gpu_mem_bytes=None if mem_gib is None else mem_gib * 2**30,
    )
    reading = read_form(duplicate_of(view, "alice"))
    assert reading.wrong == {}
    assert reading.words is not None
    assert read_submit(reading.words[1:]).job == read_submit(submit_line(view)[2:]).job


def test_every_field_is_said_with_its_option() -> None:
    draft = Draft(
        command="python train.py",
        gpus="2",
        gpu_mem="20G",
        time="2h",
        name="a name",
        cwd="runs",
        after="12 13:any",
        array="0-3%2",
        queue="night",
        priority="-5",
        tags="sweep 'two words'",
        other="--retries 3 -e A=1",
    )
    words = submit_words(draft)
    asked = read_submit(words).job
    assert words[-3:] == ["--", "python", "train.py"]
    assert (asked["gpus"], asked["gpu_mem_bytes"], asked["time_limit_s"]) == (2, 20 * 2**30, 7200)
    assert (asked["name"], asked["cwd"], asked["queue"]) == ("a name", "runs", "night")
    assert (asked["priority"], asked["tags"]) == (-5, ["sweep", "two words"])
    assert [need["jobs"] for need in asked["after"]] == ["12", "13"]
    assert asked["array"] == {"indices": [[0, 4, 1]], "max_running": 2}
    assert (asked["retries"], asked["env"]) == (3, {"A": "1"})
    assert draft_of(words) == replace(draft, other="--retries 3 -e A=1")


def test_all_fields_are_options_of_submit_and_flags_have_no_value() -> None:
    options = {name: one for one in load("submit").params for name in one.opts}
    for field in FIELDS:
        assert set(field.options) <= options.keys()
    for flag in FLAGS:
        assert getattr(options[flag], "is_flag", False)


def test_a_pipe_is_a_text_for_a_shell_and_says_so() -> None:
    reading = read_form(Form(draft=Draft(command="ls | head")))
    assert reading.words == ["submit", "--shell", "ls | head"]
    assert reading.how == "a text for /bin/sh: it has |"


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({}, "command", "there is no command to run"),
        ({"command": "ls 'a"}, "command", "a quote ' is not closed"),
        ({"command": "ls", "gpus": "two"}, "gpus", "'two' is no whole number"),
        ({"command": "ls", "gpu_mem": "20Q"}, "gpu_mem", "'20Q' is no size"),
        ({"command": "ls", "time": "20"}, "time", "of what? Write 20s, 20m or 20h"),
        ({"command": "ls", "after": "12:soon"}, "after", "'soon' is none of ok, any, fail"),
        ({"command": "ls", "array": "3-"}, "array", "is no index and no range"),
        ({"command": "ls", "cwd": "~/vit"}, "cwd", "no shell reads this"),
        ({"command": "ls", "other": "--no-such"}, "other", "no such option: --no-such"),
        ({"command": "ls", "other": "--retries"}, "other", "requires an argument"),
        ({"command": "ls", "other": "python x"}, "other", "'python' is no option"),
        ({"command": "ls", "other": "--"}, "other", "'--' is no option"),
        ({"command": "ls", "other": "--json"}, "other", "for the command line"),
        ({"command": "ls", "other": "--exclusive"}, "other", "says how --gpu-mem is meant"),
        ({"command": "ls {i} | wc", "array": "0-3"}, "command", "a shell would read the value"),
    ],
)
def test_a_field_that_is_wrong_says_why(fields: dict[str, str], field: str, why: str) -> None:
    found = wrong(**fields)
    assert list(found) == [field]
    assert why in found[field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert list(wrong(command="ls", gpus="x", time="y", other="z")) == ["gpus", "time", "other"]


def test_an_edit_says_only_what_changes() -> None:
    assert edited(time="4h") == ["edit", "12", "--time", "4h"]
    assert edited(name="") == ["edit", "12", "--clear", "name"]
    assert edited(command="python eval.py") == ["edit", "12", "--", "python", "eval.py"]
    assert edited(other="-e SEED=2 --grace 30s") == [
        *("edit", "12", "--clear", "env.LR", "-e", "SEED=2"),
    ]
    assert edited(other="-e SEED=1 -e LR=0.1") == ["edit", "12", "--clear", "grace"]
    words = edited(tags="sweep vit", gpus="0", command="ls | head")
    assert read_edit(words[1:]).changes == {
        "tags": ["sweep", "vit"],
        "gpus": 0,
        "argv": ["/bin/sh", "-c", "ls | head"],
    }


def test_an_edit_of_nothing_sends_nothing() -> None:
    reading = read_form(edit_of(EDITABLE))
    assert (reading.words, reading.how) == (None, SAYS_NOTHING)


def test_what_no_edit_changes_is_said_at_its_field() -> None:
    form = edit_of(EDITABLE)
    reading = read_form(replace(form, draft=replace(form.draft, after="7")))
    assert dict(reading.wrong) == {"after": "no edit changes that: submit it anew"}


def test_a_duplicate_says_what_it_is_not() -> None:
    view = in_full(ended(179, user="bob"), env_names=["TOKEN"])
    form = duplicate_of(view, "alice")
    assert form.notes[0] == "it is bob's: this one will be yours"
    assert "environment is yours" in form.notes[1]
    assert "the values of TOKEN" in form.notes[2]
    assert "requires an argument" not in str(read_form(form).wrong)


def test_options_say_nothing_where_they_say_the_usual() -> None:
    said: dict[str, Any] = options_of(["-g", "0", "--visible", "auto", "--stop-to", "all"])
    assert said == {"gpus": 0}
    with pytest.raises(UsageError, match="no such option: --help"):
        options_of(["--help"])


def test_what_became_of_a_submission() -> None:
    assert queued_words({"first": 184, "count": 1}) == "Job 184 queued"
    assert queued_words({"first": 184, "count": 4}) == "4 jobs queued as g184"
    taken = {"first": 12, "count": 1, "is_new": False}
    assert queued_words(taken) == "nothing was queued: job 12 has that key"
