"""The fuzz target, for a bounded time, from a corpus of real messages."""

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.odd_json import SEEDS, TOKENS

TARGET = Path(__file__).with_name("fuzz_extractors.py")
SECONDS = 8
RUNS_MIN = 2_000


def has_fuzzer() -> bool:
    """Whether atheris is here; where CI must have it (Python 3.11), its absence is a failure."""
    found = importlib.util.find_spec("atheris") is not None
    if not found and os.environ.get("CI") == "true" and sys.version_info < (3, 12):
        pytest.fail("atheris is not installed, which CI on Python 3.11 must have")
    return found


def _quoted(token: bytes) -> str:
    """A token as libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in token)


def test_nothing_that_reads_a_feeds_bytes_fails_on_any_input(tmp_path: Path) -> None:
    if not has_fuzzer():
        pytest.skip("atheris is not installed: its wheels end at Python 3.11")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for kind, seeds in enumerate(SEEDS.values()):
        for number, seed in enumerate(seeds):
            (corpus / f"{kind}-{number}").write_bytes(bytes([kind]) + seed)
    for number in range(20):
        (corpus / f"made-{number}").write_bytes(random.Random(number).randbytes(60))
    tokens = tmp_path / "tokens.dict"
    tokens.write_text("".join(f'"{_quoted(token)}"\n' for token in TOKENS))
    limits = [f"-max_total_time={SECONDS}", "-max_len=4096", "-seed=7", "-rss_limit_mb=2048"]
    files = [f"-artifact_prefix={tmp_path}/", f"-dict={tokens}"]
    done = subprocess.run(
        [sys.executable, str(TARGET), *limits, *files, str(corpus)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    runs = re.search(r"Done (\d+) runs", done.stderr)

    assert done.returncode == 0, done.stderr[-3000:]
    assert runs is not None
    assert int(runs[1]) > RUNS_MIN
