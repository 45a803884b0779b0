"""What real images and the commands in them speak, told from their files alone."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from chlaunch.launch import flavour
from chlaunch.launch.cache import inspect as cached
from chlaunch.launch.image import Asked, Image
from chlaunch.launch.inspect import inspect
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from pathlib import Path

FLAVOURS = flavour.load()


def look(image: Path, *words: str, shown: str = "", **variables: str) -> Image:
    """Return what a command in an image speaks."""
    asked = Asked(words, variables, {}, shown or "/", ((shown, shown),) if shown else ())
    return inspect(Rootfs(str(image)), FLAVOURS, asked)


@pytest.mark.parametrize(
    ("name", "words", "speaks", "parts", "mpirun"),
    [
        ("ompi4", ("python3", "x"), "Open MPI 4.1.4", {"pmix": "4.2.2", "ucx": "1.13.1"}, "mpirun.openmpi"),
        ("ompi5", ("python3",), "Open MPI 5.0.7", {"pmix": "5.0.7", "libfabric": "2.1.0"}, "mpirun.openmpi"),
        ("ompi5", ("env", "A=b", "python3"), "Open MPI 5.0.7", {"ucx": "1.18.1"}, "mpirun.openmpi"),
        ("ompi4", ("/usr/bin/ompi_info",), "Open MPI 4.1.4", {"psm2": ""}, "mpirun.openmpi"),
        ("mpich4", ("mpichversion",), "MPICH 4.0.2", {"ucx": "1.13.1"}, "mpirun.mpich"),
        ("mpich4", ("/opt/mpi4py/bin/python3",), "MPICH 4.0.2", {"ucx": "1.13.1"}, "mpirun.mpich"),
        (
            "wheels",
            ("/opt/mpich3/bin/python3",),
            "MPICH 3.4.3",
            {"ucx": "1.18.1"},
            "/opt/mpich3/bin/mpiexec.hydra",
        ),
        (
            "wheels",
            ("/opt/mpich4/bin/python",),
            "MPICH 4.2.3",
            {"libfabric": "1.22.0"},
            "/opt/mpich4/bin/mpiexec.hydra",
        ),
        (
            "wheels",
            ("/opt/mpich5/bin/python3",),
            "MPICH 5.0.2",
            {"ucx": "1.20.1"},
            "/opt/mpich5/bin/mpiexec.hydra",
        ),
        (
            "wheels",
            ("/opt/openmpi5/bin/python3",),
            "Open MPI 5.0.11",
            {"pmix": "5.0.11"},
            "/opt/openmpi5/bin/mpirun",
        ),
        ("wheels", ("/opt/intel/bin/python3",), "Intel MPI 2021.19.0", {}, "/opt/intel/bin/mpiexec.hydra"),
    ],
)
def test_commands_that_tell(  # noqa: PLR0913, PLR0917  columns
    request: pytest.FixtureRequest,
    name: str,
    words: tuple[str, ...],
    speaks: str,
    parts: dict[str, str],
    mpirun: str,
) -> None:
    found = look(request.getfixturevalue(f"image_{name}"), *words)
    assert (found.speaks, found.decided, found.plain, found.mpirun) == (speaks, True, False, mpirun)
    assert parts.items() <= {part.flavour.name: part.version for part in found.parts}.items()
    assert found.command


def test_machine_libc_and_munge(
    image_ompi4: Path, image_ompi5: Path, image_wheels: Path, image_tiny: Path
) -> None:
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    for image, libc in ((image_ompi4, "glibc 2.36"), (image_ompi5, "glibc 2.41")):
        found = look(image, "python3")
        assert (found.machine, found.libc) == (machine, libc)
        pmix = found.part("pmix")
        assert pmix
        assert pmix.features == {"munge"}
    pmix = look(image_wheels, "/opt/openmpi5/bin/python3").part("pmix")
    assert pmix
    assert pmix.features == set()
    assert look(image_tiny, "true").machine == machine


def test_commands_that_do_not_tell(image_ompi5: Path, image_wheels: Path) -> None:
    shell = look(image_ompi5, "sh", "-c", "app")
    assert (shell.speaks, shell.decided, shell.plain) == ("Open MPI 5.0.7", False, False)
    plain = look(image_ompi5, "/bin/true")
    assert (plain.speaks, plain.decided, plain.plain) == ("Open MPI 5.0.7", False, True)
    missing = look(image_ompi5, "no-such-command")
    assert (missing.command, missing.plain) == ("", False)
    several = look(image_wheels, "sh")
    assert {part.title for part in several.mpis} == {
        "Open MPI 5.0.11",
        "MPICH 3.4.3",
        "MPICH 4.2.3",
        "MPICH 5.0.2",
        "Intel MPI 2021.19.0",
    }
    # Its loader finds no libmpi.so.12, but it was installed beside one.
    lacking = look(image_wheels, "/opt/intel/bin/IMB-MPI1")
    assert (lacking.speaks, lacking.decided, lacking.plain) == ("Intel MPI 2021.19.0", False, False)


def test_scripts_and_programs_of_the_host(image_wheels: Path, image_ompi5: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#! /opt/mpich4/bin/python3 -u\n")
    (tmp_path / "loop").write_text(f"#!{tmp_path}/loop\n")
    assert look(image_wheels, "./script", shown=str(tmp_path)).speaks == "MPICH 4.2.3"
    assert not look(image_wheels, "./loop", shown=str(tmp_path)).decided
    assert look(image_wheels, f"{tmp_path}/script").command == ""
    shutil.copy(image_ompi5 / "usr/bin/ompi_info", tmp_path / "mine")  # built elsewhere
    mine = look(image_ompi5, "./mine", shown=str(tmp_path))
    assert (mine.speaks, mine.decided, mine.command) == ("Open MPI 5.0.7", True, f"{tmp_path}/./mine")


def compiled(tmp_path: Path, text: str, *options: str) -> str:
    """Compile a program that holds a text; return its name."""
    (tmp_path / "x.c").write_text(
        f'const char *volatile text = "{text}"; int main(void) {{ return !*text; }}\n'
    )
    subprocess.run(["cc", *options, "-o", tmp_path / "x", tmp_path / "x.c"], check=True)
    return "./x"


def test_static_and_stripped_programs(image_ompi4: Path, image_tiny: Path, tmp_path: Path) -> None:
    here = str(tmp_path)
    name = compiled(tmp_path, r"Open MPI v%d.%d.%d\0v3.1.6\0", "-static", "-s")
    found = look(image_tiny, name, shown=here)
    assert (found.speaks, found.decided) == ("Open MPI 3.1.6", True)
    assert [part.title for part in found.parts] == ["PMIx 2.2"]
    # sstrip(1) takes the section headers too: e_shoff, e_shnum and e_shstrndx are 0 then.
    whole = bytearray((tmp_path / "x").read_bytes())
    whole[40:48], whole[60:64] = bytes(8), bytes(4)
    (tmp_path / "x").write_bytes(whole)
    assert look(image_tiny, name, shown=here).speaks == "Open MPI 3.1.6"
    name = compiled(tmp_path, "no MPI", "-static")  # what it may start can't be told
    assert not look(image_ompi4, name, shown=here).plain
    assert look(image_ompi4, compiled(tmp_path, "no MPI"), shown=here).plain
    (tmp_path / "link").symlink_to("/usr/bin/true")
    assert look(image_ompi4, "./link", shown=here).plain  # a link to the image's
    for starts in ("nohup", "setsid", "timeout", "csh"):
        (tmp_path / starts).symlink_to("/usr/bin/nohup")
        assert not look(image_ompi4, f"./{starts}", shown=here).plain


def test_the_cache(image_wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script").write_text("#!/opt/mpich4/bin/python3\n")
    asked = Asked(("./script",), {}, {}, str(tmp_path), ((str(tmp_path), str(tmp_path)),))

    def speaks() -> str:
        return cached(Rootfs(str(image_wheels)), FLAVOURS, asked, {"HOME": str(tmp_path)}).speaks

    assert speaks() == "MPICH 4.2.3"
    (entry,) = (tmp_path / ".cache/chlaunch/images").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("chlaunch.launch.cache._look", None)  # what is kept is taken
        assert speaks() == "MPICH 4.2.3"
    for damage in (b"", b"{}", b"\xff", entry.read_bytes().replace(b'"mpich"', b'"other"')):
        entry.write_bytes(damage)
        assert speaks() == "MPICH 4.2.3"
    (tmp_path / "script").write_text("#!/opt/openmpi5/bin/python3\n")
    assert speaks() == "Open MPI 5.0.11"
    (tmp_path / ".cache/chlaunch/images").chmod(0)
    assert speaks() == "Open MPI 5.0.11"
