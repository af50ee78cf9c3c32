"""How to reach Snowflake: what `snowflake://…` and the settings say, and who we are there."""

import re
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tickhouse.errors import ConfigError

Authenticator = Literal["key_pair", "oauth", "programmatic_access_token", "password"]
PARAMETERS: Final = ("warehouse", "role", "stage", "host", "port", "protocol")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_KEY_PAIR_HINT: Final = (
    "docs/snowflake.md says how to make one and give its public half to Snowflake"
)


class SnowflakeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A database, and who we are there.

    Attributes:
        account: its identifier, `organization-account`.
        database: where the schemas BRONZE, SILVER, GOLD and META are.
        warehouse: what runs the statements; "" = the user's default.
        role: "" = the user's default.
        stage: external stage over the lake, `[schema.]name`; "" = lines are PUT to an internal one.
        host, port, protocol: of a proxy or a stand-in; "", 0 = the account's own address.
        user: login name.
        authenticator: how the user proves who he is.
        private_key_file: PEM of the key pair.
        private_key_passphrase, token, password: secrets; never shown.
        is_password_allowed: a password is taken only where this is set.
    """

    account: str
    database: str
    warehouse: str = ""
    role: str = ""
    stage: str = ""
    host: str = ""
    port: int = 0
    protocol: str = "https"
    user: str = ""
    authenticator: Authenticator = "key_pair"
    private_key_file: str = ""
    private_key_passphrase: str = ""
    token: str = ""
    password: str = ""
    is_password_allowed: bool = False

    def __repr__(self) -> str:
        """The address; no secret."""
        return f"SnowflakeOptions({self.url})"

    @property
    def url(self) -> str:
        """The address without secrets."""
        return f"snowflake://{self.account}/{self.database}"


def read_snowflake_url(url: str) -> SnowflakeOptions:
    """The options in `snowflake://account/database?warehouse=…&role=…[&stage=…][&host=…]`.

    Raises:
        ConfigError: says what is wrong.
    """
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if parts.scheme != "snowflake" or not parts.netloc or not database or "/" in database:
        raise ConfigError(
            f"warehouse: {url!r} is no address of Snowflake; give"
            " snowflake://<account>/<database>?warehouse=…&role=…"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "warehouse: a user belongs into snowflake_user, a secret into a file or the"
            " environment, never into the address (docs/snowflake.md)"
        )
    given = dict(parse_qsl(parts.query))
    if unknown := sorted(given.keys() - set(PARAMETERS)):
        known = ", ".join(PARAMETERS)
        raise ConfigError(f"warehouse: {unknown[0]!r} is no parameter of it. Known: {known}")
    if not given.get("port", "0").isdigit():
        raise ConfigError(f"warehouse: port={given['port']} is no number")
    options = SnowflakeOptions(
        account=parts.netloc,
        database=database,
        warehouse=given.get("warehouse", ""),
        role=given.get("role", ""),
        stage=given.get("stage", ""),
        host=given.get("host", ""),
        port=int(given.get("port", "0")),
        protocol=given.get("protocol", "https"),
    )
    _check_names(options)
    return options


def _check_names(options: SnowflakeOptions) -> None:
    """Names go into statements, unquoted."""
    names = {
        "database": [options.database],
        "warehouse": [options.warehouse] if options.warehouse else [],
        "role": [options.role] if options.role else [],
        "stage": options.stage.split(".") if options.stage else [],
    }
    for name, parts in names.items():
        if not all(_NAME.fullmatch(part) for part in parts):
            raise ConfigError(
                f"warehouse: {name} {'.'.join(parts)!r} is no plain name: letters, digits, _ and $"
            )


def credentials(options: SnowflakeOptions) -> dict[str, Any]:
    """What `snowflake.connector.connect` needs to log in.

    Raises:
        ConfigError: something is missing, or the key cannot be read; never holds a secret.
    """
    if not options.user:
        raise ConfigError("snowflake_user is not set: the login name of the loader")
    if options.authenticator == "key_pair":
        return {"authenticator": "SNOWFLAKE_JWT", "private_key": _private_key(options)}
    if options.authenticator == "password":
        if not options.is_password_allowed:
            raise ConfigError(
                "snowflake_authenticator=password sends a password: use a key pair, or set"
                " snowflake_allow_password if this account can do nothing better"
            )
        return {"password": _required(options.password, "snowflake_password")}
    token = _required(options.token, "snowflake_token (or snowflake_token_file)")
    return {"authenticator": options.authenticator.upper(), "token": token}


def _required(secret: str, setting: str) -> str:
    if not secret:
        raise ConfigError(f"{setting} is not set; snowflake_authenticator asks for it")
    return secret


def _private_key(options: SnowflakeOptions) -> bytes:
    """The key in the form that the connector takes."""
    from cryptography.hazmat.primitives import serialization

    if not options.private_key_file:
        raise ConfigError(f"snowflake_private_key_file is not set; {_KEY_PAIR_HINT}")
    try:
        pem = Path(options.private_key_file).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"snowflake_private_key_file: {error}; {_KEY_PAIR_HINT}") from error
    try:
        passphrase = options.private_key_passphrase.encode() or None
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as error:
        raise ConfigError(_why_unreadable(options)) from error
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _why_unreadable(options: SnowflakeOptions) -> str:
    path = options.private_key_file
    if options.private_key_passphrase:
        return (
            f"{path}: the private key cannot be read with this snowflake_private_key_passphrase:"
            " it is wrong, or the file is no PEM private key, or the key has no passphrase"
        )
    return (
        f"{path}: the private key cannot be read: set snowflake_private_key_passphrase (or"
        " snowflake_private_key_passphrase_file) if it has one; else the file is no PEM private key"
    )
