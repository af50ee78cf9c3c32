"""`instruments refresh`: profiles fetched once, resumed, recorded as frames."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from support.tiny_http import Reply, Request, TinyServer, as_json, served
from tickhouse.cli import build_parser
from tickhouse.errors import BusyError, ConfigError, TransientError
from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Opened, decode_event
from tickhouse.runtime import backends
from tickhouse.runtime.instruments import instruments, symbols_asked_for
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.source.finnhub import profiles
from tickhouse.source.finnhub.profiles import PROFILE_SHARD
from tickhouse.source.finnhub.rest import KeyRefusedError, PlanRefusedError

KEY = "k3y-of-a-test"
NAMES = {"AAPL": "Apple Inc", "MSFT": "Microsoft Corp", "XOM": "Exxon Mobil Corp"}


def profile(request: Request) -> Reply:
    symbol = request.target.partition("symbol=")[2]
    name = NAMES.get(symbol)
    body = {"name": name, "ticker": symbol, "marketCapitalization": 1415993} if name else {}
    return Reply(as_json(body))


def settings_for(folder: Path, server: TinyServer | None, **more: Any) -> Settings:
    url = "http://127.0.0.1:9/api/v1" if server is None else server.url
    values: dict[str, Any] = {"finnhub_rest_url": url, "finnhub_calls_per_minute": 1800, **more}
    return Settings(data=folder, finnhub_token=SecretStr(KEY), **values)


def arguments(*flags: str) -> argparse.Namespace:
    return build_parser().parse_args(["instruments", "refresh", *flags])


def refresh(
    folder: Path, answer: Callable[[Request], Reply | bytes], *flags: str
) -> tuple[VerbResult, list[str]]:
    with served(answer) as server:
        result = instruments(settings_for(folder, server), arguments(*flags))
        asked = [request.target.partition("symbol=")[2] for request in server.requests]
    return result, asked


def frames(folder: Path, stream: Stream, part: int = PROFILE_SHARD) -> Iterator[Envelope]:
    log = backends.open_log_reader(settings_for(folder, None))
    try:
        place = TopicPartition(stream, part)
        offset = log.bounds(place).begin
        while offset < log.bounds(place).end:
            batch = log.read(place, offset)
            assert batch is not None
            yield from filter(None, map(decode_envelope, batch.values))
            offset = batch.next
    finally:
        log.close()


def test_profiles_are_recorded_as_reference_frames_that_name_their_symbol(tmp_path: Path) -> None:
    result, asked = refresh(tmp_path, profile, "--symbols", "aapl, MSFT,aapl")
    kept = list(frames(tmp_path, Stream.REFERENCE))

    assert asked == ["AAPL", "MSFT"]
    assert result.code == EXIT_OK
    assert [(frame.src, frame.sym) for frame in kept] == [
        ("finnhub.profile2", "AAPL"),
        ("finnhub.profile2", "MSFT"),
    ]
    assert b'"marketCapitalization":1415993' in bytes(kept[0].raw)


def test_a_refresh_is_a_session_of_its_own_partition(tmp_path: Path) -> None:
    refresh(tmp_path, profile, "--symbols", "AAPL")
    events = [decode_event(frame.raw) for frame in frames(tmp_path, Stream.SESSIONS)]

    opened, closed = events
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert (opened.shard, opened.mode, opened.previous) == (PROFILE_SHARD, "live", None)
    assert (closed.reason, closed.messages) == ("drained", {"reference": 1})
    assert list(frames(tmp_path, Stream.SESSIONS, 0)) == []


def test_young_profiles_are_not_fetched_again(tmp_path: Path) -> None:
    refresh(tmp_path, profile, "--symbols", "AAPL")
    second, asked_second = refresh(tmp_path, profile, "--symbols", "AAPL,MSFT")
    _, asked_third = refresh(tmp_path, profile, "--symbols", "AAPL,MSFT", "--older-than", "0s")

    assert asked_second == ["MSFT"]
    assert second.content["young"] == 1
    assert asked_third == ["AAPL", "MSFT"]


def test_an_interrupted_refresh_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "RETRY_S", 0.0)
    monkeypatch.setattr("tickhouse.source.http.RETRY_S", 0.0)

    def breaking(request: Request) -> Reply | bytes:
        return b"" if "MSFT" in request.target else profile(request)

    with pytest.raises(TransientError, match="1 of 3 profiles are recorded: run it again"):
        refresh(tmp_path, breaking, "--symbols", "AAPL,MSFT,XOM")
    _, asked = refresh(tmp_path, profile, "--symbols", "AAPL,MSFT,XOM")

    assert asked == ["MSFT", "XOM"]


def test_an_unknown_symbol_is_said_and_its_answer_kept(tmp_path: Path) -> None:
    result, _ = refresh(tmp_path, profile, "--symbols", "AAPL,NOSUCH")

    assert result.code == EXIT_OK
    assert result.content["unknown"] == ["NOSUCH"]
    assert "unknown to Finnhub (recorded all the same): NOSUCH" in result.text
    assert [bytes(frame.raw) for frame in frames(tmp_path, Stream.REFERENCE)][1] == b"{}"


def test_a_failing_answer_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "RETRY_S", 0.0)
    bad = iter([Reply(b"oops", 500), Reply(b'{"error":"busy"}')])
    result, asked = refresh(
        tmp_path, lambda request: next(bad, None) or profile(request), "--symbols", "AAPL"
    )

    assert asked == ["AAPL"] * 3
    assert result.content["fetched"] == 1


def test_a_symbol_that_goes_on_failing_is_given_up_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "RETRY_S", 0.0)

    def failing(request: Request) -> Reply:
        return Reply(b"half {", 200) if "AAPL" in request.target else profile(request)

    result, _ = refresh(tmp_path, failing, "--symbols", "AAPL,MSFT")

    assert result.code == EXIT_PROBLEM
    assert result.content["failed"] == {"AAPL": "200: half {"}
    assert [frame.sym for frame in frames(tmp_path, Stream.REFERENCE)] == ["MSFT"]


@pytest.mark.parametrize(("status", "kind"), [(401, KeyRefusedError), (403, PlanRefusedError)])
def test_a_refused_key_ends_it_at_once(
    status: int, kind: type[ConfigError], tmp_path: Path
) -> None:
    asked: list[str] = []

    def refuse(request: Request) -> Reply:
        asked.append(request.target)
        return Reply(b'{"error":"no"}', status)

    with pytest.raises(kind):
        refresh(tmp_path, refuse, "--symbols", "AAPL,MSFT")

    assert len(asked) == 1


def test_a_running_recorder_is_named_with_what_to_do(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, None)
    log = backends.open_spool(settings)
    try:
        with pytest.raises(BusyError, match=r"Stop `tickhouse up`.*start it again"):
            instruments(settings, arguments("--symbols", "AAPL"))
    finally:
        log.close()


@pytest.mark.parametrize(
    ("source", "flag", "expected"),
    [
        ("finnhub://AAPL,BINANCE:BTCUSDT,msft", None, ["AAPL", "MSFT"]),
        ("finnhub+rest://BRK.B", None, ["BRK.B"]),
        ("finnhub:AAPL", "XOM", ["XOM"]),
    ],
)
def test_the_symbols_are_the_flags_else_the_sources(
    source: str, flag: str | None, expected: list[str], tmp_path: Path
) -> None:
    assert symbols_asked_for(settings_for(tmp_path, None, source=source), flag) == expected


def test_without_a_finnhub_source_the_s_and_p_500_is_refreshed(tmp_path: Path) -> None:
    symbols = symbols_asked_for(settings_for(tmp_path, None), None)

    assert len(symbols) == 503
    assert "AAPL" in symbols


@pytest.mark.parametrize("flag", ["", ",", "AA;PL", "AAPL,BINANCE:BTCUSDT", "x" * 33, "A'B"])
def test_no_symbol_or_a_malformed_one_is_refused(flag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="symbol"):
        symbols_asked_for(settings_for(tmp_path, None), flag)
