"""Fixtures for builds."""

from pathlib import Path

import pytest
from builds import Site, make_site


@pytest.fixture
def site(tmp_path: Path, image_tiny: Path, ch_run: Path) -> Site:
    """Return a context and a storage of their own, with the image tiny."""
    return make_site(tmp_path, image_tiny, ch_run)
