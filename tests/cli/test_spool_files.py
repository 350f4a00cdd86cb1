"""What becomes of the files in a spool folder, by the client that takes them; the daemon's answers are
the test's."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli import spool_files
from gpuq.errors import GpuqError, NeverFits
from gpuq.protocol import SPOOL_LATER, SPOOL_MORE
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said

SCRIPT = "#!/bin/sh\n#GPUQ -g 2 --time 1h -n vit\npython train.py\n"


class Folder:
    """A spool folder, and how it looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)

    def drop(self, name: str, text: str = SCRIPT, at: float | None = None) -> Path:
        file = self.path / name
        file.write_text(text)
        if at is not None:
            os.utime(file, (at, at))
        return file

    @property
    def left(self) -> set[str]:
        return set(os.listdir(self.path)) - {"accepted", "rejected"}

    @property
    def accepted(self) -> set[str]:
        return set(os.listdir(self.path / "accepted"))

    def reason(self, name: str) -> str:
        assert (self.path / "rejected" / name).is_symlink() or (
            self.path / "rejected" / name
        ).exists()
        return (self.path / "rejected" / f"{name}.reason").read_text().strip()


@pytest.fixture
def folder(tmp_path: Path, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(spool_files, "YOUNG_S", 0.0)
    fake.answers["submit"] = one_after_the_other()
    return Folder(tmp_path / "spool")


def one_after_the_other() -> Callable[[Said], Said]:
    """Each token is a submission of its own, whose ids follow on those before."""
    tokens: dict[str, int] = {}

    def answer(asked: Said) -> Said:
        first = tokens.setdefault(asked["token"], 184 + len(tokens))
        count = len(asked["jobs"])
        return {"first": first, "count": count, "group": f"g{first}", "note": None, "entries": []}

    return answer


def submits(fake: FakeDaemon) -> list[Said]:
    return [asked for asked in fake.asked if asked["do"] == "submit"]


# ── what is taken ──


def test_a_script_is_a_job_and_is_moved_on(gpuq: Gpuq, fake: FakeDaemon, folder: Folder) -> None:
    folder.drop("train.sh")
    assert gpuq("__spool", str(folder.path)).code == 0
    (asked,) = submits(fake)
    (job,) = asked["jobs"]
    assert (job["gpus"], job["time_limit_s"], job["name"]) == (2, 3600.0, "vit")
    assert (job["script"], job["argv"]) == (SCRIPT, ["train.sh"])
    assert job["cwd"] == os.getcwd()
    assert (folder.left, folder.accepted) == (set(), {"184-train.sh"})


def test_json_is_read_as_from_a_file_of_lines(gpuq: Gpuq, fake: FakeDaemon, folder: Folder) -> None:
    folder.drop("a.jsonl", '{"argv": ["true"], "gpus": 0}\n# nothing\n\necho hi\n', at=1.0)
    folder.drop("b.json", '{\n "shell": "a | b",\n "tags": ["x"]\n}\n', at=2.0)
    folder.drop("c.JSON", '[{"argv": ["true"]}, {"argv": ["false"]}]', at=3.0)
    assert gpuq("__spool", str(folder.path)).code == 0
    words = [[job["argv"] for job in asked["jobs"]] for asked in submits(fake)]
    assert words == [
        [["true"], ["echo", "hi"]],
        [["/bin/sh", "-c", "a | b"]],
        [["true"], ["false"]],
    ]
    assert folder.accepted == {"184-a.jsonl", "185-b.json", "186-c.JSON"}


def test_toml_is_a_pipeline_that_runs_where_jobs_of_the_folder_do(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    stages = '[stages.prep]\ncommand = ["a"]\n[stages.train]\ncommand = ["b"]\nneeds = ["prep"]\n'
    folder.drop("p.toml", stages)
    assert gpuq("__spool", str(folder.path)).code == 0
    (asked,) = submits(fake)
    assert [job["argv"] for job in asked["jobs"]] == [["a"], ["b"]]
    assert asked["jobs"][1]["after"][0]["entry"] == 0
    assert {job["cwd"] for job in asked["jobs"]} == {os.getcwd()}


def test_who_came_first_comes_first(gpuq: Gpuq, fake: FakeDaemon, folder: Folder) -> None:
    for name, at in (("b.sh", 1.0), ("c.sh", 3.0), ("a.sh", 2.0)):
        folder.drop(name, at=at)
    gpuq("__spool", str(folder.path))
    assert [asked["jobs"][0]["argv"] for asked in submits(fake)] == [["b.sh"], ["a.sh"], ["c.sh"]]


def test_what_is_not_meant_yet_stays(gpuq: Gpuq, fake: FakeDaemon, folder: Folder) -> None:
    for name in (".hidden", "x.tmp", "x.part", "x~"):
        folder.drop(name)
    (folder.path / "folder.sh").mkdir()
    assert gpuq("__spool", str(folder.path)).code == 0
    assert submits(fake) == []
    assert folder.left == {".hidden", "x.tmp", "x.part", "x~", "folder.sh"}


def test_what_somebody_has_open_for_writing_is_not_taken_yet(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    with folder.drop("slow.sh").open("a") as writer:
        folder.drop("whole.sh")
        assert gpuq("__spool", str(folder.path)).code == SPOOL_LATER
        assert (folder.left, folder.accepted) == ({"slow.sh"}, {"184-whole.sh"})
        writer.write("exit 3\n")
    assert gpuq("__spool", str(folder.path)).code == 0
    assert submits(fake)[-1]["jobs"][0]["script"] == SCRIPT + "exit 3\n"


def test_a_young_empty_file_and_a_second_name_are_waited_for(
    gpuq: Gpuq, folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spool_files, "YOUNG_S", 3600.0)
    folder.drop("empty.sh", "")
    source = tmp_path / "source.sh"
    source.write_text(SCRIPT)
    os.link(source, folder.path / "linked.sh")
    assert gpuq("__spool", str(folder.path)).code == SPOOL_LATER
    assert folder.left == {"empty.sh", "linked.sh"}
    source.unlink()
    assert gpuq("__spool", str(folder.path)).code == SPOOL_LATER
    assert (folder.left, folder.accepted) == ({"empty.sh"}, {"184-linked.sh"})


# ── what is rejected ──


def test_what_is_no_job_file_is_rejected_with_the_reason(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    folder.drop("bare.sh", "python train.py\n")
    folder.drop("typo.sh", "#!/bin/sh\n#GPUQ --gpu 2\n")
    folder.drop("nul.sh", "#!/bin/sh\n\0")
    folder.drop("empty.sh", "")
    folder.drop("bad.json", "{")
    folder.drop("deep.json", "[" * 200_000)
    folder.drop("text.json", '"text"')
    folder.drop("bad.jsonl", 'true\n{"argv": 3}\n')
    folder.drop("bad.toml", "stages = 3")
    (folder.path / "link.sh").symlink_to(secret)
    os.link(folder.drop("two.sh"), folder.path / "names.sh")
    os.mkfifo(folder.path / "pipe.sh")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder.path / "socket"))
    with folder.drop("large.sh").open("w") as large:
        large.truncate(5 * 2**20)
    assert gpuq("__spool", str(folder.path)).code == 0
    assert submits(fake) == []
    assert (folder.left, folder.accepted) == (set(), set())
    expected = {
        "bare.sh": "its first line names no interpreter",
        "typo.sh": "line 2: no such option: --gpu",
        "nul.sh": "it holds a NUL byte",
        "empty.sh": "it is empty",
        "bad.json": "it is no JSON",
        "deep.json": "nested too deep",
        "text.json": "an object of JSON",
        "bad.jsonl": 'line 2: "argv" is a list of words',
        "bad.toml": "it has no stages",
        "link.sh": "it is a link",
        "two.sh": "another name elsewhere",
        "names.sh": "another name elsewhere",
        "pipe.sh": "no regular file",
        "socket": "no regular file",
        "large.sh": "larger than 4 MiB",
    }
    for name, words in expected.items():
        assert words in folder.reason(name), name
        assert "secret" not in folder.reason(name)


def test_what_the_daemon_refuses_for_good_is_rejected(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    fake.answers["submit"] = NeverFits("--gpus 9 can never start. Nothing was queued.")
    folder.drop("train.sh")
    assert gpuq("__spool", str(folder.path)).code == 0
    assert folder.reason("train.sh") == "--gpus 9 can never start. Nothing was queued."


def test_what_the_daemon_refuses_for_now_stays(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    fake.answers["submit"] = GpuqError("cannot queue these 1: you have 3 queued")
    folder.drop("train.sh")
    ran = gpuq("__spool", str(folder.path))
    assert (ran.code, folder.left) == (SPOOL_LATER, {"train.sh"})
    assert "you have 3 queued" in ran.err


def test_names_with_anything_in_them_are_names(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    odd = ["na\nme.sh", "\x1b[31m.sh", "-rf", "ü" * 120 + ".sh", os.fsdecode(b"\xff.sh"), "a b.sh"]
    for name in odd:
        folder.drop(name)
    folder.drop("x" * 255, "no script")
    assert gpuq("__spool", str(folder.path)).code == 0
    assert (folder.left, len(folder.accepted)) == (set(), len(odd))
    (cut,) = (name for name in os.listdir(folder.path / "rejected") if ".reason" not in name)
    assert cut.startswith("xxx")


def test_an_earlier_file_of_that_name_is_kept(gpuq: Gpuq, folder: Folder) -> None:
    for text in ("first", "second", "third"):
        folder.drop("a.sh", text)
        gpuq("__spool", str(folder.path))
    rejected = folder.path / "rejected"
    kept = [(rejected / name).read_text() for name in ("a.sh", "a.sh-2", "a.sh-3")]
    assert kept == ["first", "second", "third"]


# ── once, whatever happens ──


def test_who_dies_between_the_submit_and_the_move_makes_no_second_job(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.drop("train.sh")
    with monkeypatch.context() as dying:
        dying.setattr(os, "rename", _die)
        with pytest.raises(SystemExit):
            gpuq("__spool", str(folder.path))
    assert (len(submits(fake)), folder.left) == (1, {"train.sh"})
    assert gpuq("__spool", str(folder.path)).code == 0
    first, again = submits(fake)
    assert first["token"] == again["token"]
    assert folder.accepted == {"184-train.sh"}


def _die(*_: Any, **__: Any) -> None:
    raise SystemExit


def test_the_same_again_is_another_job(gpuq: Gpuq, fake: FakeDaemon, folder: Folder) -> None:
    for _ in range(2):
        folder.drop("train.sh")
        gpuq("__spool", str(folder.path))
    os.rename(folder.path / "accepted" / "184-train.sh", folder.path / "train.sh")
    gpuq("__spool", str(folder.path))
    assert len({asked["token"] for asked in submits(fake)}) == 3
    assert folder.accepted == {"185-train.sh", "186-train.sh"}


def test_a_file_that_took_the_place_of_one_meanwhile_is_taken_after_it(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    answer = one_after_the_other()

    def replaced(asked: Said) -> Said:
        if len(submits(fake)) == 1:
            os.rename(folder.drop("new.tmp", SCRIPT + "exit 3\n"), folder.path / "train.sh")
        return answer(asked)

    fake.answers["submit"] = replaced
    folder.drop("train.sh")
    gpuq("__spool", str(folder.path))
    assert folder.left == {"train.sh"}
    gpuq("__spool", str(folder.path))
    assert [asked["jobs"][0]["script"] for asked in submits(fake)] == [SCRIPT, SCRIPT + "exit 3\n"]


def test_nothing_is_submitted_that_could_not_be_moved_on(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder, tmp_path: Path
) -> None:
    """It would be submitted again once nobody remembers its token."""
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "accepted").symlink_to(tmp_path / "elsewhere")
    folder.drop("train.sh")
    assert gpuq("__spool", str(folder.path)).code == SPOOL_LATER
    assert (submits(fake), os.listdir(tmp_path / "elsewhere")) == ([], [])


def test_a_folder_that_others_may_write_to_is_left_alone(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    folder.drop("train.sh")
    folder.path.chmod(0o770)
    assert gpuq("__spool", str(folder.path)).code == SPOOL_LATER
    assert (submits(fake), folder.left) == ([], {"train.sh"})


def test_one_look_takes_no_more_than_some(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_files, "MOST_FILES", 3)
    monkeypatch.setattr(spool_files, "MOST_SEEN", 5)
    for number in range(7):
        folder.drop(f"{number}.sh")
    assert gpuq("__spool", str(folder.path)).code == SPOOL_MORE
    assert len(folder.left) == 4
    assert gpuq("__spool", str(folder.path)).code == SPOOL_MORE
    assert gpuq("__spool", str(folder.path)).code == 0
    assert folder.left == set()


# ── looked at ──


def test_the_folder_is_told_and_what_was_rejected(
    gpuq: Gpuq, fake: FakeDaemon, folder: Folder
) -> None:
    fake.answers["spool"] = {"path": str(folder.path)}
    assert gpuq("spool").out == f"{folder.path}\n"
    assert gpuq("spool", "--list", terminal=True).out == "nothing waits, and nothing was rejected\n"
    folder.drop("bare\x1b.sh", "python\n")
    gpuq("__spool", str(folder.path))
    folder.drop("next.sh")
    listed = gpuq("spool", "--list").out.splitlines()
    assert listed[0] == "next.sh\twaits to be taken"
    assert listed[1].startswith("rejected/bare\\x1b.sh\t")
    assert '"waiting": ["next.sh"], "rejected": [{"name": "bare' in gpuq("spool", "--json").out
