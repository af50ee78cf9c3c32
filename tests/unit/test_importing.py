"""`import`: what an object holds, what is taken of a lake, and the proof of it."""

import argparse
import gzip
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from support.tutorial_lake import tutorial_quote
from tickhouse.audit.imported import prove_import
from tickhouse.bronze.foreign_folder import ForeignFolder
from tickhouse.cli import build_parser
from tickhouse.errors import BusyError, ConfigError, TransientError
from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Imported, SessionEvent, decode_event, encode_event
from tickhouse.runtime.importing import import_lake
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.source.importing import feed as import_feed
from tickhouse.source.importing import messages
from tickhouse.source.importing.book import ImportBook
from tickhouse.source.importing.feed import IMPORT_SHARD
from tickhouse.source.importing.messages import GUESS, UnfitError, messages_of, read_symbol_rule
from tickhouse.source.importing.objects import ForeignObject
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

QUOTE = (
    b'{"c":261.74,"d":0.29,"dp":0.11,"h":263.31,"l":260.68,"o":261.07,"pc":259.45,"t":1582641000}'
)
TRADES = b'{"data":[{"p":7296.89,"s":"BINANCE:BTCUSDT","t":1575526691134,"v":0.01}],"type":"trade"}'
KEY = "AAPL/1700000000.json"


# -- what an object holds ----------------------------------------------------------------------


def test_a_quote_is_a_frame_byte_for_byte_and_its_folder_the_symbol() -> None:
    (message,) = messages_of(QUOTE, KEY)

    assert message == (QUOTE, Stream.QUOTES, "import:finnhub.quote", "AAPL", True)


def test_a_field_names_the_symbol_before_the_folder() -> None:
    (message,) = messages_of(tutorial_quote("MSFT", 7), KEY)

    assert message.symbol == "MSFT"
    assert message.payload == tutorial_quote("MSFT", 7)


def test_a_frame_of_trades_goes_the_way_of_trades() -> None:
    (message,) = messages_of(TRADES, "2024/01/7.json")

    assert message[:4] == (TRADES, Stream.TRADES, "import:finnhub.ws", None)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_each_line_is_a_frame(end: bytes, pack: type[bytes]) -> None:
    body = pack(end.join([QUOTE, TRADES, b"", QUOTE, b""]))

    found = messages_of(body, KEY)

    assert [message.payload for message in found] == [QUOTE, TRADES, QUOTE]
    assert [str(message.stream) for message in found] == ["quotes", "trades", "quotes"]


def test_one_value_over_several_lines_is_one_frame_that_silver_can_read() -> None:
    pretty = json.dumps(json.loads(QUOTE), indent=2).encode()

    (message,) = messages_of(pretty, KEY)

    assert b"\n" not in message.payload
    assert len(message.payload) == len(pretty)
    assert json.loads(message.payload) == json.loads(QUOTE)


@pytest.mark.parametrize("body", [b"no json", b"\xff\xfe\x00", b'{"error":"API limit reached."}'])
def test_what_is_neither_is_taken_as_it_is_and_counted(body: bytes) -> None:
    (message,) = messages_of(body, KEY)

    assert (message.payload, message.stream, message.is_like) == (body, Stream.QUOTES, False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\n \n", "empty"),
        (gzip.compress(QUOTE, mtime=0)[:-9], "broken gzip"),
        (b'{"type":"trade","data":"' + b"x" * 1_000_000 + b'"}', "over the limit of 1000000"),
        (b"\xff" * 900_000, "over the limit of 1000000"),
    ],
)
def test_what_cannot_be_a_frame_is_refused_with_the_reason(body: bytes, said: str) -> None:
    with pytest.raises(UnfitError, match=said):
        messages_of(body, KEY)


def test_a_gzip_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "OBJECT_BYTES_MAX", 1000)

    with pytest.raises(UnfitError, match="inflates to more than the limit of 1000 bytes"):
        messages_of(gzip.compress(b"[" * 2000), KEY)


@pytest.mark.parametrize(
    ("where", "key", "symbol"),
    [
        ("key:0", "aapl/2024/1.json", "AAPL"),
        ("key:-2", "raw/symbol=BRK.B/1.json", "BRK.B"),
        ("key:1", "quotes/MSFT.jsonl.gz", "MSFT"),
        ("key:0", "BINANCE:BTCUSDT/1.json", "BINANCE:BTCUSDT"),
        ("field:ticker", KEY, "TSLA"),
        (None, "raw/2024/AAPL/1.json", "AAPL"),
    ],
)
def test_the_symbol_is_where_it_is_said_to_be(where: str | None, key: str, symbol: str) -> None:
    body = QUOTE[:-1] + b',"ticker":"TSLA"}'

    (message,) = messages_of(body, key, "auto", read_symbol_rule(where))

    assert message.symbol == symbol


@pytest.mark.parametrize(
    ("where", "key"),
    [(None, "raw/1.json"), (None, "2024/01/1.json"), (None, "1.json"), ("key:5", KEY)],
)
def test_a_quote_whose_symbol_is_not_found_is_refused(where: str | None, key: str) -> None:
    with pytest.raises(UnfitError, match="--symbol-from"):
        messages_of(QUOTE, key, "auto", read_symbol_rule(where))


@pytest.mark.parametrize("where", ["key", "key:x", "folder", "field:"])
def test_a_wrong_place_of_the_symbol_says_what_is_right(where: str) -> None:
    with pytest.raises(ConfigError, match="key:<number>"):
        read_symbol_rule(where)


def test_the_kind_can_be_said() -> None:
    (quote,) = messages_of(TRADES, KEY, "quote", GUESS)
    (trade,) = messages_of(QUOTE, KEY, "trade", GUESS)

    assert (quote.stream, quote.is_like) == (Stream.QUOTES, False)
    assert (trade.stream, trade.is_like) == (Stream.TRADES, False)


# -- the verb ----------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Twelve quotes of three symbols."""
    folder = tmp_path / "lake"
    for symbol in ("AAPL", "BINANCE:BTCUSDT", "MSFT"):
        for at in range(4):
            put(folder, f"{symbol}/{1_700_000_000 + at}.json", tutorial_quote(symbol, at))
    return folder


def put(folder: Path, key: str, body: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def run(lake: Path, data: Path, *flags: str) -> VerbResult:
    return import_lake(Settings(data=data), arguments(f"file:///{lake}", *flags))


def arguments(*flags: str) -> argparse.Namespace:
    return build_parser().parse_args(["import", *flags])


def envelopes(data: Path, stream: Stream) -> list[Envelope]:
    found: list[Envelope] = []
    place = TopicPartition(stream, IMPORT_SHARD)
    with closing(SqliteReader(data / "log" / "log.db")) as log:
        position = 0
        while (batch := log.read(place, position)) is not None:
            found += filter(None, map(decode_envelope, batch.values))
            position = batch.next
    return found


def imported(data: Path) -> list[Imported]:
    events = [decode_event(each.raw) for each in envelopes(data, Stream.SESSIONS)]
    return [event for event in events if isinstance(event, Imported)]


def test_a_lake_is_imported_whole_in_order_of_key(lake: Path, tmp_path: Path) -> None:
    result = run(lake, tmp_path / "data")

    assert result.code == EXIT_OK
    assert result.content["in_log"]["objects"] == 12
    assert result.content["in_log"]["bytes"] == result.content["bytes"]
    frames = envelopes(tmp_path / "data", Stream.QUOTES)
    files = sorted(lake.rglob("*.json"))
    assert [bytes(frame.raw) for frame in frames] == [file.read_bytes() for file in files]
    assert [frame.sym for frame in frames] == [file.parent.name for file in files]
    assert {frame.src for frame in frames} == {"import:finnhub.quote"}


def test_the_event_names_each_object_with_when_it_was_written(lake: Path, tmp_path: Path) -> None:
    os.utime(lake / "AAPL/1700000000.json", ns=(7_000, 7_000))

    run(lake, tmp_path / "data")

    (event,) = imported(tmp_path / "data")
    assert event.place == "file:///"
    assert event.first == {"trades": 0, "quotes": 0}
    named = event.objects[0]
    assert f"/{named.key}" == str(lake / "AAPL/1700000000.json")
    assert (named.modified, named.trades, named.quotes) == (7_000, 0, 1)


def test_a_second_run_takes_what_was_added_wherever_it_lies(lake: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(lake, data)
    put(lake, "AAPL/1600000000.json", tutorial_quote("AAPL", 8))
    put(lake, "ZM/1.json", tutorial_quote("ZM", 9))

    result = run(lake, data)

    assert (result.code, result.content["there"], result.content["objects"]) == (EXIT_OK, 12, 2)
    assert result.content["in_log"]["objects"] == 14
    assert len(envelopes(data, Stream.QUOTES)) == 14


def test_a_folder_of_it_counts_as_imported_too(lake: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(lake / "AAPL", data, "--symbol-from", "field:symbol")

    result = run(lake, data)

    assert (result.content["there"], result.content["objects"]) == (4, 8)


def test_what_was_removed_since_is_no_problem(lake: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(lake, data)
    (lake / "AAPL/1700000000.json").unlink()

    assert run(lake, data).code == EXIT_OK


def test_what_was_rewritten_since_is_told_and_not_imported_again(
    lake: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    run(lake, data)
    put(lake, "AAPL/1700000000.json", tutorial_quote("AAPL", 12345))

    result = run(lake, data)

    assert result.code == EXIT_PROBLEM
    (reason,) = result.content["reasons"]
    assert "AAPL/1700000000.json: rewritten since its import" in reason
    assert len(envelopes(data, Stream.QUOTES)) == 12


def test_what_is_not_taken_is_named_and_the_rest_is_imported(lake: Path, tmp_path: Path) -> None:
    put(lake, "AAPL/empty.json", b"")
    put(lake, "AAPL/broken.json.gz", gzip.compress(QUOTE)[:-4])
    put(lake, "1.json", QUOTE)
    (lake / "AAPL/huge.json").touch()
    os.truncate(lake / "AAPL/huge.json", messages.OBJECT_BYTES_MAX + 1)

    result = run(lake, tmp_path / "data")

    assert result.code == EXIT_PROBLEM
    told = {reason.rpartition("/")[2].split(":")[0]: reason for reason in result.content["reasons"]}
    assert sorted(told) == ["1.json", "broken.json.gz", "empty.json", "huge.json"]
    assert "over the limit of 67108864" in told["huge.json"]
    assert "--symbol-from" in told["1.json"]
    assert result.content["in_log"]["objects"] == 12
    assert result.content["in_log"]["problems"] == []
    again = run(lake, tmp_path / "data", "--symbol-from", "key:-1")
    assert again.content["objects"] == 1


def test_nothing_is_written_to_the_lake(lake: Path, tmp_path: Path) -> None:
    before = sorted(lake.rglob("*"))
    for path in before:
        path.chmod(0o500 if path.is_dir() else 0o400)

    run(lake, tmp_path / "data")

    assert sorted(lake.rglob("*")) == before


def test_an_empty_place_a_missing_one_and_a_lake_of_ours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "own", "bronze/v1/quotes/x~1/p=00000/GENESIS", b"{}")

    for name, said in [
        ("empty", "nothing there"),
        ("none", "no folder"),
        ("own", "tickhouse copy"),
    ]:
        with pytest.raises(ConfigError, match=said):
            run(tmp_path / name, tmp_path / "data")


def test_beside_a_recorder_it_says_what_to_do(lake: Path, tmp_path: Path) -> None:
    with (
        closing(SqliteLog(tmp_path / "data/log/log.db")),
        pytest.raises(BusyError, match=r"stop `tickhouse up`"),
    ):
        run(lake, tmp_path / "data")


class BreakingLake:
    """Gives some objects, then fails or waits."""

    url = "s3://lake"
    place = "s3://lake"
    prefix = ""

    def __init__(self, count: int, *, hangs: threading.Event | None = None) -> None:
        self._count = count
        self._hangs = hangs

    def objects(self) -> Iterator[ForeignObject]:
        for number in range(self._count):
            yield ForeignObject(f"AAPL/{number:06d}.json", len(QUOTE), 1)
        if self._hangs is not None:
            self._hangs.wait(20)
            return
        raise TransientError("no answer")

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        return iter([QUOTE] * len(keys))


def test_what_came_before_an_error_is_kept_in_whole_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tickhouse.runtime.backends.open_foreign_lake", lambda *_: BreakingLake(1_200)
    )

    with pytest.raises(TransientError):
        import_lake(Settings(data=tmp_path), arguments("s3://lake"))

    assert [len(event.objects) for event in imported(tmp_path)] == [500, 500]
    assert [event.first["quotes"] for event in imported(tmp_path)] == [0, 500]
    assert len(envelopes(tmp_path, Stream.QUOTES)) == 1_000


def test_told_to_stop_it_says_that_it_is_not_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(
        "tickhouse.runtime.backends.open_foreign_lake",
        lambda *_: BreakingLake(1_000, hangs=hangs),
    )
    threading.Timer(1.5, hangs.set).start()

    result = import_lake(Settings(data=tmp_path), arguments("s3://lake", "--for", "500ms"))

    assert (result.code, result.content["stopped"]) == (EXIT_PROBLEM, True)
    assert "run it again" in (result.text or "")


# -- the proof can fail ------------------------------------------------------------------------


def damaged(lake: Path, data: Path, change: object) -> list[str]:
    """Import, write the log anew with a change to its records, and read it back."""
    run(lake, data)
    other = SqliteLog(data / "other.db")
    for stream in (Stream.SESSIONS, Stream.QUOTES):
        place = TopicPartition(stream, IMPORT_SHARD)
        with closing(SqliteReader(data / "log/log.db")) as log:
            batch = log.read(place, 0)
        assert batch is not None
        values = change(stream, list(batch.values))  # type: ignore[operator]
        other.append([Append(place, values)])
    with closing(ImportBook()) as book:
        for found in ForeignFolder(lake).objects():
            book.see(found.key, found.size)
        proof = prove_import(other, book, place="file:///", shard=IMPORT_SHARD, is_whole=True)
    other.close()
    return proof.problems


def of_quotes(stream: Stream, values: list[bytes]) -> bool:
    return stream is Stream.QUOTES and bool(values)


def test_an_unchanged_log_proves_it(lake: Path, tmp_path: Path) -> None:
    assert damaged(lake, tmp_path / "data", lambda _, values: values) == []


def test_a_frame_that_is_missing_is_found(lake: Path, tmp_path: Path) -> None:
    def change(stream: Stream, values: list[bytes]) -> list[bytes]:
        return values[:5] + values[6:] if of_quotes(stream, values) else values

    (problem,) = damaged(lake, tmp_path / "data", change)
    assert "11 of 12 frames" in problem


def test_a_frame_that_comes_twice_is_found(lake: Path, tmp_path: Path) -> None:
    def change(stream: Stream, values: list[bytes]) -> list[bytes]:
        return [*values[:6], *values[5:]] if of_quotes(stream, values) else values

    (problem,) = damaged(lake, tmp_path / "data", change)
    assert "frame 5 of session" in problem


def test_a_payload_that_lost_bytes_is_found(lake: Path, tmp_path: Path) -> None:
    def change(stream: Stream, values: list[bytes]) -> list[bytes]:
        if of_quotes(stream, values):
            values[3] = values[3].replace(b"263.31", b"263.3")
        return values

    (problem,) = damaged(lake, tmp_path / "data", change)
    assert "bytes in the log" in problem


def with_event(values: list[bytes], event: SessionEvent) -> list[bytes]:
    first = decode_envelope(values[1])
    assert first is not None
    return [values[0], encode_event(event, session=first.ses, seq=1), *values[2:]]


def imported_event(values: list[bytes]) -> Imported:
    envelope = decode_envelope(values[1])
    assert envelope is not None
    event = decode_event(envelope.raw)
    assert isinstance(event, Imported)
    return event


def test_an_object_that_no_event_names_is_found(lake: Path, tmp_path: Path) -> None:
    def change(stream: Stream, values: list[bytes]) -> list[bytes]:
        if stream is not Stream.SESSIONS:
            return values[:-1]
        event = imported_event(values)
        size = event.bytes["quotes"] - len(tutorial_quote("MSFT", 3))
        return with_event(
            values,
            msgspec.structs.replace(
                event, objects=event.objects[:-1], bytes={"trades": 0, "quotes": size}
            ),
        )

    (problem,) = damaged(lake, tmp_path / "data", change)
    assert problem.endswith("MSFT/1700000003.json: not in the log")


def test_an_object_that_is_named_twice_is_found(lake: Path, tmp_path: Path) -> None:
    def change(stream: Stream, values: list[bytes]) -> list[bytes]:
        return [*values[:2], values[1], *values[2:]] if stream is Stream.SESSIONS else values

    problems = damaged(lake, tmp_path / "data", change)
    assert sum(problem.endswith("imported twice") for problem in problems) == 12


def test_what_retention_removed_is_told_apart_from_what_is_missing(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(import_feed, "BATCH_OBJECTS", 4)
    run(lake, data)
    put(lake, "ZM/1.json", tutorial_quote("ZM", 9))
    run(lake, data)
    with closing(SqliteLog(data / "log/log.db")) as log:
        assert log.trim(TopicPartition(Stream.QUOTES, IMPORT_SHARD), 12) == 12

    result = run(lake, data)

    assert result.code == EXIT_OK
    assert (result.content["in_log"]["frames"], result.content["in_log"]["trimmed"]) == (1, 12)
