"""Addresses of Finnhub feeds: symbols checked, one spelling, clear errors."""

import pytest

from support.tiny_socket import FakeClock, options
from tickhouse.errors import ConfigError
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.finnhub.address import by_liquidity, read_address
from tickhouse.source.finnhub.feed import open_finnhub, open_finnhub_rest
from tickhouse.source.secret import Secret


def test_symbols_are_upper_cased_and_keep_their_order() -> None:
    watch = read_address("finnhub", "msft, aapl,binance:btcusdt,IC%20MARKETS:1")

    assert watch.symbols == ("MSFT", "AAPL", "BINANCE:BTCUSDT", "IC MARKETS:1")
    assert watch.url == "finnhub://MSFT,AAPL,BINANCE:BTCUSDT,IC MARKETS:1"
    assert watch.polls


def test_the_universe_stands_for_its_largest() -> None:
    watch = read_address("finnhub", "SP500?symbols=3&poll=off")

    assert watch.symbols == ("NVDA", "AAPL", "GOOGL")
    assert watch.url == "finnhub://sp500?symbols=3&poll=off"
    assert not watch.polls
    assert len(read_address("finnhub", "sp500").symbols) == 50
    assert len(read_address("finnhub+rest", "sp500?symbols=503").symbols) == 503


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "no symbol given"),
        ("?poll=off", "no symbol given"),
        (",", "'' is not a symbol"),
        ("AAPL,,MSFT", "'' is not a symbol"),
        ("AAPL,x; drop table", "'X; DROP TABLE' is not a symbol"),
        ("A" * 33, "is not a symbol"),
        ("AAPL,aapl", "AAPL is given twice"),
        ("AAPL?symbols=3", "symbols='3'; give it with finnhub://sp500 only"),
        ("sp500?symbols=0", "symbols='0'"),
        ("sp500?symbols=504", "symbols='504'"),
        ("AAPL?poll=maybe", "poll='maybe'; give on or off"),
        ("AAPL?speed=3", "unknown parameter speed='3'"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_the_reason(rest: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_finnhub(rest, options(), clock=FakeClock())

    assert said in str(raised.value)


def test_polling_alone_cannot_be_switched_off() -> None:
    with pytest.raises(ConfigError, match="unknown parameter poll"):
        open_finnhub_rest("AAPL?poll=off", options(), clock=FakeClock())


@pytest.mark.parametrize("url", ["finnhub://AAPL", "finnhub+rest://AAPL"])
def test_without_a_key_one_is_told_how_to_give_it(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_feed(url, FeedOptions(finnhub=options(token=Secret())))

    assert "TICKHOUSE_FINNHUB_TOKEN" in str(raised.value)
    assert "finnhub_token_file" in str(raised.value)
    assert "https://finnhub.io/register" in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://ws.finnhub.io", "ws://", "ws://[::1", "wss://host:99999", "wss://me:pw@host"]
)
def test_an_address_that_is_no_socket_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="finnhub_ws_url") as raised:
        open_finnhub("AAPL", options(ws_url=url), clock=FakeClock())

    assert "pw" not in str(raised.value)


def test_liquid_names_come_first_and_unknown_ones_last_as_given() -> None:
    assert by_liquidity(("ZZZZ", "MSFT", "BINANCE:BTCUSDT", "NVDA")) == [
        "NVDA",
        "MSFT",
        "ZZZZ",
        "BINANCE:BTCUSDT",
    ]


@pytest.mark.parametrize(
    ("rest", "more", "shards"),
    [
        ("AAPL", {}, 2),
        ("AAPL?poll=off", {}, 1),
        ("AAPL", {"can_fetch_ticks": True}, 3),
        ("AAPL?poll=off", {"can_fetch_ticks": True}, 3),
    ],
)
def test_a_shard_has_the_same_task_in_every_feed(
    rest: str, more: dict[str, bool], shards: int
) -> None:
    feed = open_finnhub(rest, options(**more), clock=FakeClock())

    assert feed.shards == shards
    assert [feed.waits(shard) for shard in range(shards)] == [False, True, True][:shards]
    assert (feed.mode, feed.source, feed.resumes, feed.endless) == (
        "live",
        "finnhub.ws",
        False,
        True,
    )
