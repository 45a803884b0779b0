"""RUN's mounts in builds: what is seen in them, what is written where, and what a step is known by."""

import os
import socket
from pathlib import Path

import pytest
from builds import Site

from chlaunch.errors import BuildError
from chlaunch.image.build import mounted
from chlaunch.image.build.binds import Bind
from chlaunch.image.build.request import Secret
from chlaunch.image.build.running import CommandError

# A shell's function: the kind of what is mounted at a path.
KIND = "kind() { awk -v p=$1 '$5 == p { sub(/.* - /, \"\"); print $1 }' /proc/self/mountinfo; }; "


@pytest.mark.overlays
def test_memory(site: Site) -> None:
    """It has its size, takes mounts below it, and leaves nothing, in an image that had the directory or not."""
    said = site.run(
        "FROM tiny\nRUN mkdir /there\n"
        "RUN --mount=type=cache,target=/t/c --mount=type=tmpfs,target=/t,size=1m --mount=type=tmpfs,target=/there "
        f"{KIND}echo 1 >/there/f; echo 2 >/t/c/f; stat -c %a /t >/said; dd if=/dev/zero of=/t/small bs=1k count=900 && "
        "! dd if=/dev/zero of=/t/large bs=1k count=200 && kind /t >>/said; kind /there >>/said"
    )
    assert said == "1777\ntmpfs\ntmpfs\n"
    layer = site.store.tree(site.image().layers[2])
    assert [path.name for path in layer.iterdir()] == ["said"]
    with pytest.raises(CommandError):
        site.build("FROM tiny\nRUN --mount=type=tmpfs,target=/t,ro touch /t/x")


BEGUN = """FROM tiny AS s
ARG N=1
RUN mkdir -p /d/e && echo $N >/d/e/f && ln -s f /d/e/l && touch /file
FROM tiny
ARG M
RUN --mount=type=cache,id=c,from=s,source=d,target=/c,mode=0700{} cat /c/e/l >/said; echo more$M >>/c/e/f; stat -c %a /c >>/said
"""


def test_a_cache_begins_with_files(site: Site) -> None:
    """It outlives builds then, whatever its target; what begins with something else is another, and the stage stays."""
    text = BEGUN.format("")
    assert site.run(text, given={"M": "1"}) == "1\n700\n"
    assert site.run(text, given={"M": "2"}) == "1\nmore1\n700\n"
    assert site.run(text.replace("target=/c", "target=/c/").replace("id=c", "id=c,sharing=locked")) == (
        "1\nmore1\nmore2\n700\n"
    )
    assert site.run(text, given={"N": "2"}) == "2\n700\n"
    assert site.run("FROM tiny\nRUN --mount=type=cache,id=c,target=/c ls /c >/said") == ""
    view = site.build(text.partition("FROM tiny\nARG M")[0] + "RUN cat /d/e/f >/said")
    assert view.text("/said") == "1\n"
    site.assert_clean()


def test_a_cache_that_can_t_begin(site: Site) -> None:
    with pytest.raises(BuildError, match="/none: not in s"):
        site.build(BEGUN.format("").replace("source=d", "source=/none"))
    with pytest.raises(BuildError, match="begins with a directory, and this is a file"):
        site.build(BEGUN.format("").replace("source=d", "source=file"))
    with pytest.raises(BuildError, match="a cache without from begins empty"):
        site.build("FROM tiny\nRUN --mount=type=cache,target=/c,source=x true")
    kept = list((site.store.path / "cache/mounts").iterdir())
    assert [path for path in kept if path.is_dir()] == []


@pytest.mark.overlays
def test_a_stage_in_place(site: Site) -> None:
    """Its layers are shown, with what they hide of each other; nothing can be written to them, remounted or not."""
    stage = """FROM tiny AS s
RUN mkdir -p /m/d/e /m/gone && echo 1 >/m/d/x && echo 2 >/m/d/y && echo 3 >/m/d/e/z
RUN rm -r /m/gone /m/d/x /m/d/e && mkdir /m/d/e && echo 4 >/m/d/e/new
FROM tiny
"""
    said = site.run(
        f"{stage}RUN --mount=from=s,source=/m,target=/s --mount=from=s,source=m/d/e,target=/one "
        "--mount=from=s,target=/all --mount=from=s,source=m/d/y,target=/file "
        f"{KIND}ls -R /s >/said; cat /one/* /file >>/said; ls -d /all/m/* >>/said; "
        "for i in s one all; do kind /$i; mount -o remount,rw /$i; touch /$i/new; done >>/said 2>/dev/null; true"
    )
    assert said.split() == [
        *("/s:", "d", "/s/d:", "e", "y", "/s/d/e:", "new", "4", "2", "/all/m/d"),
        *("overlay", "overlay", "overlay"),
    ]
    assert (
        site.run(f"{stage}RUN --mount=from=s,source=m,target=/s,rw touch /s/new; ls /s >/said") == "d\nnew\n"
    )
    assert site.run(f"{stage}RUN --mount=from=s,source=m,target=/s ls /s /s/d/e >/said") == (
        "/s:\nd\n\n/s/d/e:\nnew\n"
    )
    assert not list(site.store.path.glob("l/*/new")) + list(site.store.path.glob("l/*/m/new"))


@pytest.mark.overlays
def test_much_of_a_context(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown in place, but not where something of it is left out, nor with rw; and is never written to."""
    monkeypatch.setattr(mounted, "COPIED_MOST", 4)
    site.files(
        {"big/a": "12345", "big/d/b": "6", "big/l": "->d", "small/a": "1", "l": "->big", "out": "->/etc"}
    )

    def seen(source: str, more: str = "true") -> tuple[bool, str]:
        """Say whether a source is shown in place, and what its file a has."""
        command = f"{KIND}kind /c >/said; cat /c/a >>/said; mount -o remount,rw /c; touch /c/new; {more}"
        kind, _, content = site.run(f"FROM tiny\nRUN --mount=target=/c,source={source} {command}").partition(
            "\n"
        )
        return kind == "overlay", content

    assert seen("l", "cat /c/l/b >>/said") == (True, "123456")
    assert seen("l,rw", "cat /c/l/b >>/said") == (False, "123456")
    assert seen("small") == (False, "1")
    site.files({".dockerignore": "big/d"})
    assert seen("big", "test ! -e /c/d") == (False, "12345")
    with pytest.raises(BuildError, match="out: not in the context"):
        seen("out")
    assert not (site.context / "big/new").exists()


@pytest.mark.overlays
def test_a_context_that_changes_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown in place and then has changed is said, and the step done again; a copy does not change."""
    site.files({"big/a": "12345"})
    change = "RUN --mount=source=big,target=/c echo %s >>/w/big/a; cat /c/a >/said"
    options = {"binds": (Bind(site.context, "/w", read_only=False),)}
    assert site.run(f"FROM tiny\n{change % 'x'}", **options) == "12345"
    assert not site.told.warnings
    monkeypatch.setattr(mounted, "COPIED_MOST", 4)
    assert site.run(f"FROM tiny\n{change % 'y'}", **options) == "12345x\ny\n"
    assert any("files of the context have changed meanwhile" in line for line in site.told.warnings)
    (site.context / "big/a").write_text("12345x\n")
    site.build(f"FROM tiny\n{change % 'y'}", **options)
    assert site.told.signs == "."


def test_mounts_below_mounts(site: Site) -> None:
    """Their mount points are made in copies and caches, whatever the order."""
    site.files({"src/a": "1"})
    text = (
        "FROM tiny\nWORKDIR /w\n"
        "RUN --mount=type=cache,target=target/deep --mount=source=src,target=/w,rw --mount=type=cache,target=/k "
        "--mount=type=secret,id=s,target=/k/d/token --mount=from=tiny,source=etc,target=/k/etc "
        "cat a /k/d/token >/said; ls /w /w/target /k /k/etc/passwd >>/said"
    )
    said = site.run(text, secrets={"s": Secret(value="2")})
    assert said.split() == ["12/k/etc/passwd", "/k:", "d", "etc", "/w:", "a", "target", "/w/target:", "deep"]
    assert sorted(path.name for path in (site.context / "src").iterdir()) == ["a"]


@pytest.mark.overlays
def test_mounts_behind_links(site: Site) -> None:
    """A link in a cache leads nowhere on the host; behind one in the image, mount points are gone afterwards."""
    there = site.context / "there"
    there.mkdir()
    site.run(f"FROM tiny\nRUN --mount=type=cache,target=/k ln -sfn {there} /k/out; readlink /k/out >/said")
    site.build(
        "FROM tiny\nRUN --mount=type=cache,target=/k --mount=type=cache,target=/k/out/x touch /k/out/x/f"
    )
    assert not list(there.iterdir())
    site.build(
        "FROM tiny\nRUN ln -s /elsewhere /l\n"
        "RUN --mount=type=tmpfs,target=/l/x --mount=source=there,target=/l/y touch /l/x/f && test -d /elsewhere/y"
    )
    assert len(site.image().layers) == 3  # tiny, the link, and /ch


HOMES = [
    ("USER me", "/home/me"),
    ("USER 1234", "/home/me"),
    ("USER me:root", "/home/me"),
    ("USER 1234:7", "/home/me"),
    ("USER 77", "/"),
    ("USER you", "/"),
    ("USER homeless", "/"),
    ("USER root:me", "/root"),
    ("USER me\nUSER 0", "/root"),
    ("ENV HOME=/else\nUSER me", "/else"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "home"), HOMES, ids=[text.replace("\n", "|") for text, _ in HOMES])
def test_home(shared_site: Site, text: str, home: str) -> None:
    """HOME is the user's, by the image's passwd(5), though the command is root's."""
    rows = "me:x:1234:1234::/home/me:/bin/sh\\nhomeless:x:9:9:::"
    base = f"FROM tiny\nRUN echo -e '{rows}' >>/etc/passwd\n"
    assert shared_site.run(f'{base}{text}\nRUN echo "$HOME $(id -u)" >/said') == f"{home} 0\n"


@pytest.mark.overlays
def test_words_without_effect(site: Site) -> None:
    """Owners and the mode of an agent's socket are said, once each; root and what is so anyway are not."""
    words = (
        "--mount=type=cache,target=/c,uid=%d,gid=%d --mount=type=secret,id=s,uid=%d --mount=type=ssh,mode=%s"
    )
    site.build(f"FROM tiny\nRUN {words % (0, 0, 0, '0600')} true")
    assert not site.told.warnings
    site.build(f"FROM tiny\nRUN {words % (7, 7, 7, '0666')} true\nRUN {words % (8, 7, 7, '0660')} true")
    assert [line.partition(":")[0] for line in site.told.warnings] == [
        "RUN --mount=type=cache",
        "RUN --mount=type=secret",
        "RUN --mount=type=ssh",
    ]


def test_several_agents(site: Site, tmp_path: Path) -> None:
    """Each has a socket of its own, by BuildKit's names; the variable means the first, and ENV wins."""
    agents = {name: str(tmp_path / name) for name in ("default", "b")}
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text("host\n")
    options = {"ssh": agents, "environment": {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}}
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(agents["default"])
        other.bind(agents["b"])
        run = (
            "RUN --mount=type=ssh,id=b --mount=type=ssh --mount=type=ssh,id=b,target=rel/s,required "
            "echo $SSH_AUTH_SOCK >/said; ls /run/buildkit >>/said; test -S rel/s || exit 1; "
            "mount -o remount,rw,bind /etc/ssh/ssh_known_hosts; echo evil >/etc/ssh/ssh_known_hosts; true"
        )
        said = site.run(f"FROM tiny\nWORKDIR /w\n{run}", **options)
        assert said.split() == ["/run/buildkit/ssh_agent.0", "ssh_agent.0", "ssh_agent.1"]
        said = site.run(f"FROM tiny\nENV SSH_AUTH_SOCK=/x\nWORKDIR /w\n{run}", **options)
        assert said.startswith("/x\n")
    assert (tmp_path / ".ssh/known_hosts").read_text() == "host\n"


def test_over_what_package_managers_are_told(site: Site) -> None:
    """Where the user mounts something over apt's directory, our file in it stays away."""
    site.files({"d/x": "1"})
    mount = "--mount=type=bind,source=d,target=/etc/apt/apt.conf.d"
    text = f"FROM tiny\nRUN mkdir -p /etc/apt/apt.conf.d\nRUN ls /etc/apt/apt.conf.d >/told\nRUN {mount} ls /etc/apt/apt.conf.d >/said"
    assert site.run(text) == "x\n"
    assert site.store_view().text("/told") == "zz-chlaunch\n"
