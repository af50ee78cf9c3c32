"""Documentation that is checked: every setting and verb is described; links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from tickhouse.cli import VERBS, build_parser
from tickhouse.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")),
         *sorted((ROOT / "benchmarks").glob("*.md")),
         *sorted((ROOT / "deploy").rglob("*.md"))]  # fmt: skip


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_is_documented(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        build_parser().parse_args([name, "--help"])

    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert f"Example: tickhouse {name}" in shown
    assert "--json" in shown


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_but_a_secret_is_a_flag(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["up", "--help"])

    is_secret = Settings.model_fields[name].annotation is SecretStr
    is_flag = f"--{name.replace('_', '-')} " in capsys.readouterr().out
    assert is_flag is not is_secret


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_module_runs_as_a_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tickhouse", "--version"], capture_output=True, check=True, text=True
    ).stdout

    assert re.fullmatch(r"tickhouse \d+\.\d+\.\d+\n", shown)
