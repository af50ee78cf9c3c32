"""What the S3 store promises beyond the contract: lost answers, refusals, few requests."""

import datetime as dt
import ipaddress
import json
import random
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.s3 import S3Server
from tests.servers.s3.proxy import Fault, FaultProxy
from tests.support.buckets import bucket_options, open_bucket
from tickhouse.bronze.s3 import S3Store
from tickhouse.bronze.s3_credentials import find_credentials
from tickhouse.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)

FOLDER = "bronze/v1/trades/tickhouse.trades.v1~e1/p=00000"
KEY = f"{FOLDER}/00000000000000000000.jsonl.gz"


@pytest.fixture(params=["seaweedfs", "minio"])
def server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(server: S3Server, bucket_name: str) -> str:
    return server.make_bucket(bucket_name)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint, hang_s=0.2) as proxy:
        yield proxy


@pytest.fixture
def store(server: S3Server, bucket: str, proxy: FaultProxy) -> S3Store:
    store = S3Store(bucket_options(server, bucket, endpoint=proxy.endpoint, prefix="lake"))
    assert store.is_conditional()
    proxy.requests.clear()
    return store


# -- puts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault.BUSY, Fault.THROTTLED, Fault.CONFLICT, Fault.RESET, Fault.HANG]
)
def test_a_put_that_failed_before_it_was_applied_is_for_the_caller_to_repeat(
    store: S3Store, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault, method="PUT")

    with pytest.raises(TransientError, match="lake"):
        store.put_if_absent(KEY, b"body", {})
    assert proxy.requests["PUT"] == 1

    store.put_if_absent(KEY, b"body", {})
    assert store.get(KEY) == b"body"


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault.ERROR_AFTER_APPLY, Fault.RESET_AFTER_APPLY),
        *(Fault.HANG_AFTER_APPLY, Fault.CUT_ANSWER),
    ],
)
def test_a_put_whose_answer_was_lost_is_found_by_repeating_it(
    store: S3Store, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault, method="PUT")

    with pytest.raises(TransientError):
        store.put_if_absent(KEY, b"body", {})
    assert proxy.requests["PUT"] == 1

    with pytest.raises(ObjectExistsError):
        store.put_if_absent(KEY, b"body", {})
    assert store.get(KEY) == b"body"


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault.DENIED, "lacks the permission"),
        (Fault.FULL, "make room"),
        (Fault.HTML, "Check the endpoint"),
    ],
)
def test_a_refusal_says_what_to_do(
    store: S3Store, proxy: FaultProxy, fault: Fault, advice: str
) -> None:
    proxy.inject(fault, method="PUT")

    with pytest.raises(RefusedError, match=advice):
        store.put_if_absent(KEY, b"body", {})


def test_an_object_is_one_put_with_its_metadata(
    store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str
) -> None:
    body = bytes(range(256)) * 40_000

    store.put_if_absent(KEY, body, {"sha256": "ab" * 32})

    assert proxy.requests == {"PUT": 1}
    found = server.client().head_object(Bucket=bucket, Key=f"lake/{KEY}")
    assert found["Metadata"] == {"sha256": "ab" * 32}
    assert found["ContentLength"] == len(body)


@pytest.mark.parametrize(
    ("keys", "is_at_once"), [pytest.param(50, False, marks=pytest.mark.long), (3, True)]
)
def test_of_sixteen_writers_exactly_one_wins_each_key(
    server: S3Server, bucket: str, keys: int, *, is_at_once: bool
) -> None:
    """SeaweedFS lets writers of one key at one instant wait for each other in steps of 1 s."""
    barrier = threading.Barrier(16)

    def write(writer: int) -> list[int]:
        store = S3Store(bucket_options(server, bucket))
        won: list[int] = []
        order = list(range(keys))
        random.Random(writer).shuffle(order)
        barrier.wait(30)
        for number in range(keys) if is_at_once else order:
            if is_at_once:
                barrier.wait(60)
            if wins(store, number, writer):
                won.append(number)
        return won

    with ThreadPoolExecutor(16) as pool:
        winners = list(pool.map(write, range(16)))

    assert sorted(number for won in winners for number in won) == list(range(keys))


def wins(store: S3Store, number: int, writer: int) -> bool:
    """Put a key until the store has decided; a lost answer shows in what is there."""
    for _ in range(20):
        try:
            store.put_if_absent(f"race/{number:02}", b"%d" % writer, {})
        except TransientError:
            continue
        except ObjectExistsError:
            return store.get(f"race/{number:02}") == b"%d" % writer
        return True
    raise AssertionError("the store stays undecided")


# -- reads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.RESET, Fault.HANG, Fault.CUT_ANSWER])
def test_a_read_is_repeated_inside(store: S3Store, proxy: FaultProxy, fault: Fault) -> None:
    store.put_if_absent(KEY, b"body", {})
    proxy.inject(fault, method="GET")

    assert store.get(KEY) == b"body"
    assert proxy.faults == {fault.value: 1}


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.RESET])
def test_a_service_that_stays_away_is_a_transient_error(
    store: S3Store, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault, 20, method="GET")

    for read in (store.get, lambda key: list(store.list_objects(key)), store.last, store.folders):
        with pytest.raises(TransientError):
            read("bronze")


def test_a_slow_answer_is_waited_for(store: S3Store, proxy: FaultProxy) -> None:
    store.put_if_absent(KEY, b"body" * 1000, {})
    proxy.inject(Fault.SLOW, method="GET")

    assert store.get(KEY) == b"body" * 1000


def test_a_web_page_is_neither_an_object_nor_an_empty_lake(
    store: S3Store, proxy: FaultProxy
) -> None:
    store.put_if_absent(KEY, b"body", {})
    proxy.inject(Fault.HTML, 20, method="GET")

    for read in (
        lambda: store.get(KEY),
        lambda: store.get_head(KEY, 10),
        lambda: list(store.list_objects("bronze")),
        lambda: store.last(FOLDER),
        lambda: store.folders("bronze"),
    ):
        with pytest.raises(RefusedError, match="Check the endpoint"):
            read()


def test_nobody_at_the_address_is_a_transient_error(store: S3Store, proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(TransientError, match="no answer"):
        store.put_if_absent(KEY, b"body", {})
    proxy.listen()

    store.put_if_absent(KEY, b"body", {})


def test_the_head_of_an_object_is_all_that_is_fetched(store: S3Store, proxy: FaultProxy) -> None:
    store.put_if_absent(KEY, bytes(10_000_000), {})
    before = proxy.bytes_sent

    assert store.get_head(KEY, 4096) == bytes(4096)
    assert proxy.bytes_sent - before < 8192


# -- listings --------------------------------------------------------------------------------


@pytest.fixture
def long_chain(server: S3Server, bucket: str) -> list[str]:
    """5,000 objects, further apart towards the end, and what opens the chain."""
    store = S3Store(bucket_options(server, bucket, prefix="lake"))
    keys = [f"{FOLDER}/{n * n:020}.jsonl.gz" for n in range(5_000)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda key: store.put_if_absent(key, b"", {}), keys):
            pass
    store.put_if_absent(f"{FOLDER}/GENESIS", b"{}", {})
    return keys


def test_the_last_of_5000_objects_is_found_by_few_requests(
    store: S3Store, proxy: FaultProxy, long_chain: list[str]
) -> None:
    assert store.last(FOLDER) == long_chain[-1]
    assert proxy.requests["GET"] <= 8

    before = proxy.requests["GET"]
    assert store.last(FOLDER) == long_chain[-1]
    assert proxy.requests["GET"] == before + 1

    following = f"{FOLDER}/{10**9:020}.jsonl.gz"
    store.put_if_absent(following, b"", {})
    assert store.last(FOLDER) == following
    assert proxy.requests["GET"] == before + 2

    listed = store.list_objects(FOLDER)
    assert next(listed).key == long_chain[0]
    assert proxy.requests["GET"] == before + 3
    assert [found.key for found in listed] == [*long_chain[1:], following, f"{FOLDER}/GENESIS"]
    assert proxy.requests["GET"] == before + 8


def test_a_last_object_that_was_removed_is_not_remembered(
    store: S3Store, server: S3Server, bucket: str
) -> None:
    second = f"{FOLDER}/00000000000000000100.jsonl.gz"
    store.put_if_absent(KEY, b"", {})
    store.put_if_absent(second, b"", {})
    assert store.last(FOLDER) == second

    server.client().delete_object(Bucket=bucket, Key=f"lake/{second}")

    assert store.last(FOLDER) == KEY


def test_what_others_put_beside_the_chain_is_listed_and_left_alone(
    store: S3Store, server: S3Server, bucket: str
) -> None:
    store.put_if_absent(KEY, b"ours", {})
    foreign = [f"{FOLDER}/by hand.txt", f"{FOLDER}/0.txt/below"]
    for key in foreign:
        server.client().put_object(Bucket=bucket, Key=f"lake/{key}", Body=b"theirs")
    server.client().put_object(Bucket=bucket, Key=f"lake/{FOLDER}/", Body=b"")
    server.client().put_object(Bucket=bucket, Key=f"elsewhere/{FOLDER}/1", Body=b"")

    assert {found.key for found in store.list_objects("bronze")} >= {KEY, *foreign}
    assert store.last(FOLDER) == KEY
    assert store.folders("bronze/v1") == ["trades"]


# -- who we are, and where -------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_the_secret_is_not_told(server: S3Server, bucket: str) -> None:
    secret = "not-the-secret-of-this-key"  # noqa: S105 - of nobody
    for changes in ({"access_key_id": "nobody"}, {"secret_access_key": secret}):
        store = S3Store(bucket_options(server, bucket, **changes))
        for call in (lambda s: s.put_if_absent(KEY, b"", {}), lambda s: s.last(FOLDER)):
            with pytest.raises(RefusedError, match="key") as refused:
                call(store)
            assert secret not in str(refused.value)


def test_a_missing_bucket_is_named(minio: S3Server, bucket_name: str) -> None:
    store = S3Store(bucket_options(minio, bucket_name))

    for call in (
        lambda: store.put_if_absent(KEY, b"", {}),
        lambda: store.get(KEY),
        lambda: store.last(FOLDER),
        lambda: store.folders("bronze"),
    ):
        with pytest.raises(RefusedError, match="no such bucket: `tickhouse init` makes it"):
            call()


def test_a_store_that_ignores_conditions_takes_one_lander_only(
    moto: S3Server,
    bucket_name: str,
) -> None:
    open_bucket(moto, bucket_name)
    with FaultProxy(moto.endpoint) as proxy:
        options = bucket_options(moto, bucket_name, endpoint=proxy.endpoint)
        proxy.strips_conditions = True
        with pytest.raises(RefusedError, match="land_single_writer"):
            S3Store(options).put_if_absent(KEY, b"1", {})

        alone = S3Store(msgspec.structs.replace(options, is_single_writer=True))
        assert not alone.is_conditional()
        alone.put_if_absent(KEY, b"1", {})
        with pytest.raises(ObjectExistsError):
            alone.put_if_absent(KEY, b"2", {})
        assert alone.get(KEY) == b"1"


@pytest.fixture
def reader(server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store of somebody who may read and list only."""
    policy = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"]}
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    identity = server.identity([{**policy, "Resource": resources}])
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    return S3Store(bucket_options(server, bucket, access_key_id="", secret_access_key=""))


def test_a_read_only_key_reads_and_is_refused_to_write(
    reader: S3Store, server: S3Server, bucket: str
) -> None:
    server.client().put_object(Bucket=bucket, Key=KEY, Body=b"body")

    assert reader.get(KEY) == b"body"
    assert reader.last(FOLDER) == KEY
    with pytest.raises(RefusedError, match="lacks the permission"):
        reader.put_if_absent(f"{KEY}2", b"", {})


def test_an_https_endpoint_is_believed_only_with_its_authority(
    server: S3Server, bucket: str, tmp_path: Path
) -> None:
    context, authority = make_certificate(tmp_path)
    with FaultProxy(server.endpoint, tls=context) as proxy:
        options = {"endpoint": proxy.endpoint}
        with pytest.raises(RefusedError, match="s3_ca_bundle"):
            S3Store(bucket_options(server, bucket, **options)).put_if_absent(KEY, b"1", {})

        trusting = S3Store(bucket_options(server, bucket, ca_bundle=str(authority), **options))
        trusting.put_if_absent(KEY, b"1", {})
        careless = bucket_options(server, bucket, insecure_skip_tls_verification=True, **options)
        assert S3Store(careless).get(KEY) == b"1"


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the file of who vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tickhouse test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    authority = folder / "authority.pem"
    authority.write_bytes(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context, authority


def test_tls_at_a_plain_endpoint_is_told(server: S3Server, bucket: str) -> None:
    endpoint = server.endpoint.replace("http://", "https://")

    with pytest.raises(RefusedError, match="speaks no TLS"):
        S3Store(bucket_options(server, bucket, endpoint=endpoint)).last(FOLDER)


def test_an_unreadable_ca_bundle_is_a_configuration_error(
    seaweedfs: S3Server,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")

    for bundle in (tmp_path / "missing.pem", broken):
        with pytest.raises(ConfigError, match="s3_ca_bundle"):
            S3Store(bucket_options(seaweedfs, "bucket", ca_bundle=str(bundle)))


def test_keys_of_a_lake_only(store: S3Store) -> None:
    for key in ("", "/a", "a/", "a//b", "../a", "a b", ".tmp/x"):
        with pytest.raises(ConfigError):
            store.put_if_absent(key, b"", {})
        with pytest.raises(ConfigError):
            store.get(key)


# -- credentials -----------------------------------------------------------------------------


def test_settings_come_before_the_environment_and_that_before_a_profile(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = of-default\naws_secret_access_key = s\n"
        "[team]\naws_access_key_id = of-team\naws_secret_access_key = s\naws_session_token = t\n"
    )
    (tmp_path / ".aws/config").write_text("[profile team]\nregion = eu-central-1\n")
    home = {"HOME": str(tmp_path)}
    environment = {**home, "AWS_ACCESS_KEY_ID": "of-env", "AWS_SECRET_ACCESS_KEY": "s"}

    assert find_credentials("given", "secret", environment).access_key_id == "given"
    assert find_credentials("", "", environment).access_key_id == "of-env"
    assert find_credentials("", "", home).access_key_id == "of-default"
    team = find_credentials("", "", {**home, "AWS_PROFILE": "team"})
    assert (team.access_key_id, team.session_token) == ("of-team", "t")
    assert team.region == "eu-central-1"
    assert "of-team" not in repr(team)


def test_credentials_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both or neither"):
        find_credentials("key", "", {})
    with pytest.raises(ConfigError, match="export-credentials"):
        find_credentials("", "", {"HOME": str(tmp_path), "AWS_PROFILE": "sso"})

    assert not find_credentials("", "", {"HOME": str(tmp_path)}).access_key_id


def test_a_missing_object_below_an_object_is_missing(store: S3Store) -> None:
    store.put_if_absent(KEY, b"1", {})

    with pytest.raises(ObjectMissingError):
        store.get(f"{KEY}/below")


class Machine(BaseHTTPRequestHandler):
    """The metadata service of a machine with a role, as EC2 has it (IMDSv2)."""

    keys: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        self.answer("token")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "token"
        folder = "/latest/meta-data/iam/security-credentials/"
        self.answer("a-role" if self.path == folder else json.dumps(self.credentials()))

    def credentials(self) -> dict[str, str]:
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": "2099-01-01T00:00:00Z",
            "AccessKeyId": self.keys["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": self.keys["AWS_SECRET_ACCESS_KEY"],
            "Token": self.keys["AWS_SESSION_TOKEN"],
        }

    def answer(self, text: str) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_machine_with_a_role_needs_no_keys(
    minio: S3Server,
    bucket_name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    minio.make_bucket(bucket_name)
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}
    Machine.keys = minio.identity([everything])
    metadata = ThreadingHTTPServer(("127.0.0.1", 0), Machine)
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{metadata.server_port}")
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        options = bucket_options(minio, bucket_name, access_key_id="", secret_access_key="")
        store = S3Store(options)
        store.put_if_absent(KEY, b"by role", {})
        assert store.get(KEY) == b"by role"
    finally:
        metadata.shutdown()
        metadata.server_close()
    assert any(path.endswith("/a-role") for path in Machine.asked)
