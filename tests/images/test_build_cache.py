"""The cache of builds: what makes a step another one, what a cached build touches, and builds that were killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from builds import Site
from made import Entries, Silent, layout

from chlaunch.errors import BuildError
from chlaunch.image import keeping
from chlaunch.image.build import cached, stacking, steps
from chlaunch.image.build.request import Secret
from chlaunch.image.importing import Importing, import_path
from chlaunch.image.tools import Tools
from chlaunch.rootfs import Rootfs

TEXT = """FROM tiny
ARG A=1
ENV E=1
COPY f /f
RUN echo $A $E >/said
RUN true
"""

# What is changed, and the signs of ARG, ENV, COPY, RUN, RUN then: * is not done again.
CHANGES: list[tuple[str, str, dict[str, Any], Mapping[str, str], str]] = [
    ("nothing", TEXT, {}, {}, "  ***"),
    ("an argument", TEXT, {"given": {"A": "2"}}, {}, "  *.."),
    ("an argument nobody asks for", TEXT, {"given": {"Z": "2"}}, {}, "  ***"),
    ("a variable", TEXT.replace("E=1", "E=2"), {}, {}, "  *.."),
    ("a proxy", TEXT, {"given": {"HTTP_PROXY": "x"}, "environment": {"PATH": "/bin", "https_proxy": "y"}}, {}, "  ***"),
    ("content", TEXT, {}, {"f": "2"}, "  ..."),
    ("a file beside", TEXT, {}, {"g": "2"}, "  ***"),
    ("a label first", TEXT.replace("ARG", "LABEL a=b\nARG"), {}, {}, "   ***"),
    ("a comment", TEXT.replace("ARG", "# x\nARG").replace("RUN true", "\nRUN   true"), {}, {}, "  ***"),
    ("a command", TEXT.replace("RUN true", "RUN  :"), {}, {}, "  **."),
    ("a destination", TEXT.replace("/f", "/g"), {}, {}, "  ..."),
    ("a mode", TEXT.replace("COPY", "COPY --chmod=600"), {}, {}, "  ..."),
    ("emulation", TEXT, {"force": "none"}, {}, "  *.."),
    ("the shell", TEXT.replace("ARG", 'SHELL ["/bin/sh", "-ec"]\nARG'), {}, {}, "   *.."),
    ("the directory", TEXT.replace("ARG", "WORKDIR /etc\nARG"), {}, {}, ".  ..."),
    ("the user", TEXT.replace("ARG", "USER x\nARG"), {}, {}, "   *.."),
    ("a secret", TEXT.replace("RUN true", "RUN --mount=type=secret,id=s true"), {"secrets": {"s": Secret(value="1")}}, {}, "  **."),
    ("rebuild", TEXT, {"cache": "rebuild"}, {}, "  ..."),
    ("no cache", TEXT, {"cache": "disabled"}, {}, "     "),
    ("the epoch", TEXT, {"source_date": 5.0}, {}, "  ..."),
]  # fmt: skip


@pytest.fixture(scope="module")
def built(shared_site: Site) -> Site:
    """Return a site where TEXT was built."""
    shared_site.files({"f": "1"})
    shared_site.build(TEXT)
    assert shared_site.told.signs == "  ..."
    return shared_site


@pytest.mark.parametrize("change", CHANGES, ids=[row[0] for row in CHANGES])
def test_what_makes_another_step(built: Site, change: Any) -> None:
    _, text, options, files, signs = change
    shutil.rmtree(built.context)
    built.context.mkdir()
    built.files({"f": "1", **files})  # of another time
    built.build(text, **options)
    assert built.told.signs == signs


def test_rebuilt_steps_have_no_old_successors(site: Site) -> None:
    """After a rebuild that ended early, what stood on the old steps is not taken for what stands on the new."""
    text = "FROM tiny\nRUN cat /proc/sys/kernel/random/uuid >/a\nRUN cp /a /said\n"
    first = site.run(text)
    site.build(text.replace("RUN cp", "RUN : cp"), cache="rebuild")
    assert site.run(text) != first
    assert site.store_view().text("/a") == site.store_view().text("/said")
    assert site.told.signs == "*."


def test_forgotten_steps_are_done_anew(site: Site) -> None:
    text = "FROM tiny\nRUN cat /proc/sys/kernel/random/uuid >/said\n"
    first = site.run(text)
    cached.reset(site.store, Silent().say)
    assert site.run(text) != first


def test_a_cached_build_touches_no_file_of_an_image(site: Site) -> None:
    """It makes the image anew even where layers can't be looked into."""
    text = "FROM tiny\nRUN echo 1 >/x\nFROM tiny\nCOPY --from=0 /x /y\nCOPY . /c\nWORKDIR /c\nRUN true\nENV A=b\n"
    site.files({"f": "1"})
    site.build(text)
    trace = site.context.parent / "trace"
    program = "import sys; sys.path.insert(0, sys.argv[1]); from rerun import main; main(*sys.argv[2:])"
    words = [
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        str(site.context.parent),
        site.ch_run,
        text,
    ]
    subprocess.run(["strace", "-f", "-o", trace, "-e", "trace=%file", *words], check=True)
    layers = str(site.store.path / "l")
    touched = [line for line in trace.read_text().splitlines() if f"{layers}/" in line]
    # Whether each layer is there, and nothing in it.
    inner = [line for line in touched if line.split(f"{layers}/")[1].split('"')[0].count("/")]
    assert touched
    assert inner == []


def test_changed_metadata_without_changed_content(site: Site) -> None:
    """What a large file has is remembered by what stat says, and looked at where that has changed, or may have."""
    large = site.context / "large"
    large.write_bytes(b"x" * (2 << 20))
    old = time.time() - 100
    text = "FROM tiny\nCOPY . /d\n"
    site.build(text)
    known = site.store.path / steps.DIGESTS
    assert not known.is_dir()  # just changed: not to be relied on
    time.sleep(2.1)
    site.build(text)
    assert site.told.signs == "*"
    assert len(list(known.iterdir())) == 1
    large.write_bytes(b"y" * (2 << 20))
    os.utime(large, (old, old))
    site.build(text)
    assert site.told.signs == "."
    assert site.store_view().text("/d/large", 1) == "y"


def test_files_that_change_while_they_are_copied(site: Site) -> None:
    """No layer is made of them: it would be taken for that of the content that was looked at first."""
    site.files({"f": "1"})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (site.context / "f").write_text(str(number))

    def build() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            site.build(f"FROM tiny\nCOPY f /{time.monotonic_ns()}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(BuildError, match="have changed while they were copied"):
            build()
    finally:
        stop.set()
        writer.join()
    site.assert_clean()


def test_two_builds_at_once(site: Site, tmp_path: Path) -> None:
    """A step that two come to is done once, and both have what came of it."""
    from chlaunch.image.build.binds import Bind  # noqa: PLC0415

    (tmp_path / "seen").mkdir()
    text = "FROM tiny\nRUN echo x >>/seen/log; sleep 0.5; cat /proc/sys/kernel/random/uuid >/said\nRUN cat /proc/sys/kernel/random/uuid >>/said"
    said: list[str] = []

    def build(number: int) -> None:
        own = Site(site.context, site.store, site.ch_run)
        said.append(
            own.run(text, name=f"out{number}", binds=(Bind(tmp_path / "seen", "/seen", read_only=False),))
        )

    threads = [threading.Thread(target=build, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / "seen/log").read_text() == "x\n"
    assert len(said) == 3
    assert len(set(said)) == 1


def test_killed_builds_resume(site: Site) -> None:
    """Killed in each of its steps, a build goes on where it was; nothing half-made is used."""
    rows = "".join(f"RUN echo {number} >>/said; echo {number} >>/log/f; sleep 0.2\n" for number in range(4))
    (site.context.parent / "log").mkdir()
    text = f"FROM tiny\n{rows}"
    program = "import sys; sys.path.insert(0, sys.argv[1]); from rerun import main; main(*sys.argv[2:])"
    log = site.context.parent / "log/f"
    words = [
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        str(site.context.parent),
        site.ch_run,
        text,
    ]
    for number in range(4):
        child = subprocess.Popen(words)
        while child.poll() is None and not (log.exists() and str(number) in log.read_text()):
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        (log.write_text(log.read_text()))
        time.sleep(0.25)  # the command ends with its builder; or would have ended now, and left no layer
    subprocess.run(words, check=True)
    assert site.store_view().text("/said") == "0\n1\n2\n3\n"
    counts = [log.read_text().split().count(str(number)) for number in range(4)]
    assert all(1 <= count <= 2 for count in counts), counts


def test_gc_keeps_what_builds_need(site: Site) -> None:
    """A deleted image is built anew from the cache after gc; after build-cache --gc it is not."""
    text = "FROM tiny\nRUN echo 1 >/said\nRUN --mount=type=cache,target=/c echo 1 >>/c/f; cat /c/f >/said\n"
    site.build(text)
    site.build("FROM tiny\nRUN echo kept >/said", name="kept")
    for _ in range(2):
        keeping.delete(site.store, ("out",), Silent().say)
        keeping.collect(site.store, Silent().say)
        site.build(text)
        assert site.told.signs == "**"
    assert cached.summary(site.store)["of images"] == 3
    keeping.delete(site.store, ("out",), Silent().say)
    assert cached.thin(site.store, Silent().say) == 2
    assert keeping.collect(site.store, Silent().say) > 0
    assert len(list((site.store.path / "l").iterdir())) == 4
    assert site.run(text) == "1\n1\n"
    assert site.told.signs == ".."
    site.build("FROM tiny\nRUN echo kept >/said")
    assert site.told.signs == "*"


def test_what_is_said_of_the_cache(site: Site) -> None:
    site.build("FROM tiny\nRUN head -c 2097152 /dev/zero >/big\nRUN true\nRUN echo '\"\\'", name="one")
    site.build("FROM tiny\nRUN head -c 2097152 /dev/zero >/big\nRUN echo b >/b", name="two")
    site.build("FROM tiny\nRUN --mount=type=cache,target=/c echo 123 >/c/x", name="three")
    keeping.delete(site.store, ("two",), Silent().say)
    summary = cached.summary(site.store)
    assert (summary["steps"], summary["layers"], summary["bytes"], summary["bytes of caches"]) == (
        5,
        2,
        2097154,
        4,
    )
    lines = list(cached.tree(site.store))
    assert [line[:14] for line in lines if "/big" in line] == ["*      2.0 MiB"]
    big = next(line for line in lines if "/big" in line)
    small = next(line for line in lines if "echo b" in line)
    assert small.index("RUN") == big.index("RUN") + 2
    assert small.startswith(" ")
    picture = cached.dot(site.store)
    assert picture.count(" -> ") == 5
    assert '\\"' in picture
    (site.store.path / "cache" / ("0" * 64 + ".json")).write_text("{damaged")
    (site.store.path / "cache" / ("1" * 64 + ".json")).write_text('{"parent": 1}')
    assert cached.summary(site.store)["steps"] == 5
    assert json.dumps(summary)


def test_five_hundred_steps(site: Site) -> None:
    """More than the kernel stacks: files that were changed, removed and made directories are as without that."""
    rows = ["FROM tiny", "RUN mkdir /d /d/old /e && echo 1 >/d/old/x && echo 1 >/gone && echo 1 >/e/f"]
    rows += [f"COPY <<E /d/{number % 300}\n{number}\nE" for number in range(240)]
    rows += [
        "RUN rm -r /d/old /gone /e && mkdir /e && echo 2 >/e/g && rm /d/7 && mkdir /d/7 && echo 7 >/d/7/x"
    ]
    rows += [f"COPY <<E /d/{number % 300}\n{number}\nE" for number in range(240, 500)]
    rows += [
        "RUN find /d /e -type f | sort | xargs cat | md5sum >/said; ls /d /e /d/7 | wc -l >>/said; ls /gone || true"
    ]
    text = "\n".join(rows)
    said = site.run(text)
    expected = {f"/d/{number % 300}": f"{number}\n" for number in range(500) if number != 7}
    image = site.store_view()
    assert all(
        image.text(path) == content
        for path, content in expected.items()
        if path != "/d/7" and image.is_file(path)
    )
    assert len(image.names("/d")) == 300
    assert image.names("/e") == ("g",)
    assert not image.is_file("/gone")
    assert not image.is_directory("/d/old")
    assert len(site.image().layers) < stacking.LAYERS_MOST
    assert site.inside("find /d /e -type f | sort | xargs cat | md5sum") == said.split("\n")[0] + "\n"
    made = [row for row in json.loads(site.image().config)["history"] if not row.get("empty_layer")]
    assert len(made) == len(site.image().layers) - 1
    site.build(text)
    assert set(site.told.signs) == {"*"}


def test_an_image_with_many_layers(site: Site, tmp_path: Path) -> None:
    """A base of more layers than a step starts from: what its layers hide of each other stays hidden."""
    layers: list[Entries] = [{"d": None, "d/keep": b"k", "d/old": b"o", "f": b"f", "x": None, "x/y": b"1"}]
    layers += [{f"n{number}": b"%d" % number, "same": b"%d" % number} for number in range(60)]
    layers += [{"d/.wh.old": b"", ".wh.f": b"", "x/.wh..wh..opq": b"", "x/z": b"2"}]
    layers += [{"f": None, "f/in": b"i", ".wh.n7": b""}, {"d/old": b"new"}, {".wh.d": b""}, {"d/last": b"l"}]
    layers += [{f"m{number}": b"m", "l": f"->m{number}"} for number in range(30)]
    importing = Importing(Tools(os.environ, Silent()), tmp_path)
    layout(tmp_path / "layout", layers)
    import_path(site.store, str(tmp_path / "layout"), "deep", importing, {})
    before = Rootfs("deep", str(site.store.path))
    image = site.build("FROM deep\nCOPY --from=tiny /bin/busybox /bin/sh\nRUN echo made >/said")
    assert len(site.image().layers) < stacking.LAYERS_MOST < len(layers)
    for path in ("/", "/d", "/x", "/f"):
        assert set(image.names(path)) - {"said"} == set(before.names(path)), path
    assert image.names("/d") == ("last",)
    assert image.names("/x") == ("z",)
    assert (image.text("/same"), image.text("/f/in"), image.link("/l"), image.text("/n8")) == (
        "59",
        "i",
        "m29",
        "8",
    )
    assert image.text("/said") == "made\n"
