"""Storage, and images to put into it, made of a few files."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from chlaunch.image.events import Silent
from chlaunch.image.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return storage with nothing in it."""
    made = open_store(tmp_path / "storage", Silent().say)
    assert made is not None
    return made
