"""What somebody meets who has never used gpuq: hints that fit, and no word too early."""

import os
from pathlib import Path
from pwd import getpwuid
from typing import Any

import pytest

from gpuq.cli import edit_text
from gpuq.cli.after import read_dependency
from gpuq.cli.job_page import job_fields
from gpuq.cli.submit_again import submit_line
from gpuq.errors import NeverFits, UsageError
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, event, in_full, job, page

TAKEN = {"first": 184, "count": 1, "group": "g184", "entries": [[184, 184]]}


@pytest.fixture
def accepting(fake: FakeDaemon) -> FakeDaemon:
    fake.answers["submit"] = TAKEN | {"note": None, "is_new": True}
    fake.answers["status"] = page(job(184))
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── said once it was taken ──


@pytest.mark.parametrize("words", [["no-such-program"], ["-a", "0-3", "no-such-program"]])
def test_a_doubt_is_said_only_of_what_was_queued(
    gpuq: Gpuq, accepting: FakeDaemon, words: list[str]
) -> None:
    assert gpuq("submit", *words).err.endswith("the job is queued all the same\n")
    accepting.answers["submit"] = NeverFits("this machine has 1 GPU. Nothing was queued.")
    ran = gpuq("submit", *words)
    assert (ran.code, ran.err) == (
        NeverFits.exit_code,
        "gpuq: this machine has 1 GPU. Nothing was queued.\n",
    )


def test_what_of_a_script_means_nothing_is_said_only_of_what_was_queued(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    Path("old.sh").write_text("#!/bin/sh\n#SBATCH --account=x --gres=gpu:1\n")
    assert (
        "old.sh: left out, since they mean nothing here: --account" in gpuq("submit", "old.sh").err
    )
    accepting.answers["submit"] = NeverFits("no. Nothing was queued.")
    assert gpuq("submit", "old.sh").err == "gpuq: no. Nothing was queued.\n"


def test_a_doubt_about_a_line_is_said_only_of_what_was_queued(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    Path("jobs.txt").write_text("no-such-program 1\nno-such-program 2\n")
    assert gpuq("submit", "--from", "jobs.txt").err.count("no-such-program") == 1
    accepting.answers["submit"] = NeverFits("no. Nothing was queued.")
    assert "no-such-program" not in gpuq("submit", "--from", "jobs.txt").err


def test_a_folder_that_is_missing_comes_with_what_makes_it(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    ran = gpuq("submit", "-o", "my logs/x", "--stderr", "my logs/y", "true")
    assert ran.err == (
        f"gpuq: there is no directory {folder}/my logs for --output: the job fails unless that is "
        "there when it starts: mkdir -p 'my logs'\n"
    )
    Path("my logs").mkdir()
    assert gpuq("submit", "-o", "my logs/x", "true").err == ""


# ── whose words these are ──


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["python3", "train.py", "--grid", "lr=1"],
            "--grid stands behind the command and goes to train.py",
        ),
        (["true", "--array=0-3"], "--array stands behind the command and goes to true"),
        (["true", "--name", "x", "--time", "2h", "--gpus", "2"], None),
        (["sh", "-c", "sbatch --array 0-3 x"], None),
    ],
)
def test_an_option_behind_the_command_is_the_programs_and_that_is_said(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path, words: list[str], said: str | None
) -> None:
    ran = gpuq("submit", *words)
    assert accepting.requests("submit")[0]["jobs"][0]["argv"] == words
    hint = "; options of gpuq come before it"
    notes = [line for line in ran.err.splitlines() if "no program" not in line]
    assert notes == ([] if said is None else [f"gpuq: {said}{hint}"])


def test_a_slip_on_the_command_line_is_blamed_on_no_line_of_the_script(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    Path("old.sh").write_text("#!/bin/sh\n#SBATCH --dependency=afterok:1\n")
    ran = gpuq("submit", "--dependency=afterok:x", "old.sh")
    assert (ran.code, ran.err[:33]) == (2, "gpuq: --dependency afterok:x: 'af")
    Path("old.sh").write_text("#!/bin/sh\n#SBATCH --dependency=afterok:x\n")
    assert "old.sh, line 2: --dependency" in gpuq("submit", "old.sh").err


def test_slurms_spelling_on_the_command_line_goes_before_the_script_too(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path
) -> None:
    Path("old.sh").write_text("#!/bin/sh\n#SBATCH --job-name=old --gres=gpu:1\n")
    gpuq("submit", "-J", "new", "--gres=gpu:2", "old.sh")
    asked = accepting.requests("submit")[0]["jobs"][0]
    assert (asked["name"], asked["gpus"]) == ("new", 2)


def test_slurms_dependency_takes_what_after_takes() -> None:
    assert read_dependency("afterok:@:g12:4-6,aftercorr:@~1:7") == [
        {"jobs": "@,g12,4-6", "when": "ok", "each": False},
        {"jobs": "@~1", "when": "ok", "each": True},
        {"jobs": "g7", "when": "ok", "each": True},
    ]
    with pytest.raises(UsageError, match="names no job"):
        read_dependency("afterok:@x")


@pytest.mark.parametrize(
    ("name", "text"), [("runs.CSV", "true\n"), ("runs", "lr,seed\n1,2\n"), ("runs", '"lr", "n"\n')]
)
def test_a_table_in_place_of_commands_is_refused(
    gpuq: Gpuq, accepting: FakeDaemon, folder: Path, name: str, text: str
) -> None:
    Path(name).write_text(text)
    ran = gpuq("submit", "--from", name)
    assert (ran.code, accepting.requests("submit")) == (2, [])
    assert f"did you mean --params {name}?" in ran.err
    assert "?." not in ran.err


# ── the same once more ──


@pytest.mark.parametrize("words", [["true"], ["-a", "0-3", "true"]])
def test_a_key_that_is_taken_is_said_once(
    gpuq: Gpuq, accepting: FakeDaemon, words: list[str]
) -> None:
    taken = "job 184 has the key 'nightly' and has not ended: nothing was queued"
    accepting.answers["submit"] = TAKEN | {"note": taken, "is_new": False}
    ran = gpuq("submit", "--key", "nightly", *words, terminal=True)
    assert (ran.code, ran.err) == (0, f"gpuq: {taken}\n")
    assert "queued" not in ran.out
    assert "follow: gpuq logs -f 184" in ran.out
    ran = gpuq("submit", "--key", "nightly", *words)
    assert ran == (0, "g184\n" if len(words) > 1 else "184\n", f"gpuq: {taken}\n")


# ── hints ──


def test_hints_name_the_daemon_that_was_chosen(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    ran = gpuq("--socket", accepting.path, "submit", "true", terminal=True)
    assert f"  follow: gpuq --socket {accepting.path} logs -f 184 " in ran.out
    assert f"stop: gpuq --socket {accepting.path} kill 184\n" in ran.out
    assert "follow: gpuq logs -f 184" in gpuq("submit", "true", terminal=True).out


def test_who_is_held_is_greeted_with_what_lets_it_go(gpuq: Gpuq, accepting: FakeDaemon) -> None:
    held = job(184, substate="held", reason="held by alice")
    accepting.answers["status"] = page(held)
    first = gpuq("submit", "-H", "true", terminal=True).out.splitlines()[0]
    assert first == "Job 184 queued: held by alice; to let it go: gpuq release 184"
    accepting.answers["submit"] = TAKEN | {"count": 3, "note": None}
    assert "gpuq release g184" in gpuq("submit", "-H", "-a", "0-2", "true", terminal=True).out


def test_the_last_submission_can_be_limited(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["show"] = {"job": in_full(job(14, group="g12"))}
    fake.answers["limit"] = {
        "subject": "group g12", "note": None, "off": False, "max_running": 2, "max_gpus": None
    }  # fmt: skip
    assert gpuq("limit", "@", "--max-running", "2").code == 0
    assert fake.requests("show")[0]["ref"] == "@"
    assert fake.requests("limit")[0]["subject"] == "g12"


def test_a_stage_is_named_in_a_dry_run(gpuq: Gpuq, fake: FakeDaemon, folder: Path) -> None:
    fake.answers["dry_run"] = {
        "note": None,
        "verdict": [{"words": "would start now"}, {"words": "10 jobs: would wait: after 5 (ok)"}],
    }
    Path("p.toml").write_text(
        '[stages.prep]\ncommand = ["true"]\n[stages.train]\ncommand = ["true"]\n'
    )
    assert gpuq("submit", "--pipeline", "p.toml", "--dry-run").out == (
        "prep: would start now\ntrain: 10 jobs: would wait: after 5 (ok)\n"
    )


# ── small words ──


def test_what_was_edited_is_told_by_the_names_of_the_options(gpuq: Gpuq, fake: FakeDaemon) -> None:
    edited = event(7, "edited", cause=None, detail={"changed": ["gpus", "time_limit_s"]})
    fake.answers["events"] = lambda asked: {"events": [] if asked["since"] else [edited], "last": 7}
    assert gpuq("events", "--since", "0", terminal=True).out.endswith("changed: gpus, time\n")


def test_a_job_without_gpus_has_none_alone() -> None:
    names = [name for name, _ in job_fields(in_full(job(1, gpu_count=0)))]
    assert "exclusive" not in names
    assert "exclusive" in [name for name, _ in job_fields(in_full(job(1)))]


def test_who_comes_back_with_a_job_is_told(gpuq: Gpuq, fake: FakeDaemon) -> None:
    done = {"id": 45, "last_id": 45, "done": "requeued", "why": None, "with_it": "46-47"}
    fake.answers["requeue"] = {"jobs": [done]}
    fake.answers["undo"] = {"jobs": [done | {"id": 53, "last_id": 53, "done": "ran"}]}
    assert "now; 46-47, skipped for it, wait again\n" in gpuq("requeue", "45", terminal=True).out
    assert gpuq("undo", terminal=True) == (
        0,
        "Job 53 ran and was ended by that kill: gpuq requeue 53 runs it again\n",
        "",
    )


def test_a_job_in_a_copy_is_submitted_again_from_where_it_was(tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "abc"
    (copy / "tree" / "sub").mkdir(parents=True)
    me = getpwuid(os.geteuid()).pw_name
    told = job(1, user=me, cwd=str(copy / "tree" / "sub"), snapshot=str(copy))
    assert "--snapshot" not in submit_line(told), "it cannot be told any more"
    (copy / "manifest.json").write_text('{"top": "/home/alice/vit", "files": {}}')
    line = submit_line(told)
    assert line[line.index("-C") + 1] == "/home/alice/vit/sub"
    assert "--snapshot" in line


# ── the text of an edit ──


def editable(**options: Any) -> dict[str, Any]:
    return {"id": 72, "last_id": 77, "user": "alice", "version": 1, "options": options}


def test_a_text_is_in_the_words_of_the_command_line() -> None:
    text = edit_text.write(editable(time_limit_s=1200.0, heartbeat_s=90.0, preempt_signal=10))
    assert text.startswith("# Jobs 72-77 of alice, all of them, as they wait in the queue.")
    for line in ('time = "20m"', 'heartbeat = "90s"', 'preempt_signal = "USR1"'):
        assert line in text.splitlines()
    assert "# Below this line stand only variables" in text.partition("[env]")[0].splitlines()[-1]
    assert edit_text.read('preempt_signal = "sigusr2"')["preempt_signal"] == 12


def test_an_option_below_the_variables_is_no_variable() -> None:
    text = edit_text.write(editable(env={"time": "1"}))
    assert edit_text.read(text + '"NEW" = "1"\n', ["time"])["env"] == {"time": "1", "NEW": "1"}
    with pytest.raises(UsageError, match="gpus: it stands below"):
        edit_text.read(text + "gpus = 2\n", ["time"])
    with pytest.raises(UsageError, match="begin: no edit changes that: gpuq hold"):
        edit_text.read(text + 'begin = "18:00"\n', ["time"])


def test_several_are_changed(gpuq: Gpuq, fake: FakeDaemon) -> None:
    done = {"id": 72, "last_id": 77, "done": "edited", "why": None, "changed": ["gpus"]}
    fake.answers["edit"] = {"jobs": [done]}
    assert gpuq("edit", "72-77", "-g", "2", "--preempt-signal", "USR1", terminal=True).out == (
        "Jobs 72-77 are changed: gpus\n"
    )
    assert fake.requests("edit")[0]["changes"] == {"gpus": 2, "preempt_signal": 10}
