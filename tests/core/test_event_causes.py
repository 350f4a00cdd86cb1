"""Every kind of event that is ever recorded has words for what is always behind it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gpuq
from gpuq.core.events import USUAL_CAUSES, cause_of, special_cause

DAEMON = Path(gpuq.__file__).parent / "daemon"
# Who records one, and at which place in the call the kind stands.
RECORDERS = {"record_event": 2, "_event": 1, "event": 0, "_tell": 0, "_wish": 4, "_tell_end": 0}


def kinds_recorded() -> Iterator[tuple[str, str]]:
    """(kind, file): what stands in a call as the kind, or is assigned to a `kind` that does."""
    for path in sorted(DAEMON.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from ((kind, path.name) for kind in _named_in_call(node))
            elif isinstance(node, ast.Assign) and _names_a_kind(node) and "store" in path.parts:
                yield from ((kind, path.name) for kind in _texts(node.value))


def _named_in_call(call: ast.Call) -> Iterator[str]:
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    place = RECORDERS.get(name or "")
    if place is not None and len(call.args) > place:
        found = [*_texts(call.args[place])]
        yield from (kind for kind in found if kind.replace("_", "").isalpha())


def _names_a_kind(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "kind" for target in node.targets)


def _texts(node: ast.expr) -> Iterator[str]:
    branches = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    for branch in branches:
        if isinstance(branch, ast.Constant) and isinstance(branch.value, str):
            yield branch.value


def test_every_kind_that_is_recorded_has_its_usual_cause() -> None:
    recorded = set(kinds_recorded())
    assert len(recorded) > 50, "most calls are found"
    assert [(kind, file) for kind, file in recorded if kind not in USUAL_CAUSES] == []


def test_every_kind_that_has_a_usual_cause_is_recorded() -> None:
    recorded = {kind for kind, _ in kinds_recorded()}
    assert set(USUAL_CAUSES) - recorded == set()


def test_what_is_special_is_told_apart_from_what_always_is() -> None:
    assert cause_of("ended", None) == "its command ended"
    assert cause_of("ended", "exit code 3") == "exit code 3"
    assert cause_of("something_new", None) == "something new"
    assert special_cause("ended", "exit code 3") == "exit code 3"
    assert special_cause("ended", "its command ended") is None
    assert special_cause("something_new", None) is None
