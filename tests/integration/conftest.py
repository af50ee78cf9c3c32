"""What several files of integration tests share."""

from pathlib import Path

import pytest

from support.audited import make_road


@pytest.fixture(scope="session")
def road_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with frames of all kinds in every layer; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("road") / "data"
    make_road(folder)
    return folder
