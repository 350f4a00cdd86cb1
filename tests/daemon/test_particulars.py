"""What is an element's own stands in its words, its name and its files' names, and nowhere else."""

import json
from typing import Any

from gpuq.core.asked.elements import Elements, write_elements
from gpuq.core.asked.wire_fields import join
from gpuq.daemon.particulars import NODE, Particulars, particulars

GRID = Elements(indices=(range(5, 9),), axes=(("lr", ("0.1", "0.2")), ("n", ("a", "b"))))
TABLE = Elements(indices=(range(2),), columns=("note",))


def of(elements: Elements | None, number: int | None, job: int = 14, **asked: Any) -> Particulars:
    row = {
        "element": number,
        "elements": None if elements is None else write_elements(elements),
        "values": None,
        "name": "job",
        "user": "ann",
        "argv": join((b"true",)),
        "output": None,
        "stderr": None,
    }
    return particulars(row | asked, job)


def test_an_element_has_its_own_words() -> None:
    argv = join((b"train", b"--lr={lr}", b"{i}", b"{{i}}", b"{x}", b"${n}", b"\xff{n}"))
    own = of(GRID, 3, argv=argv, name="run-{n}")
    assert own.command == ["train", "--lr=0.2", "8", "{i}", "{x}", "${n}", "\udcffb"]
    assert (own.name, own.array) == ("run-b", 11)
    assert own.fill_all(["{lr}/{i}", "{x}"]) == ["0.2/8", "{x}"]


def test_a_job_of_no_array_keeps_its_braces() -> None:
    own = of(None, None, argv=join((b"echo", b"{i}", b"{{i}}")), name="{i}")
    assert (own.command, own.name, own.array) == (["echo", "{i}", "{{i}}"], "{i}", 14)


def test_an_element_of_a_table_has_its_row() -> None:
    own = of(TABLE, 1, argv=join((b"{note}",)), values=json.dumps(["{i} %j"]))
    assert own.command == ["{i} %j"]


def test_files_have_signs_and_values() -> None:
    own = of(GRID, 0, output=b"/logs/%A_%2a-{n}-%x", stderr=b"/e/%j.%u.%N", name="r{lr}")
    assert (own.output, own.stderr) == ("/logs/14_05-a-r0.1", f"/e/14.ann.{NODE}")
    assert of(None, None, output=b"/100%%/%j-%a").output == "/100%/14-0"
    assert of(None, None, stderr=b"/e/%j").stderr == "/e/14"


def test_a_name_holds_no_signs_that_a_terminal_obeys() -> None:
    own = of(TABLE, 0, name="run {note}", values=json.dumps(["a\x1b[2Jb" + "c" * 300]))
    assert own.name == "run a?[2Jb" + "c" * 190


def test_a_value_is_no_sign() -> None:
    own = of(TABLE, 0, output=b"/{note}", values=json.dumps(["%j"]))
    assert own.output == "/%j"
