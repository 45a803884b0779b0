"""Image files in a cache: made once, found again, and not believed where others may have put them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from chlaunch.image import published
from chlaunch.image.products import new_file

if TYPE_CHECKING:
    from pathlib import Path

NAME = "image.sqfs"
MINE = frozenset((os.geteuid(),))


def make(path: Path) -> None:
    """Write a file as ch-convert does: beside its place, with a mode by the umask."""
    with new_file(path) as new:
        new.write_bytes(b"image")


def publish(directory: Path) -> Path:
    """Make the file, if it is not there."""
    return published.publish(directory, NAME, make, print, deadline=1)


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o600), (0o755, 0o644)])
def test_it_is_found_again_whatever_the_umask(tmp_path: Path, mode: int, expected: int) -> None:
    tmp_path.chmod(mode)
    before = os.umask(0o002)
    try:
        path = publish(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == expected
    assert published.find(tmp_path, NAME, MINE) == path


def test_what_the_killed_left_goes(tmp_path: Path) -> None:
    for left in (f".{NAME}.new-1", f"..{NAME}.new-2.3"):
        (tmp_path / left).write_bytes(b"part")
    publish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{NAME}.lock", NAME]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"part")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  the one above
        published.publish(tmp_path, NAME, fail, print, deadline=1)
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAME}.lock"]


def test_what_is_not_believed(tmp_path: Path) -> None:
    path = publish(tmp_path)
    path.chmod(0o664)
    assert "others than its owner may write" in published.distrust(tmp_path, MINE, NAME)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert published.distrust(tmp_path, MINE, NAME).endswith("it is no file")
    assert published.find(tmp_path, NAME, MINE) is None
