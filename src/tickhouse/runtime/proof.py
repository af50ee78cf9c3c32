"""The verbs that prove: `audit` and `rebuild`."""

import argparse

from tickhouse.runtime.result import VerbResult
from tickhouse.settings import Settings


def audit(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    raise NotImplementedError


def rebuild(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    raise NotImplementedError
