"""`make prove-cluster`: 60 s of faults on real Kafka and S3, then both oracles (<= 5 minutes).

Prints one JSON line: {"ok", "kills", "zombies", "s3_faults", "lost", "duplicated", "corrupt",
"gold_equal", …}.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from proofs.soak.run import Plan, end_by_sigterm, soak

FAULTS_S: Final = 60.0
PAUSE_S: Final = 2.0
SHOWN: Final = (
    "ok",
    "error",
    "kills",
    "zombies",
    "broker_restarts",
    "s3_faults",
    "other_faults",
    "skipped",
    "lost",
    "duplicated",
    "corrupt",
    "gold_equal",
    "recovery_s",
    "recovery_after_all_s",
    "seconds",
)


def main() -> None:
    """Print the proof; exits 1 if it does not hold."""
    parser = argparse.ArgumentParser(prog="proofs.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--seconds", type=float, default=FAULTS_S, help="of faults")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    end_by_sigterm()
    with tempfile.TemporaryDirectory(prefix="tickhouse-proof-") as folder:
        plan = Plan(seconds=options.seconds, seed=options.seed, pause_s=PAUSE_S)
        found = soak(plan, Path(folder) / "run")
    proof = {name: found[name] for name in SHOWN if name in found}
    proof |= {"frames": found.get("oracle", {}).get("frames"), "seed": options.seed}
    proof["problems"] = [
        *found.get("oracle", {}).get("problems", []),
        *found.get("audit", {}).get("problems", []),
        *found.get("gold", {}).get("differences", []),
    ]
    print(json.dumps(proof))  # noqa: T201
    sys.exit(0 if proof["ok"] else 1)


if __name__ == "__main__":
    main()
