"""What a hook is, by how it begins, and what is shown of one that may hold a token."""

import pytest

from gpuq.core.asked.hooks import HookKind, kind_of, read_hook, shown_hook


@pytest.mark.parametrize(
    ("hook", "kind", "shown"),
    [
        ("mail -s 'done' me", HookKind.COMMAND, "a command"),
        ("curl https://hooks.example/T0KEN", HookKind.COMMAND, "a command"),
        ("./notify.sh://x", HookKind.COMMAND, "a command"),
        ("https://hooks.example/T0KEN", HookKind.WEBHOOK, "https://hooks.example/…"),
        ("HTTPS://hooks.example?key=T0KEN", HookKind.WEBHOOK, "https://hooks.example/…"),
        ("http://me:T0KEN@hooks.example:8080", HookKind.WEBHOOK, "http://hooks.example:8080"),
        ("http://[::1]:8080/T0KEN", HookKind.WEBHOOK, "http://[::1]:8080/…"),
        ("ntfys://T0KEN", HookKind.APPRISE, "ntfys://…"),
        ("tgram://T0KEN/chat", HookKind.APPRISE, "tgram://…"),
        ("mailto://me:T0KEN@mail.example", HookKind.APPRISE, "mailto://…"),
    ],
)
def test_a_hook_is_known_by_its_beginning_and_shown_without_a_token(
    hook: str, kind: HookKind, shown: str
) -> None:
    assert read_hook(f" {hook}\n") == hook
    assert kind_of(hook) is kind
    assert shown_hook(hook) == shown


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("", "it is a command"),
        (7, "it is a command"),
        ("https://", "names no host"),
        ("https:///path", "names no host"),
        ("https://me:T0KEN/@hooks.example", "names no host"),
        ("https://a b/", "has a space in it"),
        ("ntfys://a\nb", "has a space in it"),
        ("echo \0", "NUL"),
        ("echo \udc80", "UTF-8"),
        ("x" * 5000, "5000 bytes"),
    ],
)
def test_what_can_be_no_hook_is_refused_with_the_reason(hook: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_hook(hook)
