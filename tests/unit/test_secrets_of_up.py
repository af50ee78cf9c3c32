"""`up` hands the key to its children, and nobody else sees it."""

import pytest

from tickhouse.cli import build_parser
from tickhouse.runtime.backends import finnhub_options
from tickhouse.runtime.up import environment_of
from tickhouse.settings import Settings


def test_children_get_the_key_itself_in_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKHOUSE_FINNHUB_TOKEN", "c0ffee")
    environment = environment_of(Settings())

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert finnhub_options(Settings()).token.reveal() == "c0ffee"


def test_the_key_is_no_flag_and_no_settings_text_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKHOUSE_FINNHUB_TOKEN", "c0ffee")
    settings = Settings()

    with pytest.raises(SystemExit):
        build_parser().parse_args(["up", "--finnhub-token", "c0ffee"])
    assert "c0ffee" not in f"{settings!r} {settings} {finnhub_options(settings)!r}"
