"""Which symbol comes which way: split, cap, silence, and back."""

from typing import Any

from support.tiny_socket import CLOSED, OPEN, FakeClock, at
from tickhouse.model.calendar import new_york
from tickhouse.model.session import Coverage
from tickhouse.source.finnhub.coverage import SILENT_S, CoverageBoard

NAMES = ["NVDA", "AAPL", "MSFT", "AMZN", "META", "TSLA"]


def board(symbols: list[str], clock: FakeClock, **more: Any) -> CoverageBoard:
    given = {"socket_max": 50, "polls": True, **more}
    return CoverageBoard(list(symbols), clock=clock, calendar=new_york(), **given)


def facts(told: Coverage | None) -> tuple[str, list[str], str]:
    assert told is not None
    return told.channel, told.symbols, told.reason


def test_symbols_beyond_the_socket_are_polled() -> None:
    split = board(NAMES, FakeClock(), socket_max=4)

    (subscribed,) = split.subscribed()
    (polling,) = split.polling()

    assert facts(subscribed) == ("socket", NAMES[:4], "subscribed")
    assert facts(polling) == ("polling", NAMES[4:], "beyond the socket's 4")
    assert split.polled == NAMES[4:]
    assert split.beside == NAMES[:4]


def test_without_polling_symbols_beyond_the_socket_do_not_come() -> None:
    split = board(NAMES, FakeClock(), socket_max=4, polls=False)

    _, none = split.subscribed()

    assert facts(none) == ("none", NAMES[4:], "beyond the socket's 4")


def test_a_refused_symbol_is_the_last_one_and_stays_off_the_socket() -> None:
    split = board(NAMES, FakeClock())
    split.subscribed()

    first, second = split.refuse_last(), split.refuse_last()

    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == ("TSLA", "META")
    assert facts(second[1]) == ("polling", ["META"], "the socket refused more than 4 symbols")
    assert split.polled == ["META", "TSLA"]
    assert facts(split.subscribed()[0]) == ("socket", NAMES[:4], "subscribed")


def test_when_even_the_first_symbol_is_refused_nothing_is_left_to_refuse() -> None:
    split = board(["AAPL"], FakeClock())

    assert split.refuse_last() is not None
    assert split.refuse_last() is None


def test_a_symbol_silent_while_others_trade_is_polled_until_it_trades_again() -> None:
    clock = FakeClock(OPEN)
    split = board(NAMES, clock)
    split.subscribed()
    told: list[Coverage | None] = []
    while clock.elapsed_s <= SILENT_S + 30:
        split.traded(set(NAMES) - {"META"})
        told.append(split.review())
        clock.elapsed_s += 30

    fallen = [event for event in told if event is not None]
    assert [facts(event) for event in fallen] == [("polling", ["META"], "silent for 900 s")]
    assert split.polled == ["META"]
    assert "META" in split.socket

    back = split.traded({"META", "AAPL"})
    assert facts(back) == ("socket", ["META"], "trades again")
    assert split.polled == []


def silent_after(clock: FakeClock, symbols: list[str], seconds: float) -> CoverageBoard:
    split = board(symbols, clock)
    split.subscribed()
    clock.elapsed_s += seconds
    split.traded({symbols[0]})
    return split


def test_silence_outside_regular_hours_is_no_reason() -> None:
    for start in (CLOSED, at("2026-11-23 12:00"), at("2026-11-23 22:00")):
        assert silent_after(FakeClock(start), ["AAPL", "MSFT"], 1200).review() is None


def test_silence_counts_from_the_opening_bell() -> None:
    bell = at("2026-11-23 14:30")
    clock = FakeClock(bell - 3600 * 1_000_000_000)
    split = silent_after(clock, ["AAPL", "MSFT"], 3600 + SILENT_S)

    assert split.review() is None
    clock.elapsed_s += 2
    assert facts(split.review()) == ("polling", ["MSFT"], "silent for 900 s")


def test_crypto_is_judged_at_any_hour() -> None:
    symbols = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]
    split = silent_after(FakeClock(CLOSED), symbols, SILENT_S + 1)

    assert facts(split.review()) == ("polling", ["BINANCE:ETHUSDT"], "silent for 900 s")


def test_a_whole_market_silent_together_is_the_feed_and_no_symbol_falls_back() -> None:
    clock = FakeClock(OPEN)
    split = board([*NAMES, "BINANCE:BTCUSDT"], clock)
    split.subscribed()
    clock.elapsed_s += SILENT_S
    assert split.mute_s(150) is None
    clock.elapsed_s += 1
    split.traded({"BINANCE:BTCUSDT"})

    assert split.review() is None
    assert split.mute_s(150) == SILENT_S + 1
    split.traded({"AAPL"})
    assert split.mute_s(150) is None


def test_a_market_that_traded_is_silent_much_sooner() -> None:
    clock = FakeClock(OPEN)
    split = board(NAMES, clock)
    split.subscribed()
    clock.elapsed_s += 60
    split.traded(set(NAMES) - {"TSLA"})
    clock.elapsed_s += 180
    assert split.mute_s(150) is None
    clock.elapsed_s += 1

    assert split.mute_s(150) == 181
    split.subscribed()
    clock.elapsed_s += 181
    assert split.mute_s(150) is None


def test_a_market_silent_after_the_close_is_at_rest() -> None:
    clock = FakeClock(at("2026-11-23 20:59"))
    split = board(NAMES, clock)
    split.subscribed()
    split.traded(set(NAMES))
    clock.elapsed_s += 2000

    assert split.mute_s(150) is None


def test_few_silent_symbols_are_polled_though_no_other_one_trades() -> None:
    clock = FakeClock(OPEN)
    split = board(["AAPL", "MSFT"], clock)
    split.subscribed()
    clock.elapsed_s += SILENT_S + 1

    assert split.mute_s(150) is None
    assert facts(split.review()) == ("polling", ["AAPL", "MSFT"], "silent for 900 s")


def test_without_polling_no_symbol_falls_back() -> None:
    clock = FakeClock(OPEN)
    split = board(["AAPL"], clock, polls=False)
    split.subscribed()
    clock.elapsed_s += SILENT_S + 1

    assert split.review() is None


def test_something_is_expected_in_extended_hours_and_of_crypto_always() -> None:
    assert board(["AAPL"], FakeClock(at("2026-11-23 09:30"))).is_expecting
    assert not board(["AAPL"], FakeClock(CLOSED)).is_expecting
    assert board(["AAPL", "BINANCE:BTCUSDT"], FakeClock(CLOSED)).is_expecting


def test_a_new_connection_starts_with_every_symbol_on_the_socket() -> None:
    clock = FakeClock(OPEN)
    split = board(["AAPL"], clock)
    split.subscribed()
    clock.elapsed_s += SILENT_S + 1
    assert split.review() is not None

    assert facts(split.subscribed()[0]) == ("socket", ["AAPL"], "subscribed")
    assert split.polled == []
    assert split.review() is None


def test_without_a_connection_for_a_minute_everything_is_polled_until_there_is_one() -> None:
    clock = FakeClock(OPEN)
    split = board(NAMES, clock, socket_max=4)
    split.subscribed()
    split.lost()
    clock.elapsed_s += 60
    assert (split.polled, split.outage()) == (NAMES[4:], None)

    clock.elapsed_s += 1
    assert facts(split.outage()) == ("polling", NAMES[:4], "the socket is down")
    assert split.outage() is None
    assert sorted(split.polled) == sorted(NAMES)
    assert split.beside == []

    assert facts(split.subscribed()[0]) == ("socket", NAMES[:4], "subscribed")
    assert split.polled == NAMES[4:]


def test_a_feed_without_a_socket_is_never_down() -> None:
    clock = FakeClock(OPEN)
    split = board(NAMES, clock, socket_max=0)
    clock.elapsed_s += 61

    assert split.outage() is None
    assert split.polled == NAMES
