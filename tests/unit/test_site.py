"""Configuration files: checked, merged, and each value knows its line."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.errors import ConfigError
from chlaunch.launch import flavour, options, site, tables, versions

if TYPE_CHECKING:
    from chlaunch.launch.site import Site

FILES = Path(__file__).resolve().parents[2] / "site-configs"
README = FILES / "README.md"
OURS = sorted(path.stem for path in FILES.glob("*.toml"))


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
        ("mpi = 'x'\n", ":1: unknown key mpi", "known here: base, bind, filesystem, options, system-tree, "),
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
        ("[[bind]]\npath = 'data'\nreason = 'r'\n", ":2: path must be absolute, or begin with $NAME", ""),
        ("[[bind]]\npath = '$A.b'\nreason = 'r'\n", ":2: path must be absolute, or begin with $NAME", ""),
        ("[[bind]]\npath = '/a'\nreason = 'r'\ntarget = 'b'\n", ":4: target must be absolute", ""),
        ("[[variable]]\nname = 'A'\nreason = 'r'\n", ":1: [[variable]] needs value", ""),
        ("[[variable]]\nname = 'A=B'\nvalue = ''\nreason = 'r'\n", ":2: no name of a variable: A=B", ""),
        ("base = 'cray-ex'\n", ":1: base must be a list of strings", ""),
        ("\nbase = ['cray']\n", ":2: base cray is neither one of ours nor", "did you mean cray-ex?"),
        ("base = ['zzz']\n", ":1: base zzz", "ours are cray-ex, generic, infiniband, slurm-pmix"),
        ("base = ['./a.toml']\n", ":1: base ./a.toml is neither", "write an absolute path"),
        ("base = ['README.md']\n", ":1: base README.md is neither one of ours", ""),
        ("base = ['/nowhere/a.toml']\n", ":1: base /nowhere/a.toml is no file", ""),
        ("base = ['cray-ex', 'cray-ex']\n", ":1: base has cray-ex twice", "name it once"),
        ("[options]\nmpi = 'x'\nbase = ['cray-ex']\n", ":3: base is no key of a table", "above all tables"),
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
        header = f"`[[{section.name}]]`" if section.repeated else f"`[{section.name}]`"
        for key in section.keys:
            need = "yes" if key.required else ""
            rows.append(
                f"| {header if section.name else 'top level'} | `{key.name}` | {key.kind} | {need} |"
                f" {key.help.replace('|', '&#124;')} |"
            )
    listed = [line for line in README.read_text().splitlines() if line.startswith(("| `[", "| top level"))]
    assert listed == rows


def test_the_readme_lists_every_file() -> None:
    listed = re.findall(r"^\| `([a-z-]+)\.toml` \|", README.read_text(), re.MULTILINE)
    assert sorted(listed) == OURS


def write(path: Path, text: str) -> Path:
    """Return path, with text in it."""
    path.write_text(text)
    return path


def variables(found: Site) -> dict[str, tuple[str, str]]:
    """Return what the rows and options of all files make defaults of: value and origin, by name."""
    given = options.merge(*found.layers).all("env-default")
    return {str(one.value).partition("=")[0]: (str(one.value).partition("=")[2], one.origin) for one in given}


def test_bases_are_read_first_in_their_order(tmp_path: Path) -> None:
    row = "[[variable]]\nname = '{}'\nvalue = '{}'\nreason = 'r'\n"
    first = write(tmp_path / "first.toml", row.format("A", 1) + row.format("B", 1) + row.format("C", 1))
    second = write(tmp_path / "second.toml", row.format("B", 2) + row.format("C", 2))
    found = load(tmp_path, f"base = ['{first}', '{second}', 'cray-ex']\n" + row.format("C", 3))
    given = variables(found)
    _, origin = given.pop("NCCL_SOCKET_IFNAME")
    assert re.fullmatch(r"site-configs/cray-ex\.toml:\d+", origin)
    assert given == {
        "A": ("1", f"{first}:1"),
        "B": ("2", f"{second}:1"),
        "C": ("3", f"{tmp_path}/site.toml:2"),
    }
    assert [row.value for row in found.filesystems] == ["/opt/cray"]


def test_a_file_is_read_once_where_it_is_first_asked_for(tmp_path: Path) -> None:
    low = write(tmp_path / "low.toml", "[options]\nbind = ['/low']\nmpi = 'low'\n")
    left, right = (
        write(tmp_path / f"{name}.toml", f"base = ['{low}']\n[options]\nmpi = '{name}'\n")
        for name in ("left", "right")
    )
    (tmp_path / "again.toml").symlink_to(low)
    text = f"base = ['{left}', '{right}', '{tmp_path}/again.toml', 'generic']\n"
    found = options.merge(*load(tmp_path, text, f"base = ['{low}']\n").layers)
    assert [setting.value for setting in found.all("bind")] == ["/low"]
    assert [setting.value for setting in found.all("mpi")] == ["auto", "low", "left", "right"]
    assert {setting.strength for setting in found.all("mpi")[1:]} == {options.SITE}


def test_a_users_file_builds_on_others_too(tmp_path: Path) -> None:
    found = options.merge(*load(tmp_path, "", "base = ['slurm-pmix']\n").layers)
    (said,) = found.all("launcher")[1:]
    assert (said.value, said.strength) == ("srun", options.USER)
    assert said.origin.startswith("site-configs/slurm-pmix.toml:")


def test_a_file_can_not_build_on_itself(tmp_path: Path) -> None:
    other = write(tmp_path / "other.toml", f"\nbase = ['{tmp_path}/site.toml']\n")
    with pytest.raises(ConfigError, match="a file can't build on itself") as caught:
        load(tmp_path, f"base = ['{other}']\n")
    chain = f"{tmp_path}/site.toml -> {other} -> {tmp_path}/site.toml"
    assert caught.value.message == f"{other}:2: a file can't build on itself: {chain}"


def test_an_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    other = write(tmp_path / "other.toml", "\n\nnonsense = 1\n")
    with pytest.raises(ConfigError, match=re.escape(f"{other}:3: unknown key nonsense")):
        load(tmp_path, f"base = ['{other}']\n")


def test_one_of_ours_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cray-ex", "[options]\nmpi = 'mine'\n")
    assert "NCCL_SOCKET_IFNAME" in variables(site.load({}, "cray-ex"))
    assert options.merge(*site.load({}, "./cray-ex").layers).text("mpi") == "mine"
    with pytest.raises(ConfigError, match="can't read cray: no such file here, and none of ours"):
        site.load({}, "cray")


def test_rows_become_defaults_and_optional_binds(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "[options]\nenv-default = ['A=0']\nbind-try = ['/x']\n"
        "[[bind]]\npath = '$LOCAL/a'\ntarget = '/local'\nreason = 'disk'\n"
        "[[bind]]\npath = '/gone'\nreason = 'r'\n"
        "[[variable]]\nname = 'A'\nvalue = 'b=c'\nreason = 'why'\n"
        "[[variable]]\nname = 'GONE'\nvalue = ''\nreason = 'r'\n",
        "[[bind]]\npath = '/gone'\nreason = 'not mine'\nenabled = false\n"
        "[[variable]]\nname = 'GONE'\nreason = 'not mine'\nenabled = false\n",
    )
    given = options.merge(*found.layers)
    origin = f"{tmp_path}/site.toml"
    assert given.all("bind-try") == (
        options.Setting("$LOCAL/a:/local", options.SITE, f"{origin}:4", "disk"),
        options.Setting("/x", options.SITE, f"{origin}:3"),
    )
    assert given.all("env-default") == (
        options.Setting("A=b=c", options.SITE, f"{origin}:11", "why"),
        options.Setting("A=0", options.SITE, f"{origin}:2"),
    )


@pytest.mark.parametrize("name", OURS)
def test_each_of_ours_loads_and_gives_its_reasons(name: str) -> None:
    site.load({}, name)
    document = tables.read(FILES / f"{name}.toml", name)
    for section in site.SECTIONS:
        for index, table in document.tables(section.name) if section.repeated else ():
            assert table["reason"], document.where(section.name, index)
            assert table["source"], document.where(section.name, index)


def test_ours_go_together(tmp_path: Path) -> None:
    found = load(tmp_path, f"base = {OURS}\n")
    assert len(found.layers) == len(OURS) + 1
    ours = {flavoured.row.value for each in flavour.load() for flavoured in each.variables}
    assert not ours & set(variables(found)), "what is said of an MPI is said in its flavour"


@pytest.mark.parametrize(
    "variable",
    [
        *("SLINGSHOT_VNIS", "SLINGSHOT_DEVICES", "SLINGSHOT_SVC_IDS", "SLINGSHOT_TCS", "PALS_APID"),
        *("PALS_APINFO", "PALS_SPOOL_DIR", "PMI_FD", "PMI_RANK", "PMI_CONTROL_PORT", "PMI_SHARED_SECRET"),
        *("PMIX_RANK", "PMIX_SERVER_URI41", "SLURM_PROCID", "FI_PROVIDER", "UCX_NET_DEVICES"),
    ],
)
def test_no_file_of_ours_takes_out_what_ranks_wire_up_by(tmp_path: Path, variable: str) -> None:
    found = load(tmp_path, f"base = {OURS}\n")
    assert not [row for row in found.unset if fnmatchcase(variable, row.value)]


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
        rows += [*(row.row for row in each.conflicts), *(row.row for row in each.servers)]
        rows += [row.row for row in each.refusals]
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
