"""Settings: one frozen object from flags > `TICKHOUSE_*` > `tickhouse.toml` > defaults.

URLs pick the backends. Read at the edge, passed down as values.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

SETTINGS_FILE = "tickhouse.toml"


class Settings(BaseSettings):
    """Everything that can be set; each field is documented in `docs/settings.md`."""

    model_config = SettingsConfigDict(
        env_prefix="TICKHOUSE_",
        toml_file=SETTINGS_FILE,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    data: Path = Path("data")
    """Folder of the embedded backends, published gold and run files."""

    source: str = "sim://sp500"
    """Feed: `sim://…`, `replay:…`, `finnhub://…`, `finnhub+rest://…` or `binance://…`."""

    finnhub_token: SecretStr = SecretStr("")
    """Finnhub API key; by environment only, never as a flag (or use `finnhub_token_file`)."""

    finnhub_token_file: Path | None = None
    """File that holds the Finnhub API key."""

    finnhub_plan: Literal["free", "premium"] = "free"
    """Plan of the key: "premium" may fetch ticks, and so fills gaps."""

    finnhub_symbols_max: int = Field(default=50, ge=0)
    """Symbols the plan allows on the socket; the others are polled."""

    finnhub_calls_per_minute: int = Field(default=60, ge=1, le=1800)
    """REST calls a minute the plan allows (30 a second is the hard limit of every plan)."""

    finnhub_ws_url: str = "wss://ws.finnhub.io"
    """Finnhub's WebSocket; or a proxy's."""

    finnhub_rest_url: str = "https://finnhub.io/api/v1"
    """Finnhub's REST base; or a proxy's."""

    finnhub_silence_s: float = Field(default=150.0, gt=0)
    """A connection without any message for so long, while something trades, is dead."""

    binance_ws_url: str = "wss://stream.binance.com:9443"
    """Binance's WebSocket base."""

    binance_rest_url: str = "https://api.binance.com"
    """Binance's REST base: where gaps are filled from."""

    log: str = ""
    """Log: `sqlite:///<path>` or `kafka://host:port[,…][/prefix]`; default `<data>/log/log.db`."""

    spool: str = ""
    """Where `record` makes frames durable before Kafka takes them: `sqlite:///<path>`; default
    `<data>/log/log.db`. Without Kafka the log itself."""

    spool_bytes: int = Field(default=32 << 30, ge=1 << 20)
    """A spool that Kafka does not empty grows to this size; then the rules of a full disk apply."""

    lake: str = ""
    """Lake: `file:///<folder>` or `s3://bucket[/prefix][?endpoint=…&region=…]`; default
    `<data>/lake`."""

    warehouse: str = ""
    """Warehouse: `duckdb:///<path>` or `snowflake://account/database?warehouse=…&role=…`; default
    `<data>/warehouse/warehouse.duckdb`."""

    kafka_group: str = "tickhouse-land"
    """Consumer group of the landers; its committed offsets are only a hint and a lag metric."""

    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    """"consumer" is KIP-848 (Kafka 4)."""

    kafka_compression: Literal["lz4", "zstd"] = "lz4"
    """Of what the relay sends: zstd takes less room and more time."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As Kafka names it; managed clusters mostly want SASL_SSL."""

    kafka_sasl_mechanism: str = ""
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`."""

    kafka_sasl_username: str = ""
    """SASL user, or the API key."""

    kafka_sasl_password: SecretStr = SecretStr("")
    """SASL password or API secret; by environment only, never as a flag."""

    kafka_sasl_password_file: Path | None = None
    """File that holds the SASL password."""

    kafka_ssl_ca: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""

    kafka_ssl_certificate: Path | None = None
    """PEM file of our certificate (mutual TLS)."""

    kafka_ssl_key: Path | None = None
    """PEM file of its key."""

    kafka_ssl_key_password: SecretStr = SecretStr("")
    """Password of the key; by environment only."""

    kafka_insecure_skip_tls_verification: bool = False
    """Take any certificate: only for a test."""

    s3_access_key_id: str = ""
    """S3 key; without it the AWS chain is asked (environment, profile, instance role)."""

    s3_secret_access_key: SecretStr = SecretStr("")
    """S3 secret; by environment only, never as a flag."""

    s3_ca_bundle: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""

    s3_insecure_skip_tls_verification: bool = False
    """Take any certificate: only for a test."""

    snowflake_user: str = ""
    """Login name at Snowflake."""

    snowflake_authenticator: Literal[
        "key_pair", "oauth", "programmatic_access_token", "password"
    ] = "key_pair"
    """How the user proves who he is."""

    snowflake_private_key_file: Path | None = None
    """PEM file of the private key whose public half Snowflake knows."""

    snowflake_private_key_passphrase: SecretStr = SecretStr("")
    """Passphrase of the private key; by environment only, never as a flag."""

    snowflake_private_key_passphrase_file: Path | None = None
    """File that holds the passphrase."""

    snowflake_token: SecretStr = SecretStr("")
    """OAuth access token, or programmatic access token; by environment only, never as a flag."""

    snowflake_token_file: Path | None = None
    """File that holds the token; read anew at each start."""

    snowflake_password: SecretStr = SecretStr("")
    """Password; by environment only, and only with `snowflake_allow_password`."""

    snowflake_allow_password: bool = False
    """Take a password: only where the account can do nothing better."""

    land_single_writer: bool = False
    """Only one lander will ever run: lets it land in a store without conditional writes."""

    port: int = Field(default=8787, ge=0, le=65535)
    """Port of the dashboard on 127.0.0.1; 0 chooses a free one."""

    record_commit_ms: int = Field(default=10, ge=1, le=10_000)
    """Group commit: a received frame waits at most this long for its commit."""

    record_commit_bytes: int = Field(default=4 << 20, ge=1024)
    """Group commit: a batch of this size is committed at once."""

    record_buffer_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Frames received and not yet committed; above this the feed has to wait."""

    record_free_bytes: int = Field(default=512 << 20, ge=0)
    """Disk nearly full: below so much free space polling pauses and sockets are shed, as gaps."""

    log_retention_hours: float = Field(default=24.0, gt=0)
    """Log batches older than this are removed once the lake holds them."""

    log_retention_bytes: int = Field(default=4 << 30, ge=1 << 20)
    """The log is trimmed to this size, only behind what the lake holds."""

    land_bytes: int = Field(default=16 << 20, ge=1)
    """An object is closed when its lines reach this size (before compression)."""

    land_age_s: float = Field(default=1.0, gt=0)
    """An object is closed when its first record has waited this long."""

    land_memory_bytes: int = Field(default=128 << 20, ge=1 << 20)
    """Lines held in memory over all partitions; above this the largest object is closed."""

    load_bytes: int = Field(default=64 << 20, ge=1)
    """Objects loaded in one transaction, by compressed size."""

    load_objects: int = Field(default=500, ge=1, le=1000)
    """Objects loaded in one transaction, by number."""

    build_interval_s: float = Field(default=0.5, ge=0)
    """Pause between two cycles of load and build."""

    lag_s_max: float = Field(default=60.0, gt=0)
    """Audit fails when something in flight is older than this while the stages run."""

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def log_url(self) -> str:
        """Log URL with the default filled in."""
        return self.log or f"sqlite:///{self.data}/log/log.db"

    @property
    def spool_url(self) -> str:
        """Spool URL with the default filled in; the log itself where that is a file."""
        default = self.log if self.log and not self.is_log_kafka else ""
        return self.spool or default or f"sqlite:///{self.data}/log/log.db"

    @property
    def is_log_kafka(self) -> bool:
        """Whether frames are relayed from a spool to Kafka."""
        return self.log.startswith("kafka:")

    @property
    def lake_url(self) -> str:
        """Lake URL with the default filled in."""
        return self.lake or f"file:///{self.data}/lake"

    @property
    def warehouse_url(self) -> str:
        """Warehouse URL with the default filled in."""
        return self.warehouse or f"duckdb:///{self.data}/warehouse/warehouse.duckdb"

    @property
    def is_warehouse_snowflake(self) -> bool:
        """Whether the warehouse is no file of this machine: nobody owns it."""
        return self.warehouse.startswith("snowflake:")

    @property
    def run_folder(self) -> Path:
        """Folder of locks, status files and the refine process's address."""
        return self.data / "run"

    @property
    def gold_folder(self) -> Path:
        """Folder of published gold."""
        return self.data / "gold"

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
