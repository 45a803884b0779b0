"""Builds: what COPY, ADD, RSYNC, WORKDIR and the settings make of an image, compared with what Docker documents."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from builds import Site
from made import Entries, archive

from chlaunch.errors import BuildError, ImageError
from chlaunch.image.manifest import parse_config

FILES: Mapping[str, str | bytes | None] = {
    "a.txt": "a",
    "b.txt": "b",
    "c.md": "c",
    "link": "->a.txt",
    "dir/one": "1",
    "dir/sub/two": "2",
    "dir/sub/link": "->two",
    "other/one": "other",
    "other/three": "3",
    "dirlink": "->dir",
}

COPIED: list[tuple[str, Mapping[str, str | None]]] = [
    ("COPY a.txt /new", {"/new": "a"}),
    ("COPY a.txt /new/", {"/new/a.txt": "a"}),
    ("COPY a.txt /home", {"/home/a.txt": "a"}),
    ("WORKDIR /w/x\nCOPY a.txt .", {"/w/x/a.txt": "a"}),
    ("WORKDIR /w\nCOPY a.txt sub/", {"/w/sub/a.txt": "a"}),
    ("WORKDIR /w\nCOPY a.txt ../up", {"/up": "a"}),
    ("COPY a.txt b.txt /d/", {"/d/a.txt": "a", "/d/b.txt": "b"}),
    ("COPY *.txt /d/", {"/d/a.txt": "a", "/d/b.txt": "b", "/d/c.md": None}),
    ("COPY [ab].txt c.m? /d/", {"/d/a.txt": "a", "/d/b.txt": "b", "/d/c.md": "c"}),
    ('COPY ["a.txt", "b.txt", "/d/"]', {"/d/a.txt": "a", "/d/b.txt": "b"}),
    ("COPY /a.txt ./b.txt /d/", {"/d/a.txt": "a", "/d/b.txt": "b"}),
    ("COPY dir /d", {"/d/one": "1", "/d/sub/two": "2", "/d/dir": None}),
    ("COPY dir/ /d/", {"/d/one": "1", "/d/sub/two": "2", "/d/dir": None}),
    ("COPY dir other /d/", {"/d/one": "other", "/d/sub/two": "2", "/d/three": "3"}),
    ("COPY d* /d/", {"/d/one": "1", "/d/sub/two": "2"}),
    ("COPY . /d/", {"/d/a.txt": "a", "/d/dir/sub/two": "2", "/d/link": "a"}),
    ("COPY link /d/", {"/d/link": "a", "/d/a.txt": None}),
    ("COPY dirlink /d/", {"/d/one": "1"}),
    ("COPY dirlink/one /d/", {"/d/one": "1"}),
    ("COPY --parents dir/sub/two a.txt /d/", {"/d/dir/sub/two": "2", "/d/a.txt": "a"}),
    ("COPY --parents ./dir/./sub/two /d", {"/d/sub/two": "2", "/d/dir": None}),
    ("COPY --parents dir /d", {"/d/dir/sub/two": "2"}),
    ("COPY --parents **/two /d/", {"/d/dir/sub/two": "2"}),
    ("COPY --exclude=*.md --exclude=dir . /d", {"/d/a.txt": "a", "/d/c.md": None, "/d/dir": None}),
    ("COPY --exclude=**/two dir /d", {"/d/one": "1", "/d/sub/two": None}),
    ("COPY --link a.txt /d/e/", {"/d/e/a.txt": "a"}),
    ("COPY a.txt /etc/passwd", {"/etc/passwd": "a"}),
    # Links on the way: /bin is one to usr/bin.
    ("COPY a.txt /bin/", {"/usr/bin/a.txt": "a", "/bin/a.txt": "a", "/usr/bin/sh": ""}),
    ("COPY --parents a.txt /bin", {"/usr/bin/a.txt": "a", "/usr/bin/sh": ""}),
    ("RUN ln -s /opt/later /l; ln -s etc /e\nCOPY a.txt /l", {"/opt/later": "a"}),
    ("RUN ln -s /opt/later /l\nCOPY a.txt /l/", {"/opt/later/a.txt": "a"}),
    ("RUN ln -s /opt/later /l\nCOPY a.txt /l/x/y", {"/opt/later/x/y": "a"}),
    ("RUN ln -s /etc/passwd /l\nCOPY a.txt /l", {"/etc/passwd": "a", "/l": "a"}),
    ("RUN mkdir -p /n/m && ln -s m /n/one\nCOPY dir /n", {"/n/one": "1"}),
    ("RUN rm -r /home\nCOPY a.txt /home/", {"/home/a.txt": "a"}),
    ("COPY <<one <<two /d/\n1$UNSET\none\n2\ntwo", {"/d/one": "1\n", "/d/two": "2\n"}),
    ("COPY <<EOF /d\nx\nEOF", {"/d": "x\n"}),
    ("ENV X=y\nCOPY <<-EOF /d/\n\t$X\n\tEOF", {"/d/EOF": "y\n"}),
    ("COPY <<'EOF' /d/\n$X\nEOF", {"/d/EOF": "$X\n"}),
    ("COPY a.txt <<EOF /d/\nx\nEOF", {"/d/a.txt": "a", "/d/EOF": "x\n"}),
    ("COPY nothing* a.txt /d/", {"/d/a.txt": "a"}),
    ("ARG name=a\nCOPY ${name}.txt /$name", {"/a": "a"}),
    ("ADD a.txt dir /d/", {"/d/a.txt": "a", "/d/one": "1"}),
    ("RSYNC *.txt /d/", {"/d/b.txt": "b"}),
    ("RSYNC dir /d/", {"/d/dir/sub/two": "2"}),
    ("RSYNC dir/ /d", {"/d/sub/two": "2", "/d/dir": None}),
    ("RSYNC a.txt /d", {"/d": "a"}),
    ("RSYNC a.txt /home", {"/home/a.txt": "a"}),
    ("RSYNC +z -r --exclude=one dir /d/", {"/d/dir/sub/two": "2", "/d/dir/one": None}),
    ("RSYNC a.txt b.txt /bin", {"/usr/bin/b.txt": "b", "/usr/bin/sh": ""}),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(shared_site: Site) -> Site:
    """Return a site with FILES in its context."""
    shared_site.files({**FILES, "out": "->/etc"})
    return shared_site


@pytest.mark.parametrize(("text", "expected"), COPIED, ids=[text.replace("\n", "|") for text, _ in COPIED])
def test_where_files_go(shared: Site, text: str, expected: Mapping[str, str | None]) -> None:
    """A text is a file's content, nothing says that there is a file, and None that there is none."""
    site = shared
    image = site.build(f"FROM tiny\n{text}\n")
    for path, content in expected.items():
        found = image.text(path, 40) if image.is_file(path) else None
        assert found == content or (content == "" and found), path
    assert image.is_file("/bin/sh")
    site.assert_clean()


# What can't be, with a part of what is said of it.
REFUSED = [
    ("COPY missing /d", "Dockerfile:2:6: missing: not in the context"),
    ("COPY ../context/a.txt /d", "is outside of the context"),
    ("COPY out/passwd /d", "out/passwd: not in the context"),
    ("COPY a.txt b.txt /d", "several sources, and /d is no directory"),
    ("COPY a.txt <<EOF /d\nx\nEOF", "several sources, and /d is no directory"),
    ("COPY a.txt /etc/passwd/x", "/etc/passwd is no directory"),
    ("COPY dir /etc/passwd", "/etc/passwd is a file, and a directory is copied there"),
    ("RUN mkdir -p /d/one\nCOPY dir /d", "/d/one is a directory, and a file is copied there"),
    ("RUN mkdir /d && touch /d/sub\nCOPY dir /d", "/d/sub is a file, and a directory is copied there"),
    ("COPY --from=nobody a /d", "no such image: nobody"),
    ("COPY --from=tiny /nothing /d", "/nothing: not in tiny"),
    ("ADD ftp://example.com/x /d", "can't fetch ftp://"),
    ("ADD https://example.com/x.git#-u /d", "can't be one"),
    ("RSYNC missing /d", "missing: not in the context"),
    ("RSYNC out/passwd /d", "out/passwd: not in the context"),
    ("RSYNC +l dir /d", "what links lead to is not copied"),
    ("RSYNC -rL dir /d", "what links lead to is not copied"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[text.replace("\n", "|") for text, _ in REFUSED])
def test_what_can_not_be_copied(shared: Site, text: str, why: str) -> None:
    site = shared
    with pytest.raises((BuildError, ImageError)) as caught:
        site.build(f"FROM tiny\n{text}\n")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    site.assert_clean()


def mode(site: Site, path: str) -> int:
    """Return the permissions of a file in the image."""
    return stat.S_IMODE(site.store_view().mode(path) or 0)


def test_modes_and_times(site: Site) -> None:
    """Files keep theirs, whatever the umask; set-id bits go; a directory that is there keeps its own."""
    site.files({"x/run": "1", "x/s/f": "2", "t": "3"})
    (site.context / "x/run").chmod(0o4751)
    (site.context / "x/s").chmod(0o1777)
    (site.context / "x").chmod(0o700)
    os.utime(site.context / "t", ns=(1, 86_400_123_456_789))
    before = os.umask(0o077)
    try:
        site.build("FROM tiny\nCOPY x /new/\nCOPY x /tmp/\nCOPY t /deep/er/\nWORKDIR /w/v")
    finally:
        os.umask(before)
    modes = {
        path: oct(mode(site, path)) for path in ("/new", "/new/run", "/new/s", "/tmp", "/deep", "/w/v", "/w")
    }
    assert modes == {
        "/new": "0o700", "/new/run": "0o751", "/new/s": "0o1777", "/tmp": "0o755", "/deep": "0o755",
        "/w/v": "0o755", "/w": "0o755",
    }  # fmt: skip
    assert site.inside("stat -c %Y /deep/er/t") == "86400\n"


CHMOD = [
    ("0640", 0o644, 0o640), ("7", 0o644, 0o407), ("u+x", 0o644, 0o744), ("u=rw,go=", 0o755, 0o600),
    ("a+X", 0o644, 0o644), ("a+X", 0o744, 0o755), ("g=u", 0o640, 0o660), ("o=g,u-w", 0o650, 0o455), ("+t", 0o644, 0o1644),
    ("go+u", 0o640, 0o666), ("ug+rwx,o-r", 0o644, 0o770),
]  # fmt: skip


@pytest.mark.parametrize(("chmod", "before", "after"), CHMOD)
def test_chmod(site: Site, chmod: str, before: int, after: int) -> None:
    """As chmod(1) does it, but that the owner may always read and write."""
    site.files({"f": "1"})
    (site.context / "f").chmod(before)
    site.build(f"FROM tiny\nCOPY --chmod={chmod} f /f")
    assert oct(mode(site, "/f")) == oct(after | 0o600)


def test_chmod_of_directories(site: Site) -> None:
    site.files(FILES)
    site.build("FROM tiny\nCOPY --chmod=u=rwX,go= dir /d/\nCOPY --chmod=755 <<EOF /s\nx\nEOF")
    assert [oct(mode(site, path)) for path in ("/d/one", "/d/sub", "/s")] == ["0o600", "0o700", "0o755"]


def test_ignored(site: Site) -> None:
    """.dockerignore, with exceptions, also below a directory that is left out."""
    site.files({**FILES, ".dockerignore": "*.md\ndir\n!dir/sub/two\n# comment\n"})
    image = site.build("FROM tiny\nCOPY . /d\nRUN --mount=type=bind,target=/m find /m -type f | sort >/said")
    assert not image.is_file("/d/c.md")
    assert not image.is_file("/d/dir/one")
    assert image.text("/d/dir/sub/two") == "2"
    assert "/m/dir/sub/two" in image.text("/said")
    assert "/m/dir/one" not in image.text("/said")
    for text in ("COPY c.md /d", "COPY dir/one /d", "RUN --mount=source=c.md,target=/m true"):
        with pytest.raises(BuildError, match=r"left out by .dockerignore|not in the context"):
            site.build(f"FROM tiny\n{text}")


def test_from_stages_and_images(site: Site) -> None:
    site.files({"x": "1"})
    image = site.build(
        """ARG BASE=tiny
FROM $BASE AS first
RUN mkdir /made && echo 1 >/made/f && ln -s /made/f /made/l && ln -s made /to
FROM first AS second
RUN echo 2 >/made/f
FROM scratch AS nothing
COPY x /x
FROM tiny
COPY --from=first /made /0
COPY --from=1 /made/f /1
COPY --from=Second /to/l /2
COPY --from=nothing / /3/
COPY --from=tiny etc/passwd /4
COPY --from=tiny /bin/sh /5
"""
    )
    assert [image.text(f"/{name}") for name in ("0/f", "1", "2", "3/x")] == ["1\n", "2\n", "2\n", "1"]
    assert image.link("/0/l") == "/made/f"
    assert image.text("/4").startswith("root:")
    assert image.is_file("/5")
    with pytest.raises(BuildError, match="comes later"):
        site.build("FROM tiny\nCOPY --from=b / /x\nFROM tiny AS b")


def test_a_target_and_what_it_needs(site: Site) -> None:
    text = "FROM tiny AS a\nRUN echo a >/said\nFROM tiny AS b\nRUN exit 3\nFROM a AS c\nRUN echo c >>/said\n"
    assert site.run(text, target="c") == "a\nc\n"
    assert site.run(text, target="0") == "a\n"
    assert not any("exit 3" in line for _, line in site.told.steps)


COMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "old": lambda data: b"".join((data[:257], bytes(8), data[265:])),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPRESSED)
def test_archives(site: Site, kind: str) -> None:
    """ADD unpacks what it is given, whatever it is called; what lies in a directory stays an archive."""
    tar = archive({"etc": None, "etc/new": b"1", "bin/tool": b"2", "l": "->etc/new"})
    if kind == "old":  # before POSIX there was no magic, so the checksum is another
        with tarfile.open(fileobj=io.BytesIO(tar)) as read:
            member = read.getmembers()[1]
        buffer = io.BytesIO()
        head = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
        head[257:265] = bytes(8)
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        buffer.write(bytes(head) + b"1".ljust(512, b"\0") + bytes(1024))
        data = buffer.getvalue()
    else:
        data = COMPRESSED[kind](tar)
    site.files({"a": data, "d/a": data, "fake.tar.gz": "no archive"})
    image = site.build(
        "FROM tiny\nADD a fake.tar.gz /\nADD d /d/\nCOPY a /copied\nADD --unpack=false a /kept"
    )
    assert image.text("/etc/new") == "1"
    assert image.is_file("/etc/passwd")
    assert image.text("/fake.tar.gz") == "no archive"
    assert [image.is_file(path) for path in ("/d/a", "/copied", "/kept")] == [True] * 3
    if kind != "old":
        assert image.text("/usr/bin/tool") == "2"
        assert image.is_file("/bin/sh")
        assert image.link("/l") == "etc/new"


def test_hostile_archives(site: Site) -> None:
    """What leads out of the image stays in it or is refused; a damaged one is refused; nothing is left behind."""
    tars: list[Entries] = [
        {"l": "->../../../../../..", "l/evil": b"x"},
        {"../../../evil": b"x"},
        {"/evil": b"x"},
        {"l": "->/", "l/evil": b"x"},
    ]
    site.files({f"tar{number}": archive(entries) for number, entries in enumerate(tars)})
    site.files({"cut": gzip.compress(archive({"x": os.urandom(20_000)}))[:-9000]})
    for number in range(len(tars)):
        with suppress(BuildError):
            site.build(f"FROM tiny\nADD tar{number} /deep/")
            assert "evil" not in site.store_view().names("/")
    assert [path for path in site.context.parent.rglob("evil") if "/l/" not in str(path)] == []
    assert not Path("/evil").exists()
    with pytest.raises(BuildError, match=r"build failed: Dockerfile:2: .*cut"):
        site.build("FROM tiny\nADD cut /")
    site.assert_clean()


def test_what_is_said_and_left(site: Site) -> None:
    site.files({"a": "1"})
    image = site.build(
        "FROM tiny\nCOPY --chown=www:www a /a\nCOPY --chown=www:www a /b\nCOPY --chown=0:0 a /c\n"
        "USER nobody\nRUN --security=insecure id -u >/said\nRUN true"
    )
    assert image.text("/said") == "0\n"
    assert len(site.told.warnings) == 3, site.told.warnings
    for word in ("--chown=www:www", "--security", "USER nobody"):
        assert any(word in line for line in site.told.warnings)


def test_settings(site: Site) -> None:
    """What instructions say of the image is in its configuration as Docker has it."""
    site.build(
        """FROM tiny
ENV A=1 B="x y"
ENV C $A$B
LABEL a=b
LABEL c=d
WORKDIR /w
WORKDIR v
USER me:us
EXPOSE 80 53/udp
VOLUME /data ["/x"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=3 CMD true
SHELL ["/bin/sh", "-e", "-c"]
MAINTAINER somebody
CMD ["first"]
ENTRYPOINT run $it
ONBUILD RUN echo trigger >/triggered
"""
    )
    said = json.loads(site.image().config)
    run = said["config"]
    assert {"A=1", "B=x y", "C=1x y"} <= set(run["Env"])
    assert run["Labels"] == {"a": "b", "c": "d"}
    assert (run["WorkingDir"], run["User"], said["author"]) == ("/w/v", "me:us", "somebody")
    assert set(run["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert run["StopSignal"] == "SIGINT"
    assert run["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 3}
    assert run["Shell"] == ["/bin/sh", "-e", "-c"]
    assert run["Entrypoint"] == ["/bin/sh", "-e", "-c", "run $it"]
    assert run["OnBuild"] == ["RUN echo trigger >/triggered"]
    assert "/data" in run["Volumes"]
    history = [row for row in said["history"] if row.get("comment") == "chlaunch"]
    assert len(history) == 16
    assert sum(not row.get("empty_layer") for row in history) == len(site.image().layers) - 2
    parse_config(site.image().config, "out")


def test_path_has_a_value_where_the_image_has_none(site: Site) -> None:
    """RUN would have one; so what ENV makes of it must work too."""
    site.build("FROM tiny\nENV PATH=/opt/bin:${PATH}\nRUN ls /")
    assert (
        "PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        in json.loads(site.image().config)["config"]["Env"]
    )


def test_triggers(site: Site) -> None:
    """They run where an image, or a stage, is built upon, once."""
    site.build("FROM tiny\nONBUILD ARG WHO=x\nONBUILD RUN echo $WHO >>/said", name="base")
    assert site.run("FROM base\nRUN echo y >>/said", name="second", given={"WHO": "z"}) == "z\ny\n"
    assert site.run("FROM second\nRUN true") == "z\ny\n"
    assert site.run("FROM base AS a\nFROM a\nRUN true") == "x\n"


def test_cmd_and_entrypoint(site: Site) -> None:
    """ENTRYPOINT resets the CMD of the base, but not its own stage's."""
    site.build('FROM tiny\nCMD ["base"]', name="base")
    site.build('FROM base\nENTRYPOINT ["e"]')
    assert parse_config(site.image().config, "").cmd is None
    site.build('FROM base\nCMD ["own"]\nENTRYPOINT ["e"]')
    assert parse_config(site.image().config, "").cmd == ("own",)
    site.build('FROM tiny\nENV WHO=me\nENTRYPOINT ["echo", "hello"]\nCMD ["you"]')
    assert site.inside("echo $WHO") == "me\n"


def test_names_that_are_not_text(site: Site) -> None:
    """Bytes that are no UTF-8 in names of the context, of the image, and in the Dockerfile."""
    with open(os.path.join(os.fsencode(site.context), b"\xff\xfe"), "wb") as file:  # noqa: PTH123, PTH118  bytes
        file.write(b"1")
    image = site.build(
        b"FROM tiny\nCOPY . /d/\nCOPY \xff\xfe /e\nRUN cd /d; printf %s * | od -An -c >/said; N=\xf0; printf %s $N | od -An -c >>/said\n"
    )
    assert image.text("/said").split() == ["377", "376", "360"]
    assert image.text("/e") == "1"
    with pytest.raises(BuildError, match="UTF-8"):
        site.build(b"FROM tiny\nENV N=\xf0")
    site.build(b"FROM tiny AS x\nRUN printf x >/\xfa\nFROM tiny\nCOPY --from=x /\xfa /f")


class Quiet(SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def test_added_from_the_network(site: Site, tmp_path: Path) -> None:
    """ADD fetches files, checks them, unpacks archives only when told; the cache knows them by their checksum."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "a b.tar").write_bytes(archive({"in": b"1"}))
    digest = hashlib.sha256((served / "a b.tar").read_bytes()).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a%20b.tar"
        text = (
            f"FROM tiny\nADD {url} /d/\nADD --checksum=sha256:{digest} {url} /e\nADD --unpack=true {url} /f/"
        )
        image = site.build(text)
        assert [image.is_file(path) for path in ("/d/a b.tar", "/e", "/f/in")] == [True] * 3
        assert oct(mode(site, "/e")) == "0o600"
        with pytest.raises(BuildError, match="Dockerfile:2"):
            site.build(f"FROM tiny\nADD --checksum=sha256:{'0' * 64} {url} /e")
        with pytest.raises(BuildError, match=r"Dockerfile:2:.*not found"):
            site.build(f"FROM tiny\nADD {url}x /e")
        with pytest.raises(BuildError, match="has no name at its end"):
            site.build(f"FROM tiny\nADD http://127.0.0.1:{server.server_port}/ /e/")
        site.build(text)
        assert site.told.signs == "***"
        alone = f"FROM tiny\nADD --checksum=sha256:{digest} {url} /e"
        site.build(alone)
        (served / "a b.tar").write_bytes(archive({"in": b"2"}))
        with pytest.raises(BuildError, match=r"Dockerfile:3.*has another checksum"):
            site.build(text)
        assert site.told.signs == ".."
        server.shutdown()
    site.build(alone)  # what it must be is known
    assert site.told.signs == "*"
    site.assert_clean()


def test_platform(site: Site) -> None:
    """Arguments of the platforms are there; FROM --platform takes another image."""
    said = site.run(
        "ARG TARGETARCH\nFROM --platform=$BUILDPLATFORM tiny\nARG TARGETPLATFORM TARGETOS\n"
        "RUN echo $TARGETPLATFORM $TARGETOS >/said"
    )
    assert said.startswith("linux/")
    assert said.endswith(" linux\n")


def test_the_epoch(site: Site) -> None:
    """With SOURCE_DATE_EPOCH nothing is newer, and the image says no other time."""
    site.files({"new": "1"})
    site.build(
        "FROM tiny\nCOPY new /d/\nRUN mkdir /x && echo 1 >/x/y && touch -d @5 /x/old\nWORKDIR /w/w\nCOPY <<E /e\nE\n",
        source_date=1000.0,
    )
    times = site.inside("stat -c %Y /d/new /d /x /x/y /x/old /w/w /w /e").split()
    assert times == ["1000"] * 4 + ["5"] + ["1000"] * 3
    said = json.loads(site.image().config)
    assert said["created"] == "1970-01-01T00:16:40Z"
