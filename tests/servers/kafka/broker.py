"""A real Apache Kafka 4 broker from the jars of Maven Central: KRaft, one node, ready in seconds.

The jars, a formatted folder and a class archive are made once and cached by version. The broker's
data lies in a folder of the caller's; `kill` and `start` bring the same broker back.
"""

import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.servers.cache import UnavailableError, kept, tool
from tests.servers.process import ServerProcess, free_ports

HERE = Path(__file__).parent
VERSION = "4.3.1-1"
CLUSTER = "dGlja2hvdXNlLXRlc3RzMQ"
ARCHIVE = "kafka.jsa"
SMALL = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""JVM for tests."""
FAST = ("-Xmx1g",)
"""JVM for benchmarks."""


class KafkaServer(ServerProcess):
    """A broker. `bootstrap` is what clients connect to."""

    def __init__(self, folder: Path, *, extra: str = "", jvm: Sequence[str] = SMALL) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        cache = kept(f"kafka-{VERSION}", _make)
        archive = kept(f"kafka-{VERSION}-classes", partial(_archive_classes, cache))
        port, controller_port = free_ports(2)
        self.data = folder / "data"
        if not self.data.exists():
            shutil.copytree(cache / "formatted", self.data)
        properties = folder / "server.properties"
        properties.write_text(_properties(port, controller_port, self.data) + extra)
        shared = [f"-XX:SharedArchiveFile={archive / ARCHIVE}"] if jvm == SMALL else []
        command = [*_java(cache, (*jvm, *shared)), "kafka.Kafka", str(properties)]
        super().__init__(command, port=port, log=folder / "kafka.log")
        self.bootstrap = f"127.0.0.1:{port}"


def start_kafka(folder: Path, *, extra: str = "", jvm: Sequence[str] = SMALL) -> KafkaServer:
    """A running broker whose data lie in `folder`; `extra` lines are added to its properties.

    Raises:
        UnavailableError: no Java 17, or the jars cannot be fetched.
    """
    server = KafkaServer(folder, extra=extra, jvm=jvm)
    server.start()
    return server


def _properties(port: int, controller_port: int, data: Path) -> str:
    template = (HERE / "server.properties").read_text()
    return template.format(port=port, controller_port=controller_port, data=data)


def _java(cache: Path, jvm: Sequence[str]) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    java = tool("java", debian="openjdk-17-jre-headless")
    return [java, *jvm, logging, "-cp", f"{cache / 'libs'}/*"]


def _make(folder: Path) -> None:
    """Fetch the jars, format a folder."""
    maven = tool("mvn", debian="maven openjdk-17-jre-headless")
    fetch = [maven, "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*fetch, f"-DoutputDirectory={folder / 'libs'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"Kafka's jars cannot be fetched: {done.stdout[-500:]}")
    _format(folder)


def _format(folder: Path) -> None:
    properties = folder / "format.properties"
    properties.write_text(_properties(*free_ports(2), folder / "formatted"))
    command = [*_java(folder, SMALL), "kafka.tools.StorageTool", "format", "-t", CLUSTER]
    subprocess.run([*command, "-c", str(properties)], check=True, capture_output=True)


def _archive_classes(cache: Path, folder: Path) -> None:
    """One short life of a broker; the classes it loaded start the next ones faster.

    From where the jars are to stay: an archive serves only the class path that it was made with.
    """
    port, controller_port = free_ports(2)
    data = folder / "first"
    shutil.copytree(cache / "formatted", data)
    properties = folder / "first.properties"
    properties.write_text(_properties(port, controller_port, data))
    archive = f"-XX:ArchiveClassesAtExit={folder / ARCHIVE}"
    command = [*_java(cache, (*SMALL, archive)), "kafka.Kafka", str(properties)]
    server = ServerProcess(command, port=port, log=folder / "first.log").start()
    server._end(signal.SIGTERM)
    shutil.rmtree(data)
