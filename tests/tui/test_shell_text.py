"""A command in a field, and the words that it means."""

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.cli.render import command_line
from gpuq.tui.data.form.shell_text import (
    read_command,
    read_value,
    read_words,
    write_command,
    write_value,
)


def _is_an_argument(text: str) -> bool:
    """As the kernel passes it: bytes that are no UTF-8 are surrogates."""
    try:
        return "\0" not in text and os.fsdecode(os.fsencode(text)) == text
    except UnicodeEncodeError:
        return False


arguments = st.text(st.characters(exclude_categories=())).filter(_is_an_argument)


@settings(max_examples=200)
@given(st.lists(arguments, min_size=1))
def test_any_command_that_is_written_is_read_again(argv: list[str]) -> None:
    command = read_command(write_command(argv))
    read = ["/bin/sh", "-c", command.shell] if command.shell is not None else list(command.argv)
    assert read == argv


@pytest.mark.parametrize("word", ["if", "case", "while", "!", "{", "A=1"])
def test_a_program_that_is_called_like_a_word_of_the_shell_is_quoted(word: str) -> None:
    assert read_command(write_command([word, "x"])).argv == [word, "x"]


@settings(max_examples=200)
@given(arguments.filter(bool))
def test_any_value_that_is_written_is_read_again(value: str) -> None:
    assert read_value(write_value(value)) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python train.py --lr 3e-4", ["python", "train.py", "--lr", "3e-4"]),
        ("python 'my file.py' \"a b\" c\\ d", ["python", "my file.py", "a b", "c d"]),
        ("python a.py \\\n  --seed 1", ["python", "a.py", "--seed", "1"]),
        ("./eval.sh {i} {lr}", ["./eval.sh", "{i}", "{lr}"]),
        ("echo '$HOME' \\*", ["echo", "$HOME", "*"]),
        ("python -c 'import x\nx.run()'", ["python", "-c", "import x\nx.run()"]),
        (r"printf $'a\tb\x1b\u00e9\xc3\xa9'", ["printf", "a\tb\x1béé"]),
        ("  \n ls \n", ["ls"]),
    ],
)
def test_words_are_those_that_a_shell_would_make(text: str, words: list[str]) -> None:
    assert read_command(text) == (words, None, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("make && ./a.out", "&"),
        ("ls | head", "|"),
        ("echo $HOME", "$"),
        ('echo "$HOME"', "$"),
        ("ls *.py", "*"),
        ("cat <<E\nit's\nE", "<"),
        ("cd /data\npython a.py", "a second line"),
        ("SEED=1 python a.py", "a variable that is set"),
        ("cd ~/data", "~"),
        ("if true; then ls; fi", "if"),
    ],
)
def test_what_asks_something_of_a_shell_is_a_text_for_one(text: str, why: str) -> None:
    assert read_command(text) == ((), text, why)
    assert write_command(["/bin/sh", "-c", text]) == text


@pytest.mark.parametrize("text", ["echo 'a", 'echo "a', "echo a\\", "echo $'a"])
def test_a_quote_that_is_not_closed_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not closed|nothing behind it"):
        read_command(text)


def test_where_no_shell_reads_its_signs_go_into_quotes() -> None:
    assert read_words("-e 'A=$HOME'") == ["-e", "A=$HOME"]
    with pytest.raises(ValueError, match=r"so \$ goes into quotes"):
        read_words("-e A=$HOME")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_line_means_in_bash_what_it_says() -> None:
    words = ["a b", "it's", "\x85", "\xa0\xad", "\udc85", "é\n", "\\x41", "$x", "\u2028", "'\t\\"]
    line = f"printf '%s\\0' {command_line(words)}"
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    said = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=True)
    assert os.fsdecode(said.stdout).split("\0")[:-1] == words
