"""Keys as a person has them: those of the tables, but where the settings say others.

What is wrong is said before the screen starts: a key that does something else than is thought, beside
one that ends jobs, is worse than no screen.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from textual.app import App
from textual.keys import Keys, _character_to_key, key_to_character

from gpuq.errors import UsageError
from gpuq.tui import keys
from gpuq.tui.keys import Key
from gpuq.tui.looks import Signs
from gpuq.tui.settings import Written

Keymap = Mapping[str, str]  # keys by the id of what they do, several with commas between

_COMMAND = re.compile(r"gpuq (pause|resume|requeue|hold|release|undo) [\d,-]*\d")
_KEY_OF = {"resume": "pause", "release": "hold"}  # where it has another id
MODIFIERS = ("ctrl", "shift", "alt")
NEAR = 0.5  # how much alike a name and a slip of it are
MOST_NAMED = 3  # keys of one action, where a sentence tells of them
_NAMES = {key.value for key in Keys if "<" not in key.value and "+" not in key.value}


class KeyedApp(App[None]):
    """`keymap` has the keys that the settings say."""

    keymap: Keymap


def read_keymap(written: Mapping[str, Written]) -> Keymap:
    """UsageError where an id or a key is not known, or one key would do two things in one place."""
    keymap = {name: _read_keys(name, value) for name, value in written.items()}
    for scope in keys.scopes():
        _find_clash(scope, keymap, written)
    for key in keys.beside_fields():
        if key.id in keymap and not _free_beside_fields(key, keymap):
            raise UsageError(
                f"{written[key.id].where}: where that is wanted ({key.about}), text is written, and "
                f"{keymap[key.id]} belongs to that. Take another one, or one more, like escape or f8"
            )
    return keymap


def keys_of(key: Key, keymap: Keymap) -> list[str]:
    return normal(keymap.get(key.id, key.keys))


def normal(text: str) -> list[str]:
    """As Textual calls them: "question_mark" for "?"."""
    return [_normal_key(one) for one in _parts(text)]


def shown(names: Iterable[str], app: App[None]) -> str:
    """As they stand on a keyboard; in words where only ASCII can be drawn."""
    return " ".join(_shown(name, app) for name in names)


def _shown(name: str, app: App[None]) -> str:
    from textual.binding import Binding

    sign = app.get_key_display(Binding(name, ""))
    signs: Signs | None = getattr(app, "signs", None)
    is_drawn = sign.isascii() or signs is None or signs.unicode
    return sign if is_drawn else name.replace("_", " ")


def name_of(id: str, app: KeyedApp) -> str:
    """What a sentence calls the key that does this: the first of those in force."""
    return shown(keys_of(keys.BY_ID[id], app.keymap)[:1], app)


def names_of(id: str, app: KeyedApp, between: str = " / ") -> str:
    """The first few of those in force."""
    names = keys_of(keys.BY_ID[id], app.keymap)[:MOST_NAMED]
    return between.join(shown([name], app) for name in names)


def with_keys(text: str, app: KeyedApp) -> str:
    """A sentence that tells of commands, with the keys that do the same: "gpuq pause 13 (P)"."""

    def tell(found: re.Match[str]) -> str:
        return f"{found[0]} ({name_of(_KEY_OF.get(found[1], found[1]), app)})"

    return _COMMAND.sub(tell, text)


def name_while_typing(id: str, app: KeyedApp) -> str:
    """The first of those in force that no field takes for its own; empty where there is none."""
    return shown(_free_beside_fields(keys.BY_ID[id], app.keymap)[:1], app)


def _free_beside_fields(key: Key, keymap: Keymap) -> list[str]:
    """Those that write no letter, and do not move in a line or take something out of it."""
    from textual.binding import Binding
    from textual.widgets import Input, TextArea

    fields = (Input, TextArea) if key in keys.FORM else (Input,)
    taken = {one.key for field in fields for one in Binding.make_bindings(field.BINDINGS)}
    names = keys_of(key, keymap)
    return [
        name
        for name in names
        if name not in taken and not (key_to_character(name) or "\0").isprintable()
    ]


def _parts(text: str) -> list[str]:
    """A comma between keys, or the key of that name: "," and "a,,"."""
    if text == ",":
        return [text]
    if text.endswith(",,"):
        return [*_parts(text[:-2]), ","]
    return [part.strip() for part in text.split(",") if part.strip()]


def _normal_key(key: str) -> str:
    *modifiers, base = key.split("+") if len(key) > 1 and not key.endswith("++") else [key]
    return "+".join([*modifiers, _character_to_key(base) if len(base) == 1 else base])


def _read_keys(name: str, written: Written) -> str:
    known = {key.id for key in keys.all_keys()}
    if name not in known:
        near = get_close_matches(name.lower(), sorted(known), n=3, cutoff=NEAR)
        hint = f"did you mean {' or '.join(near)}?" if near else "? in gpuq top shows all names"
        raise UsageError(f"{written.where}: there is no such key to set; {hint}")
    for part in _parts(written.value):
        if not _is_key(part):
            raise UsageError(
                f"{written.where}: {part!r} is no key. Write x, X, ctrl+x, f5, delete, space, ..., "
                "several with commas between"
            )
    return ",".join(normal(written.value))


def _is_key(text: str) -> bool:
    *modifiers, base = text.split("+") if len(text) > 1 else [text]
    if any(modifier not in MODIFIERS for modifier in modifiers):
        return False
    return (len(base) == 1 and base.isprintable()) or base in _NAMES or _is_name_of_sign(base)


def _is_name_of_sign(base: str) -> bool:
    try:
        unicodedata.lookup(base.replace("_", " "))
    except KeyError:
        return False
    return True


def _find_clash(scope: Iterable[Key], keymap: Keymap, written: Mapping[str, Written]) -> None:
    """Only what the settings bring about: where two tables have the same key, the pane that has the
    focus goes first, and that is meant."""
    taken: dict[str, Key] = {}
    ordered = sorted(scope, key=lambda key: key.id in keymap)
    for key in ordered:
        for name in keys_of(key, keymap):
            other = taken.get(name)
            if other is not None and other.id != key.id and key.id in keymap:
                raise UsageError(
                    f"{written[key.id].where}: {name} is {other.id} already ({other.about}). "
                    f"Take another one, or set {other.id} too"
                )
            taken.setdefault(name, key)
