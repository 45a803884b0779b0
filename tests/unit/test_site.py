"""Configuration files: checked, merged, and each value knows its line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import ConfigError
from chlaunch.launch import flavour, options, site

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
    (openmpi,) = flavour.load()
    assert openmpi.name == "openmpi"
    assert openmpi.version("libmpi.so.40.30.4") == "4.1"
    assert openmpi.version("libmpi.so.41.0.0") == ""
    assert next(wire.plugin for wire in openmpi.wire_ups if wire.launcher == "srun") == "pmix"
    assert all(need.row.reason and ":" in need.row.origin for need in (*openmpi.binds, *openmpi.variables))


def test_a_flavour_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("name = 'x'\n")
    with pytest.raises(ConfigError, match=r"flavours/x\.toml:1: .*needs title"):
        flavour.parse(file)
