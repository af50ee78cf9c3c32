"""What reader, relay and topics share of the Kafka client: configuration, errors, headers."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from confluent_kafka import KafkaError, KafkaException

from tickhouse.errors import ConfigError, RefusedError, TransientError
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.telemetry import get_logger

if TYPE_CHECKING:
    from concurrent.futures import Future

SPOOL_HEADER: Final = "spool"
"""Header of a relayed record: `<spool epoch>:<spool offset>`."""
DRAINED_HEADER: Final = "drained"
"""Header of a record that `drain` sent: its epoch is not the one that goes on."""
TIMEOUT_S: Final = 10.0
TELL_EVERY_S: Final = 10.0

Headers = Sequence[tuple[str, bytes | str | None]] | Mapping[str, bytes | str | None] | None

_REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
_WRONG: Final = frozenset(
    {
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - the library's own name of a local error
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
_ADVICE: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give this user READ and WRITE on the topics",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "give this user READ on the group (kafka_group)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give this user IDEMPOTENT_WRITE on the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "give this user WRITE on transactional ids that begin with the topics' prefix"
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic (tickhouse init does)",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check kafka_sasl_username and its password",
    KafkaError._AUTHENTICATION: "check kafka_sasl_username and its password",  # noqa: SLF001
    KafkaError._SSL: "check kafka_security_protocol, kafka_ssl_ca and the host's name",  # noqa: SLF001
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create it: tickhouse init",
    KafkaError._UNKNOWN_TOPIC: "create it: tickhouse init",  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION: "create it: tickhouse init",  # noqa: SLF001
}
MISSING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
"""Codes that say that a topic or partition is not there."""
_log = get_logger("kafka")


def client_config(options: KafkaOptions) -> dict[str, Any]:
    """What every client of a cluster is given; secrets are in it, so it is never shown."""
    config: dict[str, Any] = {
        "bootstrap.servers": options.bootstrap,
        "client.id": "tickhouse",
        "security.protocol": options.security_protocol,
        "error_cb": _tell_error,
        "logger": _client_logger(),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "allow.auto.create.topics": False,
    }
    given = {
        "sasl.mechanism": options.sasl_mechanism,
        "sasl.username": options.sasl_username,
        "sasl.password": options.sasl_password,
        "ssl.ca.location": options.ssl_ca,
        "ssl.certificate.location": options.ssl_certificate,
        "ssl.key.location": options.ssl_key,
        "ssl.key.password": options.ssl_key_password,
    }
    config |= {name: value for name, value in given.items() if value}
    if options.security_protocol.endswith("SSL"):
        is_checked = not options.insecure_skip_tls_verification
        config["enable.ssl.certificate.verification"] = is_checked
        config["ssl.endpoint.identification.algorithm"] = "https" if is_checked else "none"
    return config


class _Teller:
    """Says what the client met, each kind once in a while: it goes on by itself."""

    def __init__(self) -> None:
        self._told: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Say it, or not again so soon."""
        now = time.monotonic()
        if now - self._told.get(error.code(), -TELL_EVERY_S) >= TELL_EVERY_S:
            self._told[error.code()] = now
            _log.warning("kafka_error", error=error.str())


_tell_error = _Teller()


def _client_logger() -> logging.Logger:
    """The library's own lines say what `_tell_error` says, several times."""
    logger = logging.getLogger("tickhouse.kafka.client")
    logger.disabled = True
    return logger


def raise_kafka(error: KafkaError | KafkaException, what: str) -> NoReturn:
    """Raise what a Kafka error means to us.

    Args:
        error: as the client gives it.
        what: what was tried, such as "kafka://host:9092: read tickhouse.trades.v1[0]".

    Raises:
        ConfigError: an operator acts: authentication, TLS, a topic that is not there.
        RefusedError: this user may not do it, or the record is too large.
        TransientError: anything that passes.
    """
    found: Any = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(found, KafkaError):
        raise ConfigError(f"{what}: {found}")
    code: int = found.code()
    advice = _ADVICE.get(code, "")
    text = f"{what}: {found.str()}{f'; {advice}' if advice else ''}"
    if code in _REFUSED:
        raise RefusedError(text)
    if code in _WRONG or code in MISSING:
        raise ConfigError(text)
    raise TransientError(text)


def answer_of(future: "Future[Any]", what: str, *, but: Collection[int] = ()) -> Any:  # noqa: ANN401 - each call has its own
    """What the cluster answers to an admin call.

    Args:
        future: of the call, as the client gives it.
        what: what was tried, see `raise_kafka`.
        but: codes of errors that are an answer as well: None.

    Raises:
        ConfigError, RefusedError, TransientError: see `raise_kafka`.
    """
    try:
        return future.result(TIMEOUT_S + 1)
    except KafkaException as error:
        if error.args[0].code() in but:
            return None
        raise_kafka(error, what)
    except TimeoutError:
        raise TransientError(f"{what}: no answer in {TIMEOUT_S:g} s") from None


def spool_header(epoch: str, offset: int) -> bytes:
    """Value of the header that names a record's place in its spool.

    >>> spool_header("e1", 7)
    b'e1:7'
    """
    return b"%b:%d" % (epoch.encode(), offset)


def read_spool_header(headers: Headers) -> tuple[str, int] | None:
    """The spool epoch and offset in a record's headers; None where it was not relayed.

    >>> read_spool_header([("spool", b"e1:7")]), read_spool_header([("spool", b"x")])
    (('e1', 7), None)
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    for name, value in pairs:
        if name == SPOOL_HEADER and isinstance(value, bytes):
            epoch, _, offset = value.decode("ascii", "replace").rpartition(":")
            return (epoch, int(offset)) if epoch and offset.isdecimal() else None
    return None
