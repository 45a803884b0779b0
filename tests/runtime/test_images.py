"""What an image may be: a directory, a name in storage, a SquashFS or SIF file, or /; and the command it brings."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime import Runtime

HEADER, DESCRIPTOR = 128, 585
PARTITION, LABELS = 0x4004, 0x4003
SQUASHFS, EXT3, ENCRYPTED = 1, 2, 5
PRIMARY, DATA = 2, 3


def fails(runtime: Runtime, words: list[str], code: str, message: str) -> None:
    result = runtime(*words)
    assert result.returncode == 31, result
    assert message in result.stderr
    assert f"[{code}]" in result.stderr


class TestSif:
    """SIF: a header, descriptors, and somewhere a partition with SquashFS in it."""

    def sif(self, runtime: Runtime, squashfs: str, *rows: tuple[int, int, int], **header: int) -> str:
        """Write a SIF whose descriptors are rows (type, file system, role), all of one partition."""
        content = runtime.machine.outside(squashfs).read_bytes()
        start = 8192  # aligned as sif does it
        table = b""
        for kind, system, role in rows:
            table += struct.pack("<i?IIIqqq", kind, True, 1, 1, 0, start, len(content), len(content))  # noqa: FBT003
            table += bytes(32 + 128) + struct.pack("<ii3s", system, role, b"02").ljust(384, b"\0")
        count, offset = header.get("count", len(rows)), header.get("offset", 4096)
        top = (
            b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\x0002\0" + bytes(16 + 16)
        )
        top += struct.pack("<qqqqqq", 0, count, offset, len(table), start, len(content))
        whole = (top.ljust(4096, b"\0") + table).ljust(start, b"\0") + content[: header.get("cut")]
        path = runtime.machine.outside("/home/alice/image.sif")
        path.write_bytes(whole)
        return "/home/alice/image.sif"

    def test_primary_partition(self, runtime: Runtime, squashfs: str) -> None:
        rows = ((LABELS, 0, 0), (PARTITION, EXT3, DATA), (PARTITION, SQUASHFS, PRIMARY))
        image = self.sif(runtime, squashfs, *rows)
        assert runtime(image, "--", "readlink", "/bin").stdout == "usr/bin\n"

    def test_run_script(self, runtime: Runtime) -> None:
        script = "mkdir .singularity.d && printf '#!/bin/sh\\necho run \"$@\"\\n' >.singularity.d/runscript"
        directory = runtime.copy_image("scripted", f"{script} && chmod +x .singularity.d/runscript")
        image = self.sif(runtime, runtime.squash("scripted.sqfs", directory), (PARTITION, SQUASHFS, PRIMARY))
        assert runtime(image).stdout == "run\n"
        assert runtime(image, "--", "-", "a", "b").stdout == "run a b\n"

    @pytest.mark.parametrize(
        ("rows", "header", "message"),
        [
            ([], {}, "it has no partition with a root file system"),
            ([(LABELS, SQUASHFS, PRIMARY)], {}, "it has no partition with a root file system"),
            ([(PARTITION, SQUASHFS, DATA)], {}, "it has no partition with a root file system"),
            ([(PARTITION, EXT3, PRIMARY)], {}, "its root file system is no SquashFS"),
            ([(PARTITION, ENCRYPTED, PRIMARY)], {}, "its root file system is encrypted"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"count": 1 << 40}, "its SIF header makes no sense"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": 1 << 60}, "its SIF header makes no sense"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": -1}, "its SIF header makes no sense"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"offset": 3}, "it has no partition with a root file system"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"cut": 0}, "it ends after 8192 of 8288 bytes"),
            ([(PARTITION, SQUASHFS, PRIMARY)], {"cut": 5000}, "it ends after 5000 of"),
        ],
    )
    def test_damaged(
        self,
        runtime: Runtime,
        squashfs: str,
        rows: list[tuple[int, int, int]],
        header: dict[str, int],
        message: str,
    ) -> None:
        image = self.sif(runtime, squashfs, *rows, **header)
        fails(runtime, [image, "--", "true"], "CH-0015", f"can't be served: {image}: {message}")


class TestFile:
    """What is in a file says what it is, not its name."""

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda data: data[:50_000], "it ends after 50000 of"),
            (lambda data: data[:60], "it ends after 60 of 96 bytes"),
            (lambda data: data[:28] + b"\3\0\0\0" + data[32:], "not of SquashFS version 4.0"),
            (lambda data: data[:12] + b"\1\0\0\0" + data[16:], "its SquashFS block size is impossible"),
            (lambda data: data[:20] + b"\x63" + data[21:], "its SquashFS compression is unknown"),
        ],
    )
    def test_damaged_squashfs(
        self, runtime: Runtime, squashfs: str, damage: Callable[[bytes], bytes], message: str
    ) -> None:
        file = runtime.machine.outside("/home/alice/bad.sqfs")
        file.write_bytes(damage(runtime.machine.outside(squashfs).read_bytes()))
        fails(runtime, ["bad.sqfs", "--", "true"], "CH-0015", f"bad.sqfs: {message}")

    def test_damage_that_only_the_server_sees(self, runtime: Runtime, squashfs: str) -> None:
        data = bytearray(runtime.machine.outside(squashfs).read_bytes())
        data[96:] = bytes(len(data) - 96)
        runtime.machine.outside("/home/alice/zero.sqfs").write_bytes(data)
        result = runtime("zero.sqfs", "--", "true")
        assert result.returncode == 84
        assert "zero.sqfs: squashfuse_ll" in result.stderr
        assert "[CH-0074]" in result.stderr

    def test_other_kinds(self, runtime: Runtime) -> None:
        fails(runtime, ["/etc/passwd", "--", "true"], "CH-0012", "unknown image type: /etc/passwd")
        fails(runtime, ["/dev/null", "--", "true"], "CH-0012", "unknown image type: /dev/null")
        runtime.machine.run("touch ~/empty.sqfs; mkfifo ~/pipe", check=True)
        fails(runtime, ["empty.sqfs", "--", "true"], "CH-0012", "unknown image type: empty.sqfs")
        fails(runtime, ["pipe", "--", "true"], "CH-0012", "unknown image type: pipe")
        runtime.machine.run("chmod 0 ~/empty.sqfs", check=True)
        fails(
            runtime,
            ["empty.sqfs", "--", "true"],
            "CH-0013",
            "can't open image: empty.sqfs: Permission denied",
        )

    def test_names_mean_nothing(self, runtime: Runtime, squashfs: str) -> None:
        runtime.machine.run(f"cp {squashfs} ~/picture.jpg", check=True)
        directory = runtime.copy_image("directory.sqfs")
        for image in ("picture.jpg", directory):
            assert runtime(image, "--", "echo", "here").stdout == "here\n"

    def test_erofs_without_its_server(self, runtime: Runtime) -> None:
        header = bytearray(8192)
        header[1024:1028] = struct.pack("<I", 0xE0F5E1E2)
        header[1036] = 12
        header[1060:1064] = struct.pack("<I", 2)
        file = runtime.machine.outside("/home/alice/image.erofs")
        file.write_bytes(header)
        if runtime.machine.run("command -v erofsfuse").returncode:
            fails(
                runtime, ["image.erofs", "--", "true"], "CH-0073", "image.erofs needs erofsfuse, of package"
            )
        header[1060:1064] = struct.pack("<I", 3)
        file.write_bytes(header)
        fails(runtime, ["image.erofs", "--", "true"], "CH-0015", "it ends after 8192 of 12288 bytes")


class TestStorage:
    """Images of ch-image by their names: stacks of layers."""

    @pytest.fixture
    def storage(self, runtime: Runtime) -> Path:
        """Return a storage directory made by hand: the small image in two layers, changes in a third."""
        runtime.machine.run("rm -rf ~/store; mkdir -p ~/store/layers", check=True)
        base = runtime.copy_image(
            "store/layers/aaaa", "rm etc/passwd usr/bin/vi; mkdir opt/gone opt/kept opt/new"
        )
        outside = runtime.machine.outside
        for number, layer in enumerate(("bbbb", "cccc")):
            runtime.machine.run(f"mkdir -p {base}/../{layer}/etc {base}/../{layer}/opt/kept", check=True)
            outside(f"/home/alice/store/layers/{layer}/etc/layer{number}").write_text(f"{layer}\n")
        runtime.machine.run(
            f"cp {runtime.image}/etc/passwd {base}/../bbbb/etc/; touch {base}/opt/kept/old", check=True
        )
        top = outside("/home/alice/store/layers/cccc")
        runtime.machine.root("mknod /home/alice/store/layers/cccc/opt/gone c 0 0")
        os.setxattr(top / "opt/kept", "user.overlay.opaque", b"y")
        script = (
            "mkdir l 'images' && for n in 1a:aaaa 2:bbbb zz9:cccc; do ln -s ../layers/${n#*:} l/${n%:*}; done"
        )
        runtime.machine.run(f"cd ~/store && {script}", check=True)
        self.tag(runtime, "localhost+5000%mpi%demo+1.0", "1a\n2\nzz9\n")
        return outside("/home/alice/store")

    def tag(self, runtime: Runtime, name: str, layers: str) -> None:
        directory = f"/home/alice/store/images/{name}"
        runtime.machine.run(["mkdir", "-p", directory], check=True)
        runtime.machine.outside(f"{directory}/layers").write_text(layers)

    NAME = "localhost:5000/mpi/demo:1.0"
    WORDS = ("-s", "/home/alice/store")

    @pytest.mark.usefixtures("storage")
    def test_stack(self, runtime: Runtime) -> None:
        script = (
            "cat /etc/layer0 /etc/layer1; ls /opt /opt/kept; ls /usr/bin/vi; head -n1 /etc/passwd; touch /x"
        )
        result = runtime(*self.WORDS, "-b", "/home/alice:/gpfs", self.NAME, "--", "sh", "-c", script)
        assert result.stdout.split()[:7] == [
            "bbbb",
            "cccc",
            "/opt:",
            "kept",
            "new",
            "/opt/kept:",
            "alice:x:" + result.stdout.split(":x:")[1].split()[0],
        ]
        assert "Read-only file system" in result.stderr

    @pytest.mark.usefixtures("storage")
    def test_where_storage_is(self, runtime: Runtime) -> None:
        by_variable = runtime.shell(
            f"$CH_RUN {self.NAME} -- cat /etc/layer1", env={"CH_IMAGE_STORAGE": "/home/alice/store"}
        )
        assert by_variable.stdout == "cccc\n"
        user = f"alice{os.getpid()}"  # /var/tmp is the host's, where other tests and alices may be
        runtime.machine.run(f"ln -s ~/store /var/tmp/{user}.ch", check=True)
        try:
            result = runtime(self.NAME, "--", "cat", "/etc/layer1", env={"USER": user})
            assert result.stdout == "cccc\n"
        finally:
            runtime.machine.run(f"rm /var/tmp/{user}.ch", check=True)

    @pytest.mark.usefixtures("storage")
    def test_name_before_path(self, runtime: Runtime) -> None:
        """A word that is both is the image in storage; a slash or dot in front makes it a path."""
        self.tag(runtime, "both", "1a\n2\n")
        runtime.copy_image("both", "echo path >etc/layer0")
        for word, seen in (("both", "bbbb\n"), ("./both", "path\n"), ("/home/alice/both", "path\n")):
            assert runtime(*self.WORDS, word, "--", "cat", "/etc/layer0").stdout == seen

    @pytest.mark.usefixtures("storage")
    def test_one_layer_and_many(self, runtime: Runtime) -> None:
        self.tag(runtime, "one", "1a\n")
        assert runtime(*self.WORDS, "one", "--", "ls", "/opt").stdout.split() == ["gone", "kept", "new"]
        script = "for i in $(seq 300); do mkdir -p layers/x$i/opt; touch layers/x$i/opt/f$i; ln -s ../layers/x$i l/x$i; done"
        runtime.machine.run(f"cd ~/store && {script}", check=True)
        self.tag(runtime, "many", "".join(["1a\n", *(f"x{number + 1}\n" for number in range(300))]))
        assert runtime(*self.WORDS, "many", "--", "sh", "-c", "ls /opt/f* | wc -l").stdout == "300\n"

    @pytest.mark.usefixtures("storage")
    def test_write_fake_over_layers(self, runtime: Runtime) -> None:
        for scope in ("node", "rank"):
            words = (*self.WORDS, f"--write-fake-scope={scope}", "-j", self.NAME, "--")
            assert runtime(*words, "sh", "-c", "rm -r /opt/kept && touch /usr/y && ls /opt").stdout == "new\n"
        assert runtime(*self.WORDS, self.NAME, "--", "ls", "/opt").stdout == "kept\nnew\n"

    @pytest.mark.usefixtures("storage")
    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            ("", "its list of layers is empty, cut off or too long"),
            ("1a\n2", "its list of layers is empty, cut off or too long"),
            ("1a\n\n", "can't use layer 2: "),
            ("1a\n../../etc\n", "can't use layer 2: ../../etc"),
            ("1a\n2:3\n", "can't use layer 2: 2:3"),
            ("1a\n2\0\n", "its list of layers is empty, cut off or too long"),
            ("nowhere\n", "layer l/nowhere: No such file or directory"),
            ("1a\n" * 501, "can't use layer 501: 1a"),
        ],
    )
    def test_damaged(self, runtime: Runtime, layers: str, message: str) -> None:
        self.tag(runtime, "bad", layers)
        fails(
            runtime,
            [*self.WORDS, "bad", "--", "true"],
            "CH-0018",
            f"can't use image in storage: bad: {message}",
        )

    @pytest.mark.usefixtures("storage")
    def test_missing_layer_of_several(self, runtime: Runtime) -> None:
        self.tag(runtime, "bad", "1a\nnowhere\n")
        message = "can't use image in storage: bad: layer l/nowhere: No such file"
        fails(runtime, [*self.WORDS, "bad", "--", "true"], "CH-0018", message)
        self.tag(runtime, "bad", "1a\n2\nnowhere\n")
        message = "can't mount overlay: bad: No such file"
        fails(runtime, [*self.WORDS, "bad", "--", "true"], "CH-0039", message)

    @pytest.mark.usefixtures("storage")
    def test_write_is_refused(self, runtime: Runtime) -> None:
        fails(runtime, [*self.WORDS, "-w", self.NAME, "--", "true"], "CH-0016", "--write is impossible")

    def test_no_such_name(self, runtime: Runtime) -> None:
        message = "can't find image: nosuch (nor in storage: /var/tmp/alice.ch): No such file or directory"
        fails(runtime, ["nosuch", "--", "true"], "CH-0011", message)


class TestHost:
    """The image / is the host's own root directory."""

    def test_nothing_changes(self, runtime: Runtime) -> None:
        script = "ls -id / /usr /tmp /etc/passwd; echo $HOME $PATH $TMPDIR; id -un"
        on_host = runtime.machine.run(["sh", "-c", script], env={"TMPDIR": "/var/tmp"}).stdout
        assert runtime("/", "--", "sh", "-c", script, env={"TMPDIR": "/var/tmp"}).stdout == on_host
        assert runtime("//", "--", "sh", "-c", "echo $CH_RUNNING").stdout == "Weird Al Yankovic\n"

    def test_binds(self, runtime: Runtime) -> None:
        runtime.machine.run("mkdir -p ~/data; echo content >~/data/file", check=True)
        assert runtime("-b", "data:/mnt", "/", "--", "cat", "/mnt/file").stdout == "content\n"
        assert "file" not in runtime.machine.run("ls -A /mnt").stdout
        words = ["-b", "data:/mnt/deep", "/", "--", "true"]
        fails(runtime, words, "CH-0034", "destination missing inside another mount: /mnt/deep")

    def test_write_fake_is_refused(self, runtime: Runtime) -> None:
        fails(
            runtime, ["-W", "/", "--", "true"], "CH-0017", "not possible where the image is /: --write-fake"
        )


def words_file(*words: str) -> bytes:
    """Return what /ch/entrypoint holds."""
    return b"angi" + b"".join(struct.pack(">I", len(word.encode())) + word.encode() for word in words)


class TestCommand:
    """ENTRYPOINT and CMD, where no command is given."""

    def image(self, runtime: Runtime, entrypoint: bytes | None, cmd: bytes | None) -> str:
        path = runtime.copy_image("commanded", "mkdir ch")
        for name, content in (("entrypoint", entrypoint), ("cmd", cmd)):
            if content is not None:
                runtime.machine.outside(f"{path}/ch/{name}").write_bytes(content)
        return path

    @pytest.mark.parametrize(
        ("entrypoint", "cmd", "given", "output"),
        [
            (["echo", "e f"], None, [], "e f\n"),
            (None, ["echo", "c"], [], "c\n"),
            (["echo", "e"], ["c", ""], [], "e c \n"),
            (["echo", "e"], ["c"], ["--"], "e c\n"),
            (["echo", "e"], ["c"], ["--", "-"], "e c\n"),
            (["echo", "e"], ["c"], ["--", "-", "g"], "e g\n"),
            (None, ["echo", "c"], ["--", "-", "echo", "g"], "g\n"),
            (["echo", "e"], ["c"], ["--", "echo", "-"], "-\n"),
        ],
    )
    def test_words(
        self,
        runtime: Runtime,
        entrypoint: list[str] | None,
        cmd: list[str] | None,
        given: list[str],
        output: str,
    ) -> None:
        files = [words_file(*words) if words is not None else None for words in (entrypoint, cmd)]
        result = runtime(self.image(runtime, *files), *given)
        assert (result.returncode, result.stdout, result.stderr) == (0, output, "")

    def test_none(self, runtime: Runtime) -> None:
        message = "no CMD, ENTRYPOINT, or command specified: "
        fails(runtime, [runtime.image], "CH-0053", message)
        fails(runtime, [runtime.image, "--"], "CH-0053", message)
        fails(runtime, [runtime.image, "--", "-"], "CH-0053", message)
        fails(runtime, [self.image(runtime, words_file(), words_file())], "CH-0053", message)

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"ang",
            b"json[]",
            b"angi\0\0\0",
            b"angi\0\0\0\5echo",
            b"angi\xff\xff\xff\xffecho",
            b"angi\0\0\0\4ec\0o",
        ],
    )
    def test_damaged(self, runtime: Runtime, damage: bytes) -> None:
        image = self.image(runtime, damage, None)
        fails(runtime, [image], "CH-0054", "can't read the image's ENTRYPOINT or CMD: /ch/entrypoint")
        assert runtime(image, "--", "echo", "fine").stdout == "fine\n"
