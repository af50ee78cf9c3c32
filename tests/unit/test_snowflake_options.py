"""Addresses of Snowflake and who we are there: read, or refused with what to do."""

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tickhouse.errors import ConfigError
from tickhouse.runtime.backends import snowflake_options
from tickhouse.settings import Settings
from tickhouse.warehouse.snowflake_options import (
    SnowflakeOptions,
    credentials,
    read_snowflake_url,
)

URL = "snowflake://org-acc/MARKET?warehouse=WH&role=LOADER"
PASSPHRASE = "open sesame"  # noqa: S105


def test_an_address_names_account_database_and_what_runs_the_statements() -> None:
    options = read_snowflake_url(f"{URL}&stage=lake.objects&host=h&port=8080&protocol=http")

    assert (options.account, options.database, options.warehouse, options.role) == (
        *("org-acc", "MARKET"),
        *("WH", "LOADER"),
    )
    assert (options.stage, options.host, options.port, options.protocol) == (
        *("lake.objects", "h"),
        *(8080, "http"),
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("snowflake://org-acc", "give snowflake://<account>/<database>"),
        ("snowflake:///MARKET", "give snowflake://<account>/<database>"),
        ("snowflake://org-acc/MARKET/GOLD", "give snowflake://<account>/<database>"),
        ("snowflake://me:secret@org-acc/MARKET", "snowflake_user"),
        (f"{URL}&password=x", "'password' is no parameter"),
        (f"{URL}&host=h&port=x", "port=x"),
        ("snowflake://a/b-c", "no plain name"),
        ("snowflake://a/b?role=x;drop", "no plain name"),
        ("snowflake://a/b?stage=x'y", "no plain name"),
    ],
)
def test_a_wrong_address_is_refused_with_what_is_wrong(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read_snowflake_url(url)

    assert ":secret@" not in str(caught.value)


def named(**more: object) -> SnowflakeOptions:
    return msgspec.structs.replace(read_snowflake_url(URL), user="LOADER", **more)


def key_file(folder: Path, passphrase: str = "") -> str:
    key = rsa.generate_private_key(65537, 2048)
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    path = folder / "key.p8"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return str(path)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_a_private_key_is_read_with_its_passphrase(tmp_path: Path, passphrase: str) -> None:
    options = named(
        private_key_file=key_file(tmp_path, passphrase), private_key_passphrase=passphrase
    )

    found = credentials(options)

    assert found["authenticator"] == "SNOWFLAKE_JWT"
    assert isinstance(serialization.load_der_private_key(found["private_key"], None), object)


@pytest.mark.parametrize(
    ("on_file", "given", "reason"),
    [
        (PASSPHRASE, "another", "with this snowflake_private_key_passphrase"),
        (PASSPHRASE, "", "set snowflake_private_key_passphrase"),
        ("", PASSPHRASE, "the key has no passphrase"),
    ],
)
def test_a_wrong_passphrase_is_told_and_never_shown(
    tmp_path: Path, on_file: str, given: str, reason: str
) -> None:
    options = named(private_key_file=key_file(tmp_path, on_file), private_key_passphrase=given)

    with pytest.raises(ConfigError, match=reason) as caught:
        credentials(options)

    assert not given or given not in str(caught.value)
    assert not given or given not in repr(options)


def test_what_is_no_private_key_or_not_there_is_told(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no key")

    with pytest.raises(ConfigError, match="no PEM private key"):
        credentials(named(private_key_file=str(rubbish)))
    with pytest.raises(ConfigError, match="No such file"):
        credentials(named(private_key_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="snowflake_private_key_file is not set"):
        credentials(named())
    with pytest.raises(ConfigError, match="snowflake_user is not set"):
        credentials(read_snowflake_url(URL))


def test_a_password_is_taken_only_with_its_switch() -> None:
    options = named(authenticator="password", password="x")  # noqa: S106

    with pytest.raises(ConfigError, match="snowflake_allow_password"):
        credentials(options)
    allowed = msgspec.structs.replace(options, is_password_allowed=True)
    assert credentials(allowed) == {"password": "x"}


@pytest.mark.parametrize("way", ["oauth", "programmatic_access_token"])
def test_a_token_comes_from_the_environment_or_a_file(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    settings = {"warehouse": URL, "snowflake_user": "U", "snowflake_authenticator": way}

    from_file = snowflake_options(Settings(**settings, snowflake_token_file=file))
    monkeypatch.setenv("TICKHOUSE_SNOWFLAKE_TOKEN", "from-environment")
    from_environment = snowflake_options(Settings(**settings, snowflake_token_file=file))

    expected = {"authenticator": way.upper(), "token": "from-file"}
    assert credentials(from_file) == expected
    assert credentials(from_environment)["token"] == "from-environment"  # noqa: S105
    with pytest.raises(ConfigError, match="snowflake_token"):
        credentials(named(authenticator=way))
