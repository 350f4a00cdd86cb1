"""A pipeline as it is written down: stages in TOML, each with what `submit` may be told, and what it
needs. Read and judged as a whole before anything is queued.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from gpuq.cli.declaring import parameters_of
from gpuq.cli.job_options import describe
from gpuq.cli.many_options import MANY, SPELLINGS, many_at_once
from gpuq.errors import UsageError

WHENS = ("ok", "any", "fail")
OWN_KEYS = ("command", "needs")
TOP_KEYS = ("name", "stages")
# What may be said of a stage, and of which kind that is.
OPTIONS = {
    one.name: get_args(one.annotation)[0]
    for function in (describe, many_at_once)
    for one in parameters_of(function)
    if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name not in ("dependency", *SPELLINGS)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One of them, with what the client submits; `needs` are (stage, when, each)."""

    name: str
    asked: Mapping[str, Any]
    needs: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages in an order in which each comes after those that it needs."""

    name: str
    stages: tuple[Stage, ...]

    def jobs(self) -> list[dict[str, Any]]:
        """As one submission."""
        place = {stage.name: number for number, stage in enumerate(self.stages)}
        jobs = []
        for stage in self.stages:
            after = [
                {"entry": place[name], "when": when, "each": each}
                for name, when, each in stage.needs
            ]
            after += stage.asked.get("after") or []
            jobs.append(dict(stage.asked, **({"after": after} if after else {})))
        return jobs


def read_pipeline(path: str, data: bytes | None = None, folder: str | None = None) -> Pipeline:
    """UsageError names the place in the file, and what is wrong there. `data` is what it holds, where
    somebody has read it; its stages run in `folder`, or where the file is."""
    from pathlib import Path

    wire = _parse(path) if data is None else _parsed(path, data)
    stages = wire.get("stages")
    if not isinstance(stages, dict) or not stages:
        raise UsageError(f"{path}: it has no stages; each is a table [stages.NAME]")
    file = _File(path=path, folder=folder or os.path.dirname(os.path.abspath(path)))
    defaults = {name: value for name, value in wire.items() if name not in TOP_KEYS}
    file.check_keys("", defaults, [*OPTIONS, *TOP_KEYS])
    if wrong := next((key for key in (*OWN_KEYS, "shell", "after") if key in defaults), None):
        raise UsageError(f"{path}: {wrong} is a stage's own and stands in its table")
    name = wire.get("name", Path(path).stem)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: name is a text, not {name!r}")
    read = [file.read_stage(name, stage, wire, defaults) for stage, wire in stages.items()]
    return Pipeline(name=name, stages=_in_order(path, read))


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return _parsed(path, file.read())
    except OSError as error:
        raise UsageError(f"--pipeline {path}: {error.strerror}") from None


def _parsed(path: str, data: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this is no TOML: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str
    folder: str

    def read_stage(
        self, pipeline: str, stage: str, wire: Any, defaults: Mapping[str, Any]
    ) -> Stage:
        if not isinstance(wire, dict):
            raise UsageError(f"{self.path}: stages.{stage} is a table: [stages.{stage}]")
        self.check_keys(f"stages.{stage}: ", wire, [*OPTIONS, *OWN_KEYS])
        said = {**defaults, **{key: value for key, value in wire.items() if key not in OWN_KEYS}}
        if isinstance(defaults.get("env"), dict) and isinstance(wire.get("env"), dict):
            said["env"] = {**defaults["env"], **wire["env"]}
        said.setdefault("name", f"{pipeline}/{stage}")
        said["cwd"] = os.path.join(self.folder, str(said.get("cwd", "")))
        options = {name: self.convert(stage, name, value) for name, value in said.items()}
        of_many = {name: options.pop(name, None) for name in MANY}
        try:
            asked = describe(self.words(stage, wire.get("command")), **options)
            if any(of_many.values()):
                asked["array"] = self.elements(of_many, options.get("shell"))
        except UsageError as error:
            raise UsageError(f"{self.path}: stages.{stage}: {error}") from None
        return Stage(name=stage, asked=asked, needs=self.needs(stage, wire.get("needs", [])))

    def elements(self, of_many: dict[str, Any], shell: str | None) -> dict[str, Any] | None:
        """What the elements of an array differ in."""
        from gpuq.cli.array_options import elements

        if of_many["params"] is not None:
            of_many["params"] = os.path.join(self.folder, of_many["params"])
        return elements(**of_many, shell=shell)

    def check_keys(self, where: str, said: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in said:
            if key not in known:
                raise UsageError(f"{self.path}: {where}there is no {key!r}{nearest(key, known)}")

    def words(self, stage: str, command: Any) -> list[str]:
        if command is None:
            return []
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise UsageError(
                f'{self.path}: stages.{stage}: command is a list of words, like ["python", "a.py"]; '
                "what a shell is to read stands in shell"
            )
        return command

    def needs(self, stage: str, said: Any) -> tuple[tuple[str, str, bool], ...]:
        where = f"{self.path}: stages.{stage}: needs"
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise UsageError(f'{where}: it is a list of stages, like ["detect", "faces:any"]')
        needs = []
        for one in said:
            name, *conditions = one.split(":")
            whens = [word for word in conditions if word in WHENS]
            if len(whens) > 1 or set(conditions) - {*WHENS, "each"}:
                raise UsageError(f"{where}: {one!r}: how is ok, any or fail, and each")
            needs.append((name, whens[0] if whens else "ok", "each" in conditions))
        return tuple(needs)

    def convert(self, stage: str, name: str, value: Any) -> Any:
        """A value as the option of that name gets it on the command line."""
        wanted = OPTIONS[name]
        if name == "env" and isinstance(value, dict):
            return [f"{key}={_plain(one)}" for key, one in value.items()]
        if name == "grid" and isinstance(value, dict):
            return [f"{key}={_listed(values)}" for key, values in value.items()]
        if wanted is bool:
            fits = isinstance(value, bool)
        elif "list" in str(wanted):
            value = [_plain(one) for one in (value if isinstance(value, list) else [value])]
            fits = all(isinstance(one, str) for one in value)
        elif "int" in str(wanted):
            fits = isinstance(value, int) and not isinstance(value, bool)
        else:
            value = _plain(value)
            fits = isinstance(value, str)
        if not fits:
            raise UsageError(f"{self.path}: stages.{stage}: {name} cannot be {value!r}")
        return value


def nearest(word: str, known: Sequence[str]) -> str:
    """ "; did you mean gpu_mem?"."""
    from difflib import get_close_matches

    near = get_close_matches(word.replace("-", "_"), known, n=1)
    return f"; did you mean {near[0]}?" if near else f". Known are {', '.join(sorted(known))}"


def _listed(values: Any) -> str:
    """ "0.1,0.01"; a text stands as it is: "1-5"."""
    return ",".join(str(_plain(one)) for one in (values if isinstance(values, list) else [values]))


def _plain(value: Any) -> Any:
    """A number as it would be typed."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _in_order(path: str, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """As they are written, but each after those that it needs."""
    by_name = {stage.name: stage for stage in stages}
    done: dict[str, Stage] = {}

    def visit(stage: Stage, way: tuple[str, ...]) -> None:
        if stage.name in way:
            circle = (*way[way.index(stage.name) :], stage.name)
            raise UsageError(f"{path}: stages wait for each other: {' needs '.join(circle)}")
        if stage.name in done:
            return
        for name, _, _ in stage.needs:
            if name not in by_name:
                where = f"{path}: stages.{stage.name}: needs"
                raise UsageError(f"{where}: no stage {name!r}{nearest(name, list(by_name))}")
            visit(by_name[name], (*way, stage.name))
        done[stage.name] = stage

    for stage in stages:
        visit(stage, ())
    return tuple(done.values())
