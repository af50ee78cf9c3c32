"""How to reach a lake in an S3 bucket: what `s3://…` and the settings say."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tickhouse.errors import ConfigError

PARAMETERS: Final = ("endpoint", "region", "path_style")


class S3Options(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, and who we are there.

    Attributes:
        bucket: its name.
        prefix: folder of the lake in it, without slashes at its ends; "" = the bucket itself.
        endpoint: address of the service; "" = AWS.
        region: "" = told by the environment, else us-east-1.
        is_path_style: the bucket is in the path, not in the host's name.
        access_key_id, secret_access_key: "" = the AWS chain (environment, profile, instance role).
        ca_bundle: PEM file of authorities to trust instead of the system's; "" = the system's.
        insecure_skip_tls_verification: take any certificate. Only for a test.
        is_single_writer: only one lander will ever run: conditional writes are not needed.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    is_path_style: bool = True
    access_key_id: str = ""
    secret_access_key: str = ""
    ca_bundle: str = ""
    insecure_skip_tls_verification: bool = False
    is_single_writer: bool = False

    def __repr__(self) -> str:
        """The address; no secret."""
        return f"S3Options({self.url})"

    @property
    def url(self) -> str:
        """The address without secrets."""
        query = f"?endpoint={self.endpoint}" if self.endpoint else ""
        return "s3://" + f"{self.bucket}/{self.prefix}".rstrip("/") + query


def read_s3_url(url: str) -> S3Options:
    """The options in `s3://bucket[/prefix][?endpoint=http://…&region=…&path_style=true|false]`.

    Buckets at an endpoint of their own are addressed in the path unless told otherwise, those of
    AWS in the host's name.

    Raises:
        ConfigError: says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
        raise ConfigError(
            f"lake: {url!r} is no bucket; give s3://bucket[/prefix][?endpoint=…&region=…],"
            " credentials in the environment (docs/s3.md)"
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(given) - set(PARAMETERS)):
        raise ConfigError(f"lake: unknown parameter {unknown[0]!r}; known: {', '.join(PARAMETERS)}")
    endpoint = given.get("endpoint", "").rstrip("/")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise ConfigError(f"lake: endpoint {endpoint!r} is no http:// or https:// address")
    path_style = given.get("path_style", "true" if endpoint else "false")
    if path_style not in ("true", "false"):
        raise ConfigError(f"lake: path_style is true or false, not {path_style!r}")
    return S3Options(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=endpoint,
        region=given.get("region", ""),
        is_path_style=path_style == "true",
    )
