"""The `tickhouse` command: one verb a stage, and the verbs that run, prove and ask."""

import argparse
import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr, ValidationError

from tickhouse import __version__
from tickhouse.errors import ConfigError, TickhouseError
from tickhouse.runtime.result import EXIT_UNABLE, VerbResult
from tickhouse.settings import SETTINGS_FILE, Settings
from tickhouse.telemetry import configure_logging

DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)?$")
UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}

Verb = Callable[[Settings, argparse.Namespace], VerbResult]


def seconds(text: str) -> float:
    """A duration such as `30s`, `500ms`, `2m`.

    >>> seconds("30s"), seconds("2m"), seconds("500ms"), seconds("7")
    (30.0, 120.0, 0.5, 7.0)
    """
    match = DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 30s, 2m, 500ms")
    return float(match[1]) * UNIT_SECONDS[match[2]]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return number


class VerbHelp(msgspec.Struct, frozen=True):
    """A verb as its help shows it; `function` is imported from `runtime` when it runs."""

    summary: str
    example: str
    function: str
    options: Callable[[argparse.ArgumentParser], None] = lambda _parser: None

    def run(self, settings: Settings, arguments: argparse.Namespace) -> VerbResult:
        """Import what the verb needs, and nothing else, and run it."""
        module, _, name = self.function.partition(":")
        verb: Verb = getattr(importlib.import_module(f"tickhouse.runtime.{module}"), name)
        return verb(settings, arguments)


def _stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="stop once level with what is upstream, exit 0"
    )
    _for_option(parser)


def _for_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="for_s", type=seconds, metavar="TIME", help="stop after this time, as 30s"
    )
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def _record_options(parser: argparse.ArgumentParser) -> None:
    _stage_options(parser)
    _replay_options(parser)


def _replay_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("replay", "with a replay:… source only")
    group.add_argument("--from", dest="replay_from", metavar="TIME", help="from this receipt on")
    group.add_argument("--to", dest="replay_to", metavar="TIME", help="up to this receipt")
    group.add_argument("--symbols", dest="replay_symbols", metavar="LIST", help="such as AAPL,MSFT")
    group.add_argument("--speed", dest="replay_speed", metavar="N", help="times the pace, or max")


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", choices=["log", "lake"], help="where to look")
    parser.add_argument(
        "--stream", default="trades", choices=["trades", "quotes", "reference", "sessions"]
    )
    parser.add_argument("--part", type=int, help="one partition; all without it")
    parser.add_argument("--at", type=int, metavar="N", help="the record at this log offset")
    parser.add_argument("--from-offset", type=int, metavar="N", help="from this log offset on")
    parser.add_argument("--to-offset", type=int, metavar="N", help="up to this log offset")
    parser.add_argument("--from", dest="from_time", metavar="TIME", help="from this receipt on")
    parser.add_argument("--to", dest="to_time", metavar="TIME", help="up to this receipt")
    parser.add_argument("--session", metavar="ID", help="of this connection (or how its id begins)")
    parser.add_argument("--seq", type=int, metavar="N", help="message number in its session")
    parser.add_argument("--limit", type=int, default=20, help="at most this many (20)")
    parser.add_argument("--full", action="store_true", help="do not cut lines to the screen")


def _up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="for_s", type=seconds, metavar="TIME", help="stop after this time, as 30s"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="stop once the feed is drained and gold is level with it",
    )
    _replay_options(parser)


def _audit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="compare gold with the simulator's truth ledger"
    )
    parser.add_argument(
        "--deep", action="store_true", help="inflate and recount every object, not only re-hash it"
    )


def _rebuild_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, required=True, metavar="PATH", help="new folder for the rebuilt data"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare the exact layers bit for bit; 1 if not equal",
    )
    parser.add_argument(
        "--sample",
        type=_positive,
        metavar="N",
        help="rebuild and compare only N partitions, chosen anew each time",
    )


def _rederive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="received_from", metavar="TIME", help="from the load with this receipt on"
    )
    parser.add_argument(
        "--to", dest="received_to", metavar="TIME", help="do nothing if all was received later"
    )


def _retention_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days",
        type=float,
        default=30.0,
        metavar="DAYS",
        help="what has been in the warehouse for longer than this (30)",
    )


def _query_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", help="a SELECT over published gold and silver")
    parser.add_argument("--rows", type=int, default=1000, help="at most this many rows")


def _instruments_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["refresh"], help="fetch company profiles from Finnhub")
    parser.add_argument(
        "--symbols", metavar="LIST", help="such as AAPL,MSFT; default: the source's, or S&P 500"
    )
    parser.add_argument(
        "--older-than",
        type=seconds,
        default=24 * 3600.0,
        metavar="TIME",
        help="leave profiles alone that the log holds and that are younger (24h)",
    )
    parser.add_argument(
        "--for", dest="for_s", type=seconds, metavar="TIME", help="stop after this time, as 30s"
    )


def _init_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partitions", type=int, default=8, metavar="N", help="of each topic: one a shard (8)"
    )
    parser.add_argument(
        "--replication", type=int, default=1, metavar="N", help="copies of each partition (1)"
    )
    parser.add_argument(
        "--retention-hours",
        type=float,
        default=72.0,
        metavar="HOURS",
        help="how long new topics keep records, landed or not (72)",
    )
    parser.add_argument(
        "--policies", type=Path, metavar="FOLDER", help="write policies and SQL there"
    )


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept",
        action="store_true",
        help="ask a Snowflake account for each fact that tickhouse relies on",
    )


def _copy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="copy_from", metavar="URL", help="lake to read; default: the setting `lake`"
    )
    parser.add_argument(
        "--to", dest="copy_to", required=True, metavar="URL", help="lake to fill: file:/// or s3://"
    )


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="URL", help="s3://bucket[/prefix] or file:///folder")
    parser.add_argument(
        "--kind",
        default="auto",
        choices=["auto", "quote", "trade"],
        help="what the messages are; auto tells them one by one (auto)",
    )
    parser.add_argument(
        "--symbol-from",
        metavar="WHERE",
        help="of quotes: field:NAME of the message or key:N, a part of the key;"
        " default: field:symbol, else the folder",
    )
    _for_option(parser)


VERBS: Final[dict[str, VerbHelp]] = {
    "up": VerbHelp(
        "run the whole road under one supervisor and show it in a page",
        "tickhouse up --source 'sim://sp500?rate=1000' --for 30s",
        "up:run",
        _up_options,
    ),
    "record": VerbHelp(
        "stage 1: frames from the feed into the log",
        "tickhouse record --source 'replay:trades.jsonl' --once",
        "streaming:record",
        _record_options,
    ),
    "land": VerbHelp(
        "stage 2: records from the log into write-once bronze objects",
        "tickhouse land --once",
        "streaming:land",
        _stage_options,
    ),
    "load": VerbHelp(
        "stage 3: bronze objects into the warehouse, with the load ledger",
        "tickhouse load --once",
        "warehousing:load",
        _stage_options,
    ),
    "build": VerbHelp(
        "stage 4: silver and gold by dbt, then publish gold",
        "tickhouse build --once",
        "warehousing:build",
        _stage_options,
    ),
    "refine": VerbHelp(
        "stages 3 and 4 in one process, which owns the warehouse file (what `up` runs)",
        "tickhouse refine --once",
        "warehousing:refine",
        _stage_options,
    ),
    "serve": VerbHelp(
        "stage 5: the page, on 127.0.0.1",
        "tickhouse serve --port 8787",
        "serving:serve",
        _stage_options,
    ),
    "status": VerbHelp(
        "where each stage is, and how far behind",
        "tickhouse status --json",
        "ask:status",
    ),
    "audit": VerbHelp(
        "prove that every record is in every layer exactly once",
        "tickhouse audit --truth data/truth.json --json",
        "proof:audit",
        _audit_options,
    ),
    "rebuild": VerbHelp(
        "derive warehouse, silver and gold again from the lake alone",
        "tickhouse rebuild --to /tmp/rebuilt --compare",
        "proof:rebuild",
        _rebuild_options,
    ),
    "rederive": VerbHelp(
        "derive silver and gold again from the warehouse's own bronze, a range or everything",
        "tickhouse rederive --from 2026-03-02T14:30:00Z",
        "rederiving:rederive",
        _rederive_options,
    ),
    "retention": VerbHelp(
        "report what of the lake is old enough to go, and whether the warehouse has it",
        "tickhouse retention --days 30",
        "retention:retention",
        _retention_options,
    ),
    "init": VerbHelp(
        "create topics, bucket and tables; print what administrators apply; does nothing twice",
        "tickhouse init --log kafka://broker:9092 --lake s3://ticks/lake --policies policies",
        "provisioning:init",
        _init_options,
    ),
    "copy": VerbHelp(
        "copy a lake into another one, verified and resumable",
        "tickhouse copy --to s3://ticks/lake",
        "copying:copy",
        _copy_options,
    ),
    "import": VerbHelp(
        "an existing lake of one JSON object a message into the log, verified and resumable",
        "tickhouse import s3://bronze-transactions",
        "importing:import_lake",
        _import_options,
    ),
    "doctor": VerbHelp(
        "check every configured backend and say what to fix",
        "tickhouse doctor",
        "ask:doctor",
        _doctor_options,
    ),
    "instruments": VerbHelp(
        "fetch names, sectors and market values from Finnhub, through the log into silver",
        "tickhouse instruments refresh --symbols AAPL,MSFT",
        "instruments:instruments",
        _instruments_options,
    ),
    "show": VerbHelp(
        "print frames as log or lake hold them",
        "tickhouse show log --stream sessions --limit 5",
        "show:show",
        _show_options,
    ),
    "drain": VerbHelp(
        "send what a spool still holds to Kafka after another spool took over its shards",
        "tickhouse drain --spool sqlite:////old/log.db",
        "relaying:drain",
        _for_option,
    ),
    "query": VerbHelp(
        "ask published gold a question, read-only",
        'tickhouse query "select symbol, last_price from gold.kpi order by 1"',
        "ask:query",
        _query_options,
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line: every verb takes `--json` and every setting as a flag."""
    parser = argparse.ArgumentParser(
        prog="tickhouse",
        description="Market ticks from the wire to governed gold tables, with proof.",
        epilog="Exit codes: 0 all well, 1 a problem was found, 2 could not run.",
    )
    parser.add_argument("--version", action="version", version=f"tickhouse {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        child = verbs.add_parser(
            name,
            help=verb.summary,
            description=verb.summary,
            epilog=f"Example: {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.options(child)
        child.add_argument("--json", action="store_true", help="print one JSON document")
        _add_settings(child)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "settings", "also TICKHOUSE_<NAME> in the environment, or tickhouse.toml"
    )
    for name, field in Settings.model_fields.items():
        if field.annotation is SecretStr:
            continue
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting_{name}",
            metavar=name.rpartition("_")[2].upper(),
            help=(field.description or "").replace("%", "%%"),
        )


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Flags > environment > file > defaults.

    Raises:
        pydantic.ValidationError: a value is out of range; the message names the setting.
    """
    flags: dict[str, Any] = {
        name: value
        for name in Settings.model_fields
        if (value := getattr(arguments, f"setting_{name}", None)) is not None
    }
    return with_replay_range(Settings(**flags), arguments)


def with_replay_range(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """The settings with `--from`, `--to`, `--symbols`, `--speed` in the replay's address.

    Raises:
        ConfigError: the source is no replay.
    """
    given = {
        name: value
        for name in ("from", "to", "symbols", "speed")
        if (value := getattr(arguments, f"replay_{name}", None)) is not None
    }
    if not given:
        return settings
    if not settings.source.startswith("replay:"):
        raise ConfigError(
            f"--{next(iter(given))} is for a replay; the source is {settings.source!r}."
            " Give --source replay:lake or replay:<file>"
        )
    path, _, query = settings.source.rpartition("?")
    separator = "&" if path and "=" in query else "?"
    added = "&".join(f"{name}={value}" for name, value in given.items())
    return settings.model_copy(update={"source": f"{settings.source}{separator}{added}"})


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb; exits 0, 1 or 2."""
    arguments = build_parser().parse_args(argv)
    configure_logging(as_json=True if getattr(arguments, "supervised", False) else None)
    code = run_verb(arguments)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


def run_verb(arguments: argparse.Namespace) -> int:
    """Run the verb and print its result; every expected error becomes one clear line."""
    try:
        result = VERBS[arguments.verb].run(read_settings(arguments), arguments)
    except ValidationError as error:
        return _unable(arguments, _describe(error), ConfigError.__name__)
    except TickhouseError as error:
        return _unable(arguments, str(error), type(error).__name__)
    except KeyboardInterrupt:
        return _unable(arguments, "interrupted", KeyboardInterrupt.__name__)
    if arguments.json:
        print(msgspec.json.encode(result.content, enc_hook=str).decode())
    elif result.text:
        print(result.text)
    return result.code


def _unable(arguments: argparse.Namespace, reason: str, kind: str) -> int:
    if arguments.json:
        print(msgspec.json.encode({"ok": False, "error": reason, "kind": kind}).decode())
    print(f"tickhouse {arguments.verb}: {reason}", file=sys.stderr)
    return EXIT_UNABLE


def _describe(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
    ]
    return f"a setting (flag, TICKHOUSE_* or {SETTINGS_FILE}) is wrong: {'; '.join(problems)}"
