"""Questions about a consumer group, each asked by a process of its own.

The client aborts its process (an assertion, librdkafka issue 4605) where a broker dies while the
group's coordinator is asked. The product asks no coordinator in this way.
"""

import subprocess
import sys
from typing import Final

from confluent_kafka.admin import AdminClient

ANSWER_S: Final = 15.0


def ask(bootstrap: str, group: str, what: str) -> str:
    """Ask for "members" (how many), or "delete" the group and every offset it committed.

    Raises:
        TimeoutError: no answer, or none that says so.
    """
    command = [sys.executable, "-m", __spec__.name, bootstrap, group, what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except subprocess.SubprocessError as error:
        raise TimeoutError(f"{what} of {group}: {error}") from None
    return done.stdout.strip()


def main() -> None:
    """Answer on standard output."""
    bootstrap, group, what = sys.argv[1:]
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    if what == "delete":
        admin.delete_consumer_groups([group])[group].result(10)
    else:
        print(len(admin.describe_consumer_groups([group])[group].result(10).members))  # noqa: T201


if __name__ == "__main__":
    main()
