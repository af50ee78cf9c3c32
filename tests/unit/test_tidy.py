"""Style that a linter does not know: small modules, plain names, nothing of one machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = 500
BANNED_NAMES = re.compile(r"\b(utils?|helpers?|common|misc|manager)\b")
MACHINE = re.compile(r"(?<![\w/])/(work|root|home/\w+)/|\.\./shared\b")


def tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    files = [ROOT / name for name in listed] or list((ROOT / "src").rglob("*"))
    return [path for path in files if path.suffix in suffixes and path.is_file()]


def test_modules_are_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked(".py")
        if ROOT / "tests" not in path.parents
        and (lines := len(path.read_text().splitlines())) > LINES_MAX
    }

    assert long == {}


def test_no_module_is_called_after_nothing() -> None:
    names = [path for path in tracked(".py", ".sql", ".js") if BANNED_NAMES.search(path.stem)]

    assert names == []


@pytest.mark.parametrize(
    "path",
    tracked(".py", ".sql", ".js", ".md", ".toml", ".yml", ".html", ".css"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_names_a_path_of_one_machine(path: Path) -> None:
    if path != Path(__file__):
        assert MACHINE.search(path.read_text()) is None
