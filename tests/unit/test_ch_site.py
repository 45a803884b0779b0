"""ch-site install and uninstall, in roots of their own: what is written, what is an admin's, what strangers leave."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.admin import change, places, plugin, record
from chlaunch.admin.change import Wanted
from chlaunch.admin.parts import Request, wanted
from chlaunch.cli import site as cli
from chlaunch.doctor import nodes
from chlaunch.doctor.nodes import Host
from chlaunch.doctor.rows import fine, problem, warning
from chlaunch.errors import ChlaunchError, RefusedError, SlurmError, UsageError
from chlaunch.slurm import nodes as cluster
from chlaunch.slurm.nodes import Node, Step

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG = b"#!/bin/sh\nch_run=ch-run\nexit 0\n"
LUA = b"-- filters\n"
OCI = b"# runs\n"
CONF = "etc/slurm"
PLUGIN = "usr/local/lib/chlaunch/spank_chlaunch.so"

Files = dict[str, tuple[bytes, int]]


def files(root: Path) -> Files:
    """Return all files below root, with their contents and modes, and directories, with theirs."""
    return {
        str(path.relative_to(root)): (
            b"" if path.is_dir() else path.read_bytes(),
            stat.S_IMODE(path.lstat().st_mode),
        )
        for path in root.rglob("*")
        if not path.is_symlink()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with a slurm.conf."""
    top = tmp_path / "root"
    (top / CONF).mkdir(parents=True)
    (top / CONF / "slurm.conf").write_text("ClusterName=test\n")
    return top


@pytest.fixture
def real_plugin() -> Path:
    """Return a SPANK plugin of this host's Slurm that is not ours, as Debian's packages bring one."""
    found = sorted(Path("/usr/lib").glob("*/slurm-wlm/spank_pbs.so"))
    if not found:
        pytest.fail("Slurm's own plugins are not here: run tests/setup.sh cluster", pytrace=False)
    return found[0]


@pytest.fixture
def run(root: Path, tmp_path: Path, real_plugin: Path) -> Callable[..., int]:
    """Return a function that runs ch-site on the root."""
    parts = tmp_path / "parts"
    parts.mkdir()
    contents = {"epilog": EPILOG, "cli_filter.lua": LUA, "oci.conf-22.05": OCI, "oci.conf-23.02": OCI}
    for name, content in contents.items():
        (parts / name).write_bytes(content)

    def ch_site(deed: str, *words: str) -> int:
        more = ["--plugin", str(real_plugin), "--from", str(parts)] if deed == "install" else []
        return cli.site([deed, "--root", str(root), *more, *words], os.environ)

    return ch_site


def line(path: str = f"/{PLUGIN}") -> bytes:
    """Return what is written to plugstack.conf."""
    return f"# srun --ch-image; see ch-site(1)\noptional {path} planner={sys.executable}\n".encode()


def test_install_and_uninstall(root: Path, run: Callable[..., int], real_plugin: Path) -> None:
    before = files(root)
    assert run("install", "--oci", "--cli-filter") == 0
    there = files(root)
    assert there[PLUGIN] == (real_plugin.read_bytes(), 0o644)
    assert there[f"{CONF}/plugstack.conf"] == (line(), 0o644)
    assert there[f"{CONF}/epilog.d/50-chlaunch"] == (EPILOG, 0o755)
    assert there[f"{CONF}/cli_filter.lua"] == (LUA, 0o644)
    assert there[f"{CONF}/oci.conf"] == (OCI, 0o644)
    assert there[f"{CONF}/slurm.conf"] == before[f"{CONF}/slurm.conf"]
    assert run("uninstall") == 0
    assert files(root) == before


@pytest.mark.parametrize(("release", "helper"), [("22.05", True), ("23.02", False), ("26.05", False)])
def test_the_oci_conf_of_the_release(root: Path, release: str, helper: bool) -> None:  # noqa: FBT001
    words = ["--root", str(root), "--no-plugin", "--no-epilog", "--oci", f"--slurm={release}"]
    assert cli.site(["install", *words, "--plugin-dir=/opt/ch"], os.environ) == 0
    text = (root / CONF / "oci.conf").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("RunTimeRun=")]
    assert ("/opt/ch/oci-ch-run" in line) is helper
    assert (root / "opt/ch/oci-ch-run").exists() is helper
    if helper:
        assert (root / "opt/ch/oci-ch-run").stat().st_mode & 0o777 == 0o755
    assert cli.site(["uninstall", "--root", str(root)], os.environ) == 0
    assert not (root / CONF / "oci.conf").exists()


def test_again_changes_nothing(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run("install")
    there, times = files(root), {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    capsys.readouterr()
    assert run("install") == 0
    assert files(root) == there
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all(one.endswith(": as it should be") for one in said)


def test_dry_run_writes_nothing(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    assert run("install", "--dry-run") == 0
    assert files(root) == before
    said = capsys.readouterr()
    assert f"+++ {root}/{CONF}/plugstack.conf\n@@ -0,0 +1,2 @@\n" in said.out
    assert f"+{line().decode().splitlines()[1]}\n" in said.out
    assert f"say in {root}/{CONF}/slurm.conf, on all hosts: Epilog=/etc/slurm/epilog.d/*" in said.err
    run("install")
    there = files(root)
    assert run("uninstall", "--dry-run") == 0
    assert files(root) == there


def test_no_advice_where_slurm_conf_says_it(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with (root / CONF / "slurm.conf").open("a") as file:
        file.write("epilog = /etc/slurm/epilog.d/*\nCliFilterPlugins=cli_filter/user_defaults\n")
    run("install", "--cli-filter")
    said = capsys.readouterr().err
    assert "Epilog" not in said
    assert "CliFilterPlugins=cli_filter/lua (it says cli_filter/user_defaults now)" in said


@pytest.mark.parametrize("content", [b"required other.so\n", b"optional other.so a=b # no newline", b"\n\n"])
def test_the_admins_plugstack(root: Path, run: Callable[..., int], content: bytes) -> None:
    stack = root / CONF / "plugstack.conf"
    stack.write_bytes(content)
    stack.chmod(0o640)
    before = files(root)
    run("install")
    assert stack.read_bytes() == content + (b"" if content.endswith(b"\n") else b"\n") + line()
    assert files(root)[f"{CONF}/plugstack.conf"][1] == 0o640
    run("install", "--plugin-dir", "/opt/chlaunch")  # the line is replaced where it stands
    assert stack.read_bytes().endswith(line("/opt/chlaunch/spank_chlaunch.so"))
    assert stack.read_bytes().count(b"spank_chlaunch.so") == 1
    run("uninstall")
    assert files(root) == before


def test_what_is_written_around_our_line_stays(root: Path, run: Callable[..., int]) -> None:
    stack = root / CONF / "plugstack.conf"
    stack.write_bytes(b"required one.so")
    run("install")
    stack.write_bytes(stack.read_bytes() + b"required two.so\n")
    assert run("install") == 0
    assert run("uninstall") == 0
    assert stack.read_bytes() == b"required one.so\nrequired two.so\n"


def test_our_line_as_an_admin_changed_it(root: Path, run: Callable[..., int]) -> None:
    run("install")
    stack = root / CONF / "plugstack.conf"
    changed = stack.read_bytes().replace(b"optional", b"required")
    stack.write_bytes(changed)
    before = files(root)
    with pytest.raises(
        RefusedError, match=r"not as ch-site left it: .*/plugstack\.conf; nothing was written"
    ):
        run("install")
    assert files(root) == before
    run("install", "--overwrite")
    assert stack.read_bytes().endswith(line())
    assert b"required" not in stack.read_bytes()
    run("uninstall")
    assert stack.read_bytes() == changed


def test_overwritten_lines_are_not_lost(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    stack = root / CONF / "plugstack.conf"
    stack.write_text("optional /site/spank_chlaunch.so\n")
    run("install", "--overwrite")
    with stack.open("a") as file:
        file.write("required two.so\n")
    run("uninstall")
    assert stack.read_text() == "required two.so\n"
    assert f"warning: {stack}: what it was before is in " in capsys.readouterr().err
    (saved,) = (root / "var/lib/chlaunch/saved").iterdir()
    assert saved.read_text() == "optional /site/spank_chlaunch.so\n"


def test_an_include_gets_a_file_of_its_own(root: Path, run: Callable[..., int]) -> None:
    (root / CONF / "plugstack.conf").write_text("include /etc/slurm/plugstack.conf.d/*.conf\n")
    before = files(root)
    run("install")
    assert (root / CONF / "plugstack.conf.d/chlaunch.conf").read_bytes() == line()
    assert files(root)[f"{CONF}/plugstack.conf"] == before[f"{CONF}/plugstack.conf"]
    run("uninstall")
    assert files(root) == before


def test_plugstack_elsewhere(root: Path, run: Callable[..., int]) -> None:
    with (root / CONF / "slurm.conf").open("a") as file:
        file.write("PlugStackConfig=/srv/stack.conf\n")
    run("install")
    assert (root / "srv/stack.conf").read_bytes() == line()
    assert not (root / CONF / "plugstack.conf").exists()


def test_an_admins_file_is_kept(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    oci = root / CONF / "oci.conf"
    oci.write_text("# the site's own\n")
    oci.chmod(0o600)
    before = files(root)
    with pytest.raises(RefusedError, match=r"oci\.conf"):
        run("install", "--oci")
    assert files(root) == before
    run("install", "--oci", "--overwrite")
    assert oci.read_bytes() == OCI
    run("install", "--oci")  # ours now
    run("uninstall")
    assert files(root) == before
    assert "warning" not in capsys.readouterr().err.replace("warning: users can't", "")


def test_an_edit_outlives_uninstall(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run("install")
    epilog = root / CONF / "epilog.d/50-chlaunch"
    epilog.write_bytes(EPILOG + b"# mine\n")
    with pytest.raises(RefusedError, match="50-chlaunch"):
        run("install")
    capsys.readouterr()
    run("uninstall")
    assert epilog.read_bytes() == EPILOG + b"# mine\n"
    assert f"warning: {epilog}: left as it is: it was changed" in capsys.readouterr().err
    left = {path for path in files(root) if "etc" not in path}
    assert left == set()


def test_update(root: Path, run: Callable[..., int], tmp_path: Path) -> None:
    run("install")
    (tmp_path / "parts/epilog").write_bytes(EPILOG + b"# better\n")
    run("install")
    assert (root / CONF / "epilog.d/50-chlaunch").read_bytes() == EPILOG + b"# better\n"


def test_uninstall_of_nothing(
    run: Callable[..., int], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    assert run("uninstall") == 0
    assert files(root) == before
    assert "nothing is installed here" in capsys.readouterr().err


def test_same_file_is_not_ours(root: Path, run: Callable[..., int]) -> None:
    (root / CONF / "oci.conf").write_bytes(OCI)
    run("install", "--oci")
    run("uninstall")
    assert (root / CONF / "oci.conf").read_bytes() == OCI


@pytest.mark.parametrize("at", range(5))  # the record, three files, the record
def test_a_killed_install_is_taken_up(
    root: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before = files(root)
    write = places.write
    written: list[object] = []

    def killed(*words: object) -> None:
        if len(written) == at:
            raise KeyboardInterrupt
        written.append(words)
        write(*words)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(places, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run("install")
    assert len(written) == at
    assert run("install") == 0
    assert run("uninstall") == 0
    assert files(root) == before


# What strangers can do


def test_a_link_of_roots_is_followed(root: Path, run: Callable[..., int]) -> None:
    (root / CONF).rename(root / "etc/slurm-llnl")
    (root / CONF).symlink_to("/etc/slurm-llnl")  # of the root, not of the host
    before = files(root)
    run("install")
    assert (root / "etc/slurm-llnl/plugstack.conf").read_bytes() == line()
    assert not Path("/etc/slurm-llnl/plugstack.conf").exists()
    run("uninstall")
    assert files(root) == before


def test_a_file_that_is_a_link_stays_one(root: Path, run: Callable[..., int]) -> None:
    (root / "srv").mkdir()
    (root / "srv/stack").write_text("required other.so\n")
    (root / CONF / "plugstack.conf").symlink_to("../../../../../../srv/stack")  # ".." ends at the root
    run("install")
    assert (root / CONF / "plugstack.conf").is_symlink()
    assert (root / "srv/stack").read_bytes() == b"required other.so\n" + line()


@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o755, 1)])
def test_links_of_others_are_not_followed(root: Path, run: Callable[..., int], mode: int, owner: int) -> None:
    (root / CONF).chmod(mode)
    os.chown(root / CONF, owner, -1)
    run("install")  # such directories are the site's choice
    run("uninstall")
    target = root / "target"
    target.write_text("a\n")
    (root / CONF / "plugstack.conf").symlink_to("../../target")
    before = files(root)
    with pytest.raises(
        RefusedError, match=r"plugstack\.conf is a link, in a directory that others can write to"
    ):
        run("install")
    assert files(root) == before


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_no_file_where_anybody_writes(root: Path, run: Callable[..., int], mode: int) -> None:
    (root / "usr").mkdir(mode=0o755)
    (root / "usr").chmod(mode)
    before = files(root)
    with pytest.raises(RefusedError, match=rf"anybody may write to {root}/usr \(mode"):
        run("install")
    assert files(root) == before


@pytest.mark.parametrize("kind", ["fifo", "directory", "loop"])
def test_what_is_no_file(root: Path, run: Callable[..., int], kind: str) -> None:
    path = root / CONF / "plugstack.conf"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("plugstack.conf")
    with pytest.raises((ChlaunchError, OSError)):
        run("install")
    assert not (root / "usr").exists()


def test_a_change_at_the_last_moment(root: Path) -> None:
    path = root / CONF / "oci.conf"
    path.write_text("one\n")
    with places.open_root(str(root)) as top:
        known = record.load(top)
        one = Wanted("oci.conf", f"/{CONF}/oci.conf", OCI)
        changes = change.plan(top, known, [one], overwrite=True)
        path.write_text("two\n")
        with pytest.raises(ChlaunchError, match="was changed by somebody just now"):
            change.apply(top, known, changes)
    assert path.read_text() == "two\n"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["oci.conf", "slurm.conf"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "directories": [], "entries": [{}]}']
)
def test_damaged_record(root: Path, run: Callable[..., int], text: str) -> None:
    path = root / record.PATH.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    before = files(root)
    for deed in ("install", "uninstall"):
        with pytest.raises(ChlaunchError, match=r"site\.json"):
            run(deed)
    assert files(root) == before


# The plugin and its Slurm


def test_plugin_for_another_slurm(root: Path, run: Callable[..., int]) -> None:
    before = files(root)
    with pytest.raises(RefusedError, match=r"Slurm here is 99\.11, but .*spank_pbs\.so is for Slurm [0-9]"):
        run("install", "--slurm", "99.11")
    assert files(root) == before


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"text", b"\x7fELF\2\1\1" + bytes(100)])
def test_no_plugin(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.so").write_bytes(content)
    with pytest.raises(ChlaunchError, match="is no SPANK plugin"):
        plugin.checked(str(tmp_path / "no.so"), "22.05.8")


def test_library_that_is_no_plugin() -> None:
    (library, *_) = Path("/usr/lib").glob("*/libpthread.so.0")
    with pytest.raises(ChlaunchError, match="is no SPANK plugin"):
        plugin.release_of(str(library))


def test_damaged_plugin_is_an_error(tmp_path: Path, real_plugin: Path) -> None:
    whole = bytearray(real_plugin.read_bytes())
    damaged = tmp_path / "damaged.so"
    seen = set()
    for at in range(0, len(whole), 101):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        damaged.write_bytes(changed)
        try:
            seen.add(plugin.release_of(str(damaged)))
        except ChlaunchError as error:
            seen.add(error.message.split(str(damaged))[0])
    assert {plugin.release_of(str(real_plugin)), ""} <= seen  # damaged where it matters, and elsewhere


def test_no_srun() -> None:
    with pytest.raises(SlurmError) as caught:
        plugin.release_here(None)
    assert "--slurm" in caught.value.hint


@pytest.mark.parametrize(
    "words", [["--slurm-conf", "etc"], ["--plugin-dir", "x"], ["--no-plugin"], ["--none"]]
)
def test_usage(run: Callable[..., int], words: list[str]) -> None:
    with pytest.raises(UsageError):
        run("install", *words)


@pytest.mark.parametrize("words", [[], ["instal"]])
def test_no_deed(words: list[str]) -> None:
    with pytest.raises(UsageError):
        cli.site(words, {})


def test_planner(tmp_path: Path) -> None:
    assert plugin.planner_trouble("/usr/bin/env") == ""
    assert "is not an absolute path" in plugin.planner_trouble("python3")
    assert "without blanks" in plugin.planner_trouble("/usr/bin/python 3")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to("/usr/bin/env")
    assert plugin.planner_trouble(str(closed / "python")) == f"{closed} is closed to users (mode 0700)"
    assert "No such file" in plugin.planner_trouble("/usr/bin/no-such-python")


def test_epilog_is_told_where_ch_run_is(tmp_path: Path, root: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/epilog").write_bytes(EPILOG)
    for ch_run, expected in (("/opt/a b/ch-run", b"'/opt/a b/ch-run'"), ("/usr/bin/ch-run", b"ch-run")):
        request = Request("/etc/slurm", "", "", ch_run, ("epilog",), source=str(tmp_path / "parts"))
        with places.open_root(str(root)) as top:
            (one,) = wanted(top, request)
        assert one.content == EPILOG.replace(b"ch_run=ch-run", b"ch_run=" + expected)


# ch-site check: what is made of answers; tests/cluster has it on a real Slurm

HERE = Host("here", (), slurm="22.05.8", versions={"chlaunch": "1.0", "ch-run": "1.0"})
IDLE = Node("n1", "idle", "22.05.8")
GOOD = '{"verdict": "ok", "versions": {"chlaunch": "1.0", "ch-run": "1.0"}, "rows": []}\nexit=0\n'


@pytest.mark.parametrize(
    ("node", "step", "name", "verdict", "found"),
    [
        (IDLE, Step({"n1": GOOD}, ""), "chlaunch", "ok", "chlaunch 1.0, ch-run 1.0"),
        (IDLE, Step({"n1": "noise\n" + GOOD}, ""), "chlaunch", "ok", "chlaunch 1.0"),
        (
            IDLE,
            Step({"n1": GOOD.replace('"1.0"', '"2.0"', 1)}, ""),
            "chlaunch",
            "problem",
            "chlaunch 2.0, but 1.0 here",
        ),
        (IDLE, Step({"n1": "Traceback\nexit=1\n"}, ""), "chlaunch", "problem", "Traceback (exit code 1)"),
        (IDLE, Step({"n1": "exit=127\n"}, ""), "chlaunch", "problem", "it printed nothing (exit code 127)"),
        (
            IDLE,
            Step({"n1": '{"rows": [{"verdict": "fine"}], "versions": {}}\nexit=0\n'}, ""),
            "chlaunch",
            "problem",
            "exit code 0",
        ),
        (IDLE, Step({}, "", late=True), "node", "problem", "idle, but no answer in 9 s"),
        (IDLE, Step({"n1": "exit=143\n"}, "", late=True), "node", "problem", "idle, but no answer in 9 s"),
        (IDLE, Step({"n1": "exit=127\n"}, "", late=True), "chlaunch", "problem", "(exit code 127)"),
        (IDLE, Step({}, "srun: error: n1: task 0: Killed\n"), "node", "problem", "n1: task 0: Killed"),
        (
            IDLE,
            Step({}, "srun: error: Unable to allocate resources: busy\n"),
            "node",
            "warning",
            "not looked at",
        ),
        (IDLE, Step({}, ""), "node", "problem", "no word"),
        (Node("n1", "down*", "22.05.8"), None, "node", "warning", "down*: not looked at"),
        (
            Node("n1", "idle", "22.05.9"),
            Step({"n1": GOOD}, ""),
            "slurmd",
            "warning",
            "22.05.9, but srun here is 22.05.8",
        ),
        (Node("n1", "idle", "24.11.1"), Step({"n1": GOOD}, ""), "slurmd", "problem", "24.11.1, but"),
    ],
)
def test_judge(node: Node, step: Step | None, name: str, verdict: str, found: str) -> None:
    rows = {row.name: row for row in nodes.judge(HERE, node, step, "/p/ch-doctor", 9).rows}
    assert rows[name].verdict == verdict
    assert found in rows[name].found


def test_findings_are_folded() -> None:
    hosts = [
        Host("here", (fine("a", "1 MiB"), problem("b", "no b", "get it"))),
        *(Host(f"n{number}", (fine("a", f"{number} MiB"),)) for number in range(1, 4)),
        Host("n9", (warning("a", "none", "make room"),)),
    ]
    assert list(nodes.as_lines(hosts)) == [
        "  ok       here,n[1-3]      a: 1 MiB (here)",
        "  warning  n9               a: none",
        "                            -> make room",
        "  problem  here             b: no b",
        "                            -> get it",
        "",
        "1 problem, 1 warning",
    ]
    assert nodes.exit_code(hosts) == 2
    assert nodes.exit_code(hosts[1:]) == 1


def test_many_odd_names_have_a_line() -> None:
    hosts = [Host(name, (fine("a", "well"),)) for name in ("alpha", "beta", "gamma", "delta")]
    hosts.append(Host("epsilon", ()))
    first, second, *_ = nodes.as_lines(hosts)
    assert first == "  ok       alpha,beta,gamma,delta"
    assert second == " " * 28 + "a: well"


def test_answers() -> None:
    # n1's whole, n2's cut, n3's no base64, a line of somebody else's
    lines = [
        "ch-site n1 aGVs",
        "ch-site n2 aGVsbG8K",
        "srun: hm",
        "ch-site n1 bG8KZXhpdD0wCg==",
        "ch-site n3 abc",
    ]
    assert cluster.answers("\n".join(lines) + "\n") == {"n1": "hello\nexit=0\n"}


def test_the_step_is_a_job_of_its_own() -> None:
    kept = cluster.own_job(
        {"SLURM_CONF": "/c", "SLURM_JOB_ID": "1", "CHLAUNCH_IMAGE": "x", "SRUN_X": "", "HOME": "/h"}
    )
    assert kept == {"SLURM_CONF": "/c", "HOME": "/h"}
