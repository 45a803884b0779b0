"""Configuration files: checked, merged, and each value knows its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import ConfigError
from chlaunch.launch import flavour, options, site, versions

if TYPE_CHECKING:
    from chlaunch.launch.site import Site

README = Path(__file__).resolve().parents[2] / "site-configs/README.md"


def load(tmp_path: Path, text: str, user: str = "") -> Site:
    """Return the site with text in the site's file and, if there is any, user in the user's."""
    file = tmp_path / "site.toml"
    file.write_text(text)
    config = tmp_path / "config"
    if user:
        (config / "chlaunch").mkdir(parents=True)
        (config / "chlaunch/config.toml").write_text(user)
    return site.load({"XDG_CONFIG_HOME": str(config)}, str(file))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\n[options]\nlauncer = 'srun'\n", ":3: unknown key launcer in [options]", "did you mean launcher?"),
        ("[option]\nmpi = 'x'\n", ":1: unknown key option", "did you mean options?"),
        ("mpi = 'x'\n", ":1: unknown key mpi", "known here: filesystem, options, system-tree, unset"),
        (
            "[[filesystem]]\npath='/a'\nreason='r'\n\n[[filesystem]]\npth='/b'\n",
            ":6: unknown key pth",
            "path?",
        ),
        ("[[filesystem]]\nreason = 'r'\n", ":1: [[filesystem]] needs path", ""),
        ("[filesystem]\npath = '/a'\nreason = 'r'\n", ":1: filesystem is written [[filesystem]]", ""),
        ("filesystem = 3\n", ":1: filesystem is written [[filesystem]]", ""),
        ("[options]\nbind = '/a'\n", ":2: bind must be a list of strings", ""),
        ("[options]\njoin = 'yes'\n", ":2: join must be true or false", ""),
        ("[options]\ndry-run = true\n", ":2: unknown key dry-run", ""),
        ("[options]\nlauncher = 'mpiexec'\n", ":2: launcher must be one of", ""),
        ("[[filesystem]]\npath = 'data'\nreason = 'r'\n", ":2: path must be absolute", ""),
        ("[options\n", ":1: not TOML: Expected ']'", ""),
        ("a = \n", ":1: not TOML: Invalid value", ""),
        ("a = '''\n", ":1: not TOML: ", ""),
    ],
)
def test_errors_name_file_line_and_nearest_key(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"{tmp_path}/site.toml{message}" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 64


def test_lines_are_right_after_a_long_string(tmp_path: Path) -> None:
    text = '[[filesystem]]\nreason = """\nx\nbad = 1\n"""\npath = "/a"\nbad = 2\n'
    with pytest.raises(ConfigError, match=r"site\.toml:7: unknown key bad"):
        load(tmp_path, text)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read /nowhere"):
        site.load({}, "/nowhere")
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        site.load({}, str(tmp_path / "x.toml"))


def test_later_rows_replace_earlier_ones(tmp_path: Path) -> None:
    merged = load(
        tmp_path,
        "[[filesystem]]\npath = '/a'\nreason = 'one'\n[[filesystem]]\npath = '/b'\nreason = 'two'\n",
        "[[filesystem]]\npath = '/a'\nreason = 'three'\n"
        "[[unset]]\nvariable = 'LD_PRELOAD'\nreason = 'mine works'\nenabled = false\n",
    )
    assert [(row.value, row.reason) for row in merged.filesystems] == [("/b", "two"), ("/a", "three")]
    assert merged.filesystems[1].origin == f"{tmp_path}/config/chlaunch/config.toml:1"
    unset = [row.value for row in merged.unset]
    assert "LD_LIBRARY_PATH" in unset
    assert "LD_PRELOAD" not in unset


def test_strengths(tmp_path: Path) -> None:
    merged = options.merge(*load(tmp_path, "[options]\nmpi = 'a'\n", "[options]\nmpi = 'b'\n").layers)
    assert [(setting.value, setting.strength) for setting in merged.all("mpi")] == [
        ("auto", options.OURS),
        ("a", options.SITE),
        ("b", options.USER),
    ]


def test_where_the_users_file_is() -> None:
    assert site.user_file({"HOME": "/h"}) == Path("/h/.config/chlaunch/config.toml")
    assert site.user_file({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == Path("/c/chlaunch/config.toml")
    assert site.user_file({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == Path(
        "/h/.config/chlaunch/config.toml"
    )
    assert site.user_file({}) is None


def test_the_readme_lists_every_key() -> None:
    rows = []
    for section in site.SECTIONS:
        header = f"[[{section.name}]]" if section.repeated else f"[{section.name}]"
        for key in section.keys:
            need = "yes" if key.required else ""
            rows.append(
                f"| `{header}` | `{key.name}` | {key.kind} | {need} | {key.help.replace('|', '&#124;')} |"
            )
    listed = [line for line in README.read_text().splitlines() if line.startswith("| `[")]
    assert listed == rows


def test_flavours_are_read() -> None:
    found = {flavour.name: flavour for flavour in flavour.load()}
    assert set(found) >= {
        "openmpi",
        "mpich",
        "mvapich",
        "intelmpi",
        "cray-mpich",
        "pmix",
        "ucx",
        "psm2",
        "libfabric",
    }
    openmpi = found["openmpi"]
    assert openmpi.starts("srun", "4.1.4")[0].plugin == "pmix"
    assert [wire.hosts for wire in openmpi.starts("mpirun", "4.1.4")] == ["<5"]
    assert openmpi.starts("mpirun", "4.1.4", "5.0.7") == ()
    assert len(openmpi.starts("mpirun", "")) == 3
    for each in found.values():
        assert each.mpi == bool(each.wire_ups)
        rows = [need.row for need in (*each.binds, *each.variables)] + [wire.row for wire in each.wire_ups]
        rows += [row.row for row in each.conflicts] + [row.row for row in each.servers]
        for row in rows:
            assert row.reason
            assert row.origin.startswith(f"flavours/{each.name}.toml:")
            assert row.origin.partition(":")[2].isdecimal()


@pytest.mark.parametrize(
    ("version", "ranges", "holds"),
    [
        ("4.1.8rc1", ">=4.1 <5", True),
        ("4.1.8", "4.1", True),
        ("4.10", "4.1", False),
        ("5.0", ">5", False),
        ("5.0.1", ">5", True),
        ("5", "<=5.0.0", True),
        ("5.0.1", "=5.0.1", True),
        ("4.0.1", ">=4.0.2", False),
        ("", ">=1", False),
        ("", "", True),
        ("v5", ">=1", False),
    ],
)
def test_ranges_of_versions(version: str, ranges: str, holds: bool) -> None:  # noqa: FBT001
    assert versions.is_range(ranges)
    assert versions.within(version, ranges) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("versions = '>= 4'", "x.toml:5: versions must be bounds between spaces"),
        ("sharing = 'both'", "x.toml:5: sharing must be shared or separate"),
        ("launcher = 'srun'", "x.toml:5: unknown key launcher"),
    ],
)
def test_values_of_a_flavour_are_checked(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    row = f"[[variable]]\n{text}\nname = 'A'\nvalue = 'b'\nreason = 'r'\nsource = 's'\n"
    file.write_text(f"name = 'x'\ntitle = 'X'\nlibraries = []\n{row}")
    with pytest.raises(ConfigError, match=re.escape(message)):
        flavour.parse(file)
    file.write_text("name = 'x'\ntitle = 'X'\nlibraries = []\nversion = ['no group']\n")
    with pytest.raises(ConfigError, match="version must be regular expressions with a group: no group"):
        flavour.parse(file)


def test_a_flavour_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("name = 'x'\n")
    with pytest.raises(ConfigError, match=r"flavours/x\.toml:1: .*needs title"):
        flavour.parse(file)
