"""How to reach a Kafka cluster: what `kafka://…` and the settings say."""

from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tickhouse.errors import ConfigError

DEFAULT_PREFIX: Final = "tickhouse"

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


class KafkaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, the topics on it, and who we are there.

    Attributes:
        bootstrap: `host:port,host:port`.
        prefix: topics are `<prefix>.<stream>.v1`; their partitions are shards.
        group: consumer group of landers.
        group_protocol: "classic" (cooperative-sticky) or "consumer" (KIP-848).
        compression: of what the relay sends.
        security_protocol, sasl_mechanism, sasl_username: as Kafka names them.
        sasl_password, ssl_key_password: secrets; never shown.
        ssl_ca, ssl_certificate, ssl_key: paths of PEM files; "" = the system's, or none.
        insecure_skip_tls_verification: take any certificate. Only for a test.
    """

    bootstrap: str
    prefix: str = DEFAULT_PREFIX
    group: str = "tickhouse-land"
    group_protocol: Literal["classic", "consumer"] = "classic"
    compression: Literal["lz4", "zstd"] = "lz4"
    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_ca: str = ""
    ssl_certificate: str = ""
    ssl_key: str = ""
    ssl_key_password: str = ""
    insecure_skip_tls_verification: bool = False

    def __repr__(self) -> str:
        """The address; no secret."""
        return f"KafkaOptions({self.url})"

    @property
    def url(self) -> str:
        """The address without secrets."""
        suffix = "" if self.prefix == DEFAULT_PREFIX else f"/{self.prefix}"
        return f"kafka://{self.bootstrap}{suffix}"


def read_kafka_url(url: str) -> tuple[str, str]:
    """Bootstrap servers and topic prefix in `kafka://host:port[,host:port][/prefix]`.

    Raises:
        ConfigError: says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "kafka" or not parts.netloc or "@" in parts.netloc:
        raise ConfigError(
            f"log: {url!r} is no Kafka address; give kafka://host:port[,host:port][/prefix],"
            " user and password in settings of their own (docs/kafka.md)"
        )
    if parse_qsl(parts.query):
        raise ConfigError(f"log: {url!r}: what follows '?' belongs into kafka_* settings")
    for server in parts.netloc.split(","):
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"log: {server!r} is no host:port")
    prefix = parts.path.strip("/") or DEFAULT_PREFIX
    if not prefix.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"log: {prefix!r} is no prefix of topics: letters, digits, - _ .")
    return parts.netloc, prefix
