"""Looking into images: links as the kernel follows them, and what matters to a launch."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from chlaunch.errors import ImageError
from chlaunch.launch import cache, flavour
from chlaunch.launch.image import Asked
from chlaunch.launch.inspect import inspect
from chlaunch.launch.loader import expand
from chlaunch.launch.view import View
from chlaunch.rootfs import Rootfs, open_image, storage_directory


def test_links_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    for name, target in {
        "absolute": "/a/b",
        "relative": "a/b",
        "up": "../../../../a/b/file",
        "chain": "absolute/file",
        "loop": "loop",
        "out": "../file",
        "dangling": "/nowhere/../a/b/file",
    }.items():
        (root / name).symlink_to(target)
    rootfs = Rootfs(str(root))
    for path in ("absolute/file", "/relative/file", "up", "chain", "a/../../a/./b/file"):
        assert rootfs.text(path) == "inside", path
    for path in ("loop", "out", "dangling", "a/b/file/x"):
        assert rootfs.locate(path) is None, path
    assert rootfs.names("absolute") == ("file",)
    assert rootfs.names("a/b/file") == rootfs.names("nowhere") == ()


STORAGE = "/no/storage"


def test_open_image(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_image("./image/../image/", STORAGE) == open_image("image", STORAGE) == Rootfs(str(image))
    (tmp_path / "file").write_text("hsq")
    (tmp_path / "empty").mkdir()
    (tmp_path / "part/dev").mkdir(parents=True)
    (tmp_path / "part/proc").touch()
    os.mkfifo(tmp_path / "fifo")
    for word, message in {
        "./nowhere": "can't find image: ./nowhere: No such file or directory",
        "nowhere": "can't find image: nowhere (nor in storage: /no/storage): No such file or directory",
        "./file/x": "can't find image: ./file/x: Not a directory",
        "./file": "unknown image type: ./file",
        "./fifo": "unknown image type: ./fifo",
        "./empty": "image has no /dev: ./empty",
        "./part": "image has no /proc: ./part",
        f"./{'x' * 300}": f"can't open image: ./{'x' * 300}: File name too long",
    }.items():
        with pytest.raises(ImageError) as caught:
            open_image(word, STORAGE)
        assert caught.value.message == message
        assert caught.value.hint
        assert caught.value.exit_code == 31


def test_an_erofs_file_is_not_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "image.file"
    path.write_bytes(b"\0" * 1024 + b"\xe2\xe1\xf5\xe0")
    found = open_image(str(path), STORAGE)
    assert found == Rootfs(str(path), unseen="an EROFS file")
    assert (found.locate("/"), found.names("/"), found.text("/etc/passwd")) == (None, (), "")
    seen = inspect(found, flavour.load())
    assert (seen.mpis, seen.parts, seen.mpirun, seen.has_environment) == ((), (), "", False)
    assert "an EROFS file" in seen.speaks
    path.write_bytes(b"\0" + path.read_bytes())
    with pytest.raises(ImageError, match="unknown image type"):
        open_image(str(path), STORAGE)


def test_images_in_storage(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "storage"
    for name in ("image", "debian+12", "site%app+1"):
        (storage / "images" / name).mkdir(parents=True)
        (storage / "images" / name / "layers").write_text("1a\n")
    (storage / "l/1a").mkdir(parents=True)
    (storage / "images/link").symlink_to("image")

    def found(word: str) -> Rootfs | None:
        try:
            return open_image(word, str(storage))
        except ImageError:
            return None

    for name in ("image", "debian:12", "site/app:1"):
        assert found(name) == Rootfs(name, str(storage))
    assert found("./image") == found(str(image)) == Rootfs(str(image))
    for name in ("link", "debian", "debian:12/", "", ".", "..", "./debian:12"):
        assert found(name) is None, name
    for needed in ("dev", "proc", "sys"):
        (tmp_path / "site/app:1" / needed).mkdir(parents=True)
    assert found("site/app:1") == Rootfs(str(tmp_path / "site/app:1"))


def test_where_storage_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"USER": "alice", "CH_IMAGE_STORAGE": "/s/./t"}
    assert storage_directory("here", environment) == f"{tmp_path}/here"
    assert storage_directory("", environment) == "/s/t"
    assert storage_directory("", {"USER": "alice", "CH_IMAGE_STORAGE": ""}) == "/var/tmp/alice.ch"
    assert storage_directory("", {"USER": "a/b", "LOGNAME": "bob"}) == "/var/tmp/bob.ch"
    assert storage_directory("", {}) == "/var/tmp/user.ch"


def test_open_mpi_is_found(image: Path) -> None:
    found = inspect(Rootfs(str(image)), flavour.load())
    assert found.mpi is not None
    assert (found.mpi.flavour.name, found.mpi.version, found.mpirun) == ("openmpi", "4.1.4", "mpirun.openmpi")
    assert found.speaks == "Open MPI 4.1.4"
    assert not found.has_environment


def test_an_mpi_in_opt_with_an_environment_of_its_own(tmp_path: Path) -> None:
    for name in ("dev", "opt/ompi/lib", "opt/ompi/bin", "ch"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "opt/ompi/lib/libmpi.so.40").write_bytes(b"Open MPI v%d")
    (tmp_path / "opt/ompi/bin/mpirun").touch()
    found = inspect(Rootfs(str(tmp_path)), flavour.load())
    assert (found.speaks, found.mpirun) == ("Open MPI", "/opt/ompi/bin/mpirun")
    (tmp_path / "ch/environment").write_text("PATH=/opt/ompi/bin:/usr/bin\nLD_LIBRARY_PATH='/opt/ompi/lib'\n")
    found = inspect(Rootfs(str(tmp_path)), flavour.load())
    assert (found.speaks, found.mpirun, found.has_environment) == ("Open MPI", "mpirun", True)


def test_an_mpirun_that_path_does_not_have(tmp_path: Path) -> None:
    for name in ("usr/lib64/openmpi/lib", "usr/lib64/openmpi/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/lib64/openmpi/lib/libmpi.so.40").symlink_to("libmpi.so.40.40.7")
    (tmp_path / "usr/lib64/openmpi/lib/libmpi.so.40.40.7").write_bytes(b"Open MPI v%d\0v5.0.7rc2\0")
    (tmp_path / "usr/lib64/openmpi/bin/mpirun").touch()
    found = inspect(Rootfs(str(tmp_path)), flavour.load())
    assert (found.speaks, found.mpirun) == ("Open MPI 5.0.7", "/usr/lib64/openmpi/bin/mpirun")


@pytest.mark.parametrize(
    ("name", "text", "speaks"),
    [
        ("libmpich.so.12", b"", "an MPI we have no description of (libmpich.so.12)"),
        ("libmpi.so.12", b"other", "an MPI we have no description of (libmpi.so.12)"),
        ("libmpi.so.12", b"|MPICH Version:\t%s|2.0|4.0|", "MPICH 4.0"),
        ("libmpi.so.12", b"|MPICH Version:|MVAPICH2 Version:|2.3.7|", "MVAPICH 2.3.7"),
        ("libmpi.so.12", b"Intel(R) MPI Library %s|2019.9.304|", "Intel MPI 2019.9.304"),
        ("libmpi.so.20", b"Open MPI v%d.%d.%d|v2.1.1|", "Open MPI 2.1.1"),
        ("libmpi_gnu_123.so.12", b"MPICH Version:|CRAY MPICH version 8.1.29.3 (ANL", "Cray MPICH 8.1.29"),
        ("libmpi_abi.so.1", b"|MPICH Version:|5.0.2|", "MPICH 5.0.2"),
        ("libmpi_mpifh.so.40", b"Open MPI v%d", "no MPI"),
        ("libmpi.so", b"", "no MPI"),
    ],
)
def test_libraries_by_name_and_text(tmp_path: Path, name: str, text: bytes, speaks: str) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib" / name).write_bytes(text.replace(b"|", b"\0"))
    assert inspect(Rootfs(str(tmp_path)), flavour.load()).speaks == speaks


def test_the_mpirun_of_another_mpi_is_not_taken(tmp_path: Path) -> None:
    for name in ("usr/lib", "usr/bin", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/lib/libmpi.so.40").write_bytes(b"Open MPI v%d\0v4.1.8\0")
    (tmp_path / "usr/local/bin/mpirun").write_text("hydra")
    found = inspect(Rootfs(str(tmp_path)), flavour.load())
    assert (found.speaks, found.mpirun) == ("Open MPI 4.1.8", "")
    (tmp_path / "usr/bin/mpirun").touch()
    assert inspect(Rootfs(str(tmp_path)), flavour.load()).mpirun == "/usr/bin/mpirun"


def test_a_link_from_the_home_into_the_image(tmp_path: Path) -> None:
    image, home = tmp_path / "image", tmp_path / "home"
    (image / "opt/python/bin").mkdir(parents=True)
    (home / "venv/bin").mkdir(parents=True)
    (image / "opt/python/bin/python3.99").write_text("in the image")
    (image / "there").symlink_to("/home/alice/venv")
    (home / "venv/bin/python").symlink_to("python3")
    (home / "venv/bin/python3").symlink_to("/opt/python/bin/python3.99")
    view = View(Rootfs(str(image)), (("/home/alice", str(home)),))
    assert view.locate("/home/alice/venv/bin/python") == "/opt/python/bin/python3.99"
    assert view.text("/there/bin/python") == "in the image"
    assert view.names("/there/bin") == ("python", "python3")
    (home / "loop").symlink_to("/home/alice/loop")
    assert view.locate("/home/alice/loop") is None
    assert not view.is_file("/home/alice/nothing")


def sparse_elf(path: Path, **header: int) -> None:
    """Make an ELF file of 1 TiB of nothing whose header says so much of something."""
    elf = bytearray(Path("/bin/true").resolve().read_bytes()[:4096])
    for at, size, value in ((56, 2, header.get("segments")), (60, 2, header.get("sections"))):
        if value is not None:
            elf[at : at + size] = value.to_bytes(size, "little")
    first = 8192
    elf[32:48] = first.to_bytes(8, "little") * 2  # e_phoff and e_shoff
    path.write_bytes(elf)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        file.seek(first + 32)
        file.write((1 << 32).to_bytes(8, "little"))  # sh_size of section 0: the number of sections
        file.seek(first + 44)
        file.write((0xFFFFFFFF).to_bytes(4, "little"))  # sh_info of it: the number of segments


@pytest.mark.parametrize("header", [{"segments": 0xFFFF}, {"sections": 0}])
def test_a_header_that_promises_too_much(image: Path, header: dict[str, int]) -> None:
    sparse_elf(image / "usr/lib/x86_64-linux-gnu/openmpi/lib/libmpi.so.40.30.4", **header)
    sparse_elf(image / "usr/bin/app", **header)
    start = time.monotonic()
    with suppress(ImageError):  # "takes too long"
        inspect(Rootfs(str(image)), flavour.load(), Asked(("/usr/bin/app",)))
    assert time.monotonic() - start < 60


def test_directories_without_end(image: Path) -> None:
    (image / "etc/ld.so.conf.d").mkdir()
    (image / "etc/ld.so.conf").write_text("include ld.so.conf.d/*\n")
    for file in range(25):
        lines = "".join(f"/opt/{file}/{number}\n" for number in range(90_000))
        (image / f"etc/ld.so.conf.d/{file}").write_text(lines)
    shutil.copy("/bin/ls", image / "usr/bin/app")
    with pytest.raises(ImageError, match="takes too long to look into"):
        inspect(Rootfs(str(image)), flavour.load(), Asked(("/usr/bin/app",)))


def test_what_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libmpi.so.40").write_bytes(b"Open MPI v%d\0v4.0.3\0")
    found = inspect(Rootfs(str(tmp_path)), flavour.load())
    assert [part.title for part in found.parts] == ["PMIx 3.2"]


def test_a_link_to_nothing_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libmpi.so.40").symlink_to("libmpi.so.40.30.4")
    assert inspect(Rootfs(str(tmp_path)), flavour.load()).speaks == "no MPI"


def test_what_a_site_shows_hides_nothing_where_the_host_lacks_it(image: Path, tmp_path: Path) -> None:
    (image / "opt/nowhere/bin").mkdir(parents=True)
    shutil.copy("/bin/true", image / "opt/nowhere/bin/app")
    asked = Asked(words=("/opt/nowhere/bin/app",), shown=(("/opt/nowhere", "/opt/nowhere"),))
    found = cache.inspect(Rootfs(str(image)), flavour.load(), asked, {"HOME": str(tmp_path)})
    assert found.command == "/opt/nowhere/bin/app"


def test_expand(image: Path) -> None:
    view = View(Rootfs(str(image)))
    assert expand(view, ("/usr/lib/*-linux-*", "/nowhere/*/x")) == ["/usr/lib/x86_64-linux-gnu"]
