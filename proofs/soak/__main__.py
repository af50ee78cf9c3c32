"""`make soak MINUTES=30`: the verbs on real Kafka and S3 under faults; figures in a JSON file."""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from proofs.soak.run import Plan, end_by_sigterm, soak


def main() -> None:
    """Run a soak and print one JSON line; exits 1 if anything was lost, doubled or damaged."""
    parser = argparse.ArgumentParser(prog="proofs.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between faults")
    parser.add_argument("--rate", type=int, default=600, help="trades a second")
    parser.add_argument("--landers", type=int, default=3)
    parser.add_argument("--group-protocol", choices=["classic", "consumer"], default="classic")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--keep", type=Path, help="new folder that stays: logs, data, servers")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    end_by_sigterm()
    plan = Plan(
        seconds=options.minutes * 60,
        seed=options.seed,
        pause_s=options.pause,
        rate=options.rate,
        landers=options.landers,
        group_protocol=options.group_protocol,
    )
    with tempfile.TemporaryDirectory(prefix="tickhouse-soak-") as temporary:
        found = soak(plan, options.keep or Path(temporary) / "run")
    found["command"] = (
        f"python -m proofs.soak --minutes {options.minutes:g} --seed {options.seed}"
        f" --pause {options.pause:g} --rate {options.rate} --landers {options.landers}"
        f" --group-protocol {options.group_protocol}"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in found.items() if name != "own_exit_tails"}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    print(json.dumps(found))  # noqa: T201
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
