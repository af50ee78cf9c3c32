"""obstore's client for a bucket: time-outs, trust and credentials as the options say."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store as Client

from tickhouse.bronze.s3_credentials import find_credentials
from tickhouse.bronze.s3_options import S3Options
from tickhouse.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

CONNECT_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 30.0
RETRY_S: Final = 15.0
"""A request is not begun again after this time."""
DEFAULT_REGION: Final = "us-east-1"
_RETRY: Final["RetryConfig"] = {
    "retry_timeout": timedelta(seconds=RETRY_S),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
}


def make_client(options: S3Options, *, retries: int) -> Client:
    """A client of the bucket.

    Args:
        options: the bucket, and who we are there.
        retries: how often a request is repeated inside.

    Raises:
        ConfigError: the options cannot be used.
    """
    credentials = find_credentials(options.access_key_id, options.secret_access_key)
    config: S3Config = {
        "region": options.region or credentials.region or DEFAULT_REGION,
        "virtual_hosted_style_request": not options.is_path_style,
        "conditional_put": "etag",
    }
    if options.endpoint:
        config["endpoint"] = _endpoint(options)
    if credentials.access_key_id:
        config["access_key_id"] = credentials.access_key_id
        config["secret_access_key"] = credentials.secret_access_key
    if credentials.session_token:
        config["session_token"] = credentials.session_token
    try:
        return Client(
            options.bucket,
            config=config,
            client_options=_client_options(options),
            retry_config={"max_retries": retries, **_RETRY},
        )
    except (BaseError, ValueError) as error:
        reason = str(error).splitlines()[0]
        what = "s3_ca_bundle" if "root_certificate" in reason else options.url
        raise ConfigError(f"{what}: {reason}") from None


def _endpoint(options: S3Options) -> str:
    """The endpoint as the client wants it: with the bucket in front where hosts name buckets."""
    if options.is_path_style:
        return options.endpoint
    scheme, _, host = options.endpoint.partition("://")
    return f"{scheme}://{options.bucket}.{host}"


def _client_options(options: S3Options) -> "ClientConfig":
    given: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "allow_http": urlsplit(options.endpoint).scheme == "http",
        "allow_invalid_certificates": options.insecure_skip_tls_verification,
    }
    if options.ca_bundle:
        try:
            given["root_certificate"] = Path(options.ca_bundle).read_bytes()
        except OSError as error:
            raise ConfigError(f"s3_ca_bundle: {error}") from error
    return given
