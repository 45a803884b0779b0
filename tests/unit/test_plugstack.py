"""plugstack.conf: what it names, and ch-doctor's verdict on our plugin."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from chlaunch.doctor import stack
from chlaunch.slurm import plugstack
from chlaunch.slurm.facts import Facts
from chlaunch.slurm.plugstack import Plugin

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Return the path of an empty slurm.conf."""
    path = tmp_path / "slurm.conf"
    path.write_text("")
    return path


def test_where_it_is(conf: Path) -> None:
    assert plugstack.location(str(conf)) == f"{conf.parent}/plugstack.conf"
    conf.write_text("#PlugStackConfig=/a\nplugstackconfig = /srv/stack # ours\n")
    assert plugstack.location(str(conf)) == "/srv/stack"


def test_lines_and_what_they_include(tmp_path: Path) -> None:
    main = tmp_path / "plugstack.conf"
    main.write_text(
        "# required no.so\n  required  /a.so one=1 two # three\nnonsense\ninclude more.d/*.conf\noptional b.so\n"
    )
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d/x.conf").write_text(f"optional x.so\ninclude {tmp_path}/none/*\n")
    (tmp_path / "more.d/y.txt").write_text("optional y.so\n")
    assert list(plugstack.plugins(str(main))) == [
        Plugin(required=True, path="/a.so", arguments=("one=1", "two"), where=f"{main}:2"),
        Plugin(required=False, path="b.so", arguments=(), where=f"{main}:5"),
        Plugin(required=False, path="x.so", arguments=(), where=f"{tmp_path}/more.d/x.conf:1"),
    ]
    assert list(plugstack.plugins(f"{tmp_path}/none")) == []


def test_files_that_include_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("include a\ninclude a\n")
    with pytest.raises(OSError, match="more than 256 files are included"):
        list(plugstack.plugins(f"{tmp_path}/a"))


@pytest.mark.parametrize(
    ("text", "files", "verdict", "found"),
    [
        (None, (), "ok", "none in "),
        ("required other.so\n", (), "ok", "none in "),
        ("required LIB/spank_chlaunch.so planner=PYTHON", ("spank_chlaunch.so",), "ok", "plugstack.conf:1"),
        ("optional spank_chlaunch.so planner=PYTHON", ("spank_chlaunch.so",), "ok", "plugstack.conf:1"),
        ("required LIB/spank_chlaunch.so planner=PYTHON", (), "problem", "plugstack.conf:1 requires it"),
        ("optional spank_chlaunch.so planner=PYTHON", (), "warning", "plugstack.conf:1 calls it optional"),
        ("required spank_chlaunch.so", ("spank_chlaunch.so",), "warning", "the planner= in "),
        ("required spank_chlaunch.so planner=/no", ("spank_chlaunch.so",), "warning", "the planner= in "),
        ("include .", (), "warning", "Is a directory"),
    ],
)
def test_our_plugin(conf: Path, text: str | None, files: tuple[str, ...], verdict: str, found: str) -> None:
    library = conf.parent / "lib"
    library.mkdir()
    if text is not None:
        text = text.replace("LIB", str(library)).replace("PYTHON", sys.executable)
        (conf.parent / "plugstack.conf").write_text(text)
    for name in files:
        (library / name).touch()
    (row,) = stack.plugin(str(conf), Facts(plugin_directories=("/none", str(library))))
    assert (row.name, row.verdict) == ("SPANK plugin", verdict)
    assert found in row.found


def test_a_slurm_conf_that_can_not_be_read() -> None:
    assert stack.plugin(None, Facts()) == []
    (row,) = stack.plugin("/no/slurm.conf", Facts())
    assert (row.verdict, row.found) == ("warning", "can't read /no/slurm.conf: No such file or directory")
