"""Who we are at AWS: the settings, the environment, a profile's file, or this machine's role."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tickhouse.errors import ConfigError


class Credentials(msgspec.Struct, frozen=True):
    """Keys; without any, the client asks for the role of the container or the machine.

    Attributes:
        access_key_id, secret_access_key, session_token: "" = none.
        region: "" = not told.
    """

    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    region: str = ""

    def __repr__(self) -> str:
        """No secret."""
        return f"Credentials({self.access_key_id[:4]}…)"


def find_credentials(
    access_key_id: str, secret_access_key: str, environment: Mapping[str, str] = os.environ
) -> Credentials:
    """The first of the chain that has keys; the rest of it is the client's.

    Raises:
        ConfigError: a key without its secret, or a profile that cannot be used.
    """
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
    if access_key_id or secret_access_key:
        if not (access_key_id and secret_access_key):
            raise ConfigError("s3_access_key_id and s3_secret_access_key: give both or neither")
        return Credentials(access_key_id, secret_access_key, "", region)
    if environment.get("AWS_ACCESS_KEY_ID"):
        return Credentials(
            environment["AWS_ACCESS_KEY_ID"],
            environment.get("AWS_SECRET_ACCESS_KEY", ""),
            environment.get("AWS_SESSION_TOKEN", ""),
            region,
        )
    if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return Credentials(region=region)
    return _of_profile(environment, region)


def _of_profile(environment: Mapping[str, str], region: str) -> Credentials:
    home = Path(environment.get("HOME", "~")).expanduser()
    files = [
        Path(environment.get("AWS_CONFIG_FILE") or home / ".aws/config"),
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials"),
    ]
    wanted = environment.get("AWS_PROFILE", "")
    profile = _read_profile(files, wanted or "default")
    region = region or profile.get("region", "")
    key, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
    if key and secret:
        return Credentials(key, secret, profile.get("aws_session_token", ""), region)
    if wanted:
        raise ConfigError(
            f"AWS_PROFILE={wanted}: {files[1]} and {files[0]} hold no keys of that profile."
            ' Of SSO or an assumed role, export them: eval "$(aws configure export-credentials'
            ' --format env)"'
        )
    return Credentials(region=region)


def _read_profile(files: list[Path], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            raise ConfigError(f"{path}: cannot be read: {type(error).__name__}") from None
        for section in (name, f"profile {name}"):
            if parser.has_section(section):
                found.update(parser.items(section))
    return found
