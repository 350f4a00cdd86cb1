"""A git work tree as a submit finds it: its commit, and a copy of it as it is."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuq.errors import GpuqError, UsageError
from gpuq.work_tree import snapshot
from gpuq.work_tree.commit import commit_of
from gpuq.work_tree.snapshot import CHANGES, TREE, Snapshot, take
from tests.git_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "work", train_py="print(1)\n", notes_txt="one\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "copies"
    made.mkdir()
    return made


def copied(folder: Path, taken: Snapshot) -> dict[str, str]:
    top = folder / taken.name / TREE
    files = (path for path in top.rglob("*") if not path.is_dir())
    return {
        str(path.relative_to(top)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in files
    }


# ── which commit ──


def test_the_commit_is_read_as_git_tells_it(tree: Tree) -> None:
    (tree.top / "deep" / "down").mkdir(parents=True)
    assert commit_of(str(tree.top)) == tree.head
    assert commit_of(str(tree.top / "deep" / "down")) == tree.head


def test_a_packed_reference_is_found(tree: Tree) -> None:
    tree.git("pack-refs", "--all")
    assert not (tree.top / ".git/refs/heads/main").exists()
    assert commit_of(str(tree.top)) == tree.head


def test_a_detached_head_and_a_branch_with_slashes_are_read(tree: Tree) -> None:
    tree.git("checkout", "--quiet", "-b", "alice/try/1")
    made = tree.commit(train_py="print(2)\n")
    assert commit_of(str(tree.top)) == made
    tree.git("checkout", "--quiet", "--detach", "main")
    assert commit_of(str(tree.top)) == tree.head != made


def test_a_linked_work_tree_has_its_own_head(tree: Tree, tmp_path: Path) -> None:
    tree.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    linked = Tree(tmp_path / "linked")
    made = linked.commit(train_py="print(3)\n")
    assert commit_of(str(linked.top)) == made != tree.head
    linked.git("pack-refs", "--all")
    assert commit_of(str(linked.top)) == made


def test_a_submodule_has_its_own_commit(tree: Tree, tmp_path: Path) -> None:
    other = Tree(tmp_path / "other", model_py="pass\n")
    tree.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.top))
    assert commit_of(str(tree.top / "other")) == other.head != tree.head


def test_outside_and_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    assert commit_of(str(tmp_path)) is None
    assert commit_of(str(Tree(tmp_path / "new").top)) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "ref: ../../../etc/passwd",
        "ref: refs/../../../x",
        "z" * 40,
        "ref: refs/heads/none",
        "ref: refs/a",
    ],
)
def test_rubbish_in_head_is_no_commit(tree: Tree, content: str) -> None:
    (tree.top / ".git/HEAD").write_text(content)
    (tree.top / ".git/refs/a").write_text("ref: refs/a")  # leads to itself
    assert commit_of(str(tree.top)) is None


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tree: Tree) -> None:
    (tree.top / ".git/HEAD").unlink()
    os.mkfifo(tree.top / ".git/HEAD")
    assert commit_of(str(tree.top)) is None


# ── the copy ──


def test_the_copy_holds_what_is_there_and_not_what_is_ignored(tree: Tree, folder: Path) -> None:
    tree.commit(_gitignore="*.pt\ndata/\n")
    tree.write("train.py", "print('edited')\n")
    tree.write("lib/new.py", "new = 1\n")
    tree.write("best.pt", "weights")
    tree.write("data/x", "large")
    (tree.top / "notes.txt").unlink()
    taken = take(str(tree.top), str(folder))
    expected = {".gitignore": "*.pt\ndata/\n", "train.py": "print('edited')\n"}
    assert copied(folder, taken) == expected | {"lib/new.py": "new = 1\n"}
    assert (taken.top, taken.commit) == (str(tree.top), tree.head)


def test_the_user_s_own_index_stays_as_it_was(tree: Tree, folder: Path) -> None:
    tree.write("train.py", "print('staged')\n")
    tree.git("add", "train.py")
    tree.write("new.py", "")
    before = tree.git("status", "--porcelain")
    take(str(tree.top), str(folder))
    assert tree.git("status", "--porcelain") == before


def test_the_difference_tells_of_edits_and_of_new_files(tree: Tree, folder: Path) -> None:
    tree.write("train.py", "print('edited')\n")
    tree.write("new.py", "new = 1\n")
    (tree.top / "notes.txt").unlink()
    told = (folder / take(str(tree.top), str(folder)).name / CHANGES).read_text()
    for line in ("-print(1)", "+print('edited')", "+new = 1", "deleted file mode 100644"):
        assert line in told.splitlines()


def test_the_directory_in_the_copy_is_the_one_it_was_taken_in(tree: Tree, folder: Path) -> None:
    tree.commit(_gitignore="out/\n")
    (tree.top / "out" / "deep").mkdir(parents=True)
    taken = take(str(tree.top / "out" / "deep"), str(folder))
    assert taken.cwd == str(folder / taken.name / TREE / "out" / "deep")
    assert os.path.isdir(taken.cwd)


def test_one_state_is_one_copy(tree: Tree, folder: Path) -> None:
    first, again = take(str(tree.top), str(folder)), take(str(tree.top), str(folder))
    assert first == again
    tree.write("train.py", "print(2)\n")
    assert take(str(tree.top), str(folder)).name != first.name
    tree.write("train.py", "print(1)\n")
    assert take(str(tree.top), str(folder)).name == first.name
    assert len(os.listdir(folder)) == 2


def test_a_mode_and_a_move_are_another_state(tree: Tree, folder: Path) -> None:
    names = {take(str(tree.top), str(folder)).name}
    (tree.top / "train.py").chmod(0o755)
    names.add(take(str(tree.top), str(folder)).name)
    (tree.top / "train.py").rename(tree.top / "run.py")
    names.add(take(str(tree.top), str(folder)).name)
    assert len(names) == 3


def test_a_copy_that_a_job_has_written_to_is_not_given_again(tree: Tree, folder: Path) -> None:
    first = take(str(tree.top), str(folder))
    file = folder / first.name / TREE / "train.py"
    file.chmod(0o644)
    file.write_text("print(9)\n")  # as long as before
    second = take(str(tree.top), str(folder))
    assert second.name == f"{first.name}-2"
    assert copied(folder, second)["train.py"] == "print(1)\n"
    assert take(str(tree.top), str(folder)).name == second.name


def test_what_a_job_adds_to_a_copy_does_not_count(tree: Tree, folder: Path) -> None:
    first = take(str(tree.top), str(folder))
    (folder / first.name / TREE / "result.txt").write_text("0.9")
    assert take(str(tree.top), str(folder)).name == first.name


def test_nothing_is_shared_with_the_work_tree(tree: Tree, folder: Path) -> None:
    taken = take(str(tree.top), str(folder))
    for path in (folder / taken.name / TREE).rglob("*"):
        assert path.is_dir() or path.stat().st_nlink == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_equal_files_are_shared_between_copies_read_only(tree: Tree, folder: Path) -> None:
    """Not for root, who could write to them all the same."""
    for path in (*tree.top.parents, folder):
        os.chmod(path, os.stat(path).st_mode | 0o555)
    subprocess.run(["chown", "-R", "12345:12345", tree.top, folder], check=True)

    def take_two() -> list[str]:
        first = take(str(tree.top), str(folder))
        tree.write("train.py", "print(2)")
        return [first.name, take(str(tree.top), str(folder)).name]

    for name in as_user(12345, take_two):
        found = [(folder / name / TREE / file).stat() for file in ("train.py", "notes.txt")]
        assert [(one.st_nlink, stat.S_IMODE(one.st_mode)) for one in found] == [
            (1, 0o444),
            (2, 0o444),
        ]


def as_user(uid: int, work: Callable[[], list[str]]) -> list[str]:
    """What it returns, done by a process of that user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        os.write(writer, "\n".join(work()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as told:
        said = told.read()
    assert os.waitpid(child, 0)[1] == 0
    return said.splitlines()


def test_a_program_stays_one_and_a_file_can_only_be_read(tree: Tree, folder: Path) -> None:
    tree.write("run.sh", "#!/bin/sh\n").chmod(0o775)
    top = folder / take(str(tree.top), str(folder)).name / TREE
    assert stat.S_IMODE((top / "run.sh").stat().st_mode) == 0o555
    assert stat.S_IMODE((top / "train.py").stat().st_mode) == 0o444


def test_links_lead_into_the_copy_or_where_they_led_before(tree: Tree, folder: Path) -> None:
    outside = tree.write("../outside.txt", "far")
    (tree.top / "near").symlink_to("train.py")
    (tree.top / "absolute").symlink_to(tree.top / "train.py")
    (tree.top / "up").symlink_to("../outside.txt")
    (tree.top / "gone").symlink_to("/no/such/file")
    found = copied(folder, take(str(tree.top), str(folder)))
    assert (found["near"], found["absolute"]) == ("train.py", "train.py")
    assert (found["up"], found["gone"]) == (str(outside.resolve()), "/no/such/file")


def test_names_that_are_no_text_come_along(tree: Tree, folder: Path) -> None:
    for name in (b"caf\xe9.txt", b"new\nline.txt", b" blank "):
        with open(os.path.join(os.fsencode(tree.top), name), "wb") as file:
            file.write(name)
    top = folder / take(str(tree.top), str(folder)).name / TREE
    assert {b"caf\xe9.txt", b"new\nline.txt", b" blank "} <= set(os.listdir(os.fsencode(top)))
    assert take(str(tree.top), str(folder)).name == top.parent.name


def test_a_work_tree_inside_comes_along_without_what_it_ignores(tree: Tree, folder: Path) -> None:
    inner = Tree(tree.top / "vendor" / "model", model_py="pass\n")
    inner.write(".gitignore", "*.bin\n")
    inner.write("x.bin", "large")
    found = copied(folder, take(str(tree.top), str(folder)))
    assert {"vendor/model/model.py", "vendor/model/.gitignore"} <= found.keys()
    assert "vendor/model/x.bin" not in found


def test_a_pipe_is_left_out(tree: Tree, folder: Path) -> None:
    (tree.top / "train.py").unlink()
    os.mkfifo(tree.top / "train.py")
    assert "train.py" not in copied(folder, take(str(tree.top), str(folder)))


def test_a_tree_without_a_commit_can_be_copied(tmp_path: Path, folder: Path) -> None:
    new = Tree(tmp_path / "new")
    new.write("a.py", "a = 1\n")
    taken = take(str(new.top), str(folder))
    assert (copied(folder, taken), taken.commit) == ({"a.py": "a = 1\n"}, None)
    assert "+a = 1" in (folder / taken.name / CHANGES).read_text()


def test_outside_of_a_work_tree_it_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="is in none"):
        take(str(tmp_path), str(folder))
    assert os.listdir(folder) == []


def test_without_git_the_error_says_so(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GpuqError, match="needs git"):
        take(str(tree.top), str(folder))


def test_what_is_too_large_is_named(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MOST_BYTES", 1000)
    tree.write("checkpoint.pt", "x" * 2000)
    with pytest.raises(UsageError, match=r"checkpoint\.pt .*\.gitignore"):
        take(str(tree.top), str(folder))
    assert os.listdir(folder) == []


def test_a_file_that_is_written_on_and_on_is_named(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read a second time, to be copied, is not what was read before."""
    copy = snapshot.read_into

    def read_into(path: str, target: int | None) -> tuple[str, int]:
        if path.endswith("train.py"):
            tree.write("train.py", (tree.top / "train.py").read_text() + "#")
        return copy(path, target)

    monkeypatch.setattr(snapshot, "read_into", read_into)
    with pytest.raises(GpuqError, match=r"train\.py is written again and again"):
        take(str(tree.top), str(folder))
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_written_is_named(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(GpuqError, match="No such file"):
        take(str(tree.top), str(tmp_path / "nowhere"))
