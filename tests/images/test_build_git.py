"""ADD of git repositories, and repositories as contexts: what comes of them, what is refused, what is not done twice."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest
from made import archive
from repositories import Repository, Server, make_repository, serving
from test_build import Quiet
from test_build_cli import BY_HAND, CH_IMAGE, Desk

from chlaunch.cli import context
from chlaunch.cli.image import image as ch_image
from chlaunch.errors import BuildError, ImageError, UsageError
from chlaunch.image.build.request import Secret
from chlaunch.image.dockerfile import gitref
from chlaunch.image.dockerfile.place import masked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builds import Site
    from machine import Machine

FILES = {
    "a": "one",
    "run": "#!/bin/sh",
    "dir/sub/two": "2",
    "link": "->a",
    "out": "->/etc",
    "dirlink": "->dir",
}


class Forge(NamedTuple):
    """A server, its main repository, and the commits there: the first and the newest of main, that of other."""

    server: Server
    main: Repository
    first: str
    newest: str
    other: str

    @property
    def url(self) -> str:
        """Return the main repository's URL."""
        return f"{self.server.url}/main.git"


@contextmanager
def made_forge(directory: Path) -> Iterator[Forge]:
    """Make a forge: branches main and other, an annotated tag v1, a pull request, and submodules within each other."""
    main, module, inner = (make_repository(directory / f"{name}.git") for name in ("main", "module", "inner"))
    inner_commit = inner.commit({"deep": "deep"})
    text = '[submodule "i"]\n\tpath = i n\n\turl = ../inner.git\n'
    module_commit = module.commit({"m": "module", ".gitmodules": text, "i n": f"@{inner_commit}"})
    first = main.commit({"a": "zero", ".gitattributes": "* filter=evil\n"})
    main.git("tag", "-a", "-m", "text", "v1", first)
    main.git("update-ref", "refs/pull/7/head", first)
    text = '[submodule "m"]\n\tpath = mod\n\turl = ../module.git\n'
    other = main.commit({"a": "other", ".gitmodules": text, "mod": f"@{module_commit}"}, "refs/heads/other")
    newest = main.commit({**FILES, ".gitattributes": "* filter=evil\n"})
    with serving(directory) as server:
        yield Forge(server, main, first, newest, other)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Return a forge that tests don't change."""
    with made_forge(tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture
def changing(forge: Forge, tmp_path: Path) -> Iterator[Forge]:
    """Return a forge of its own for a test."""
    shutil.copytree(forge.main.path.parent, tmp_path / "forge")
    with serving(tmp_path / "forge") as server:
        yield forge._replace(server=server, main=Repository(tmp_path / "forge/main.git"))


def test_what_references_mean(shared_site: Site, forge: Forge) -> None:
    """Branches, tags, other names and commits, in a fragment or a query; directories, links and modes."""
    url = forge.url
    image = shared_site.build(
        f"""FROM tiny
ADD {url} /default
ADD {url}#other /branch/
ADD {url}#v1 /tag
ADD {url}#pull/7/head /pull
ADD {url}#{forge.first} /commit
ADD {url}#main:dir /below
ADD {url}?subdir=dirlink/sub /through
ADD {url}?tag=v1 {url}?branch=main&subdir=dir /two/
ADD {url}?commit={forge.first} /home
ADD --exclude=dir --exclude=**/out --chmod=go= {url} /less
"""
    )
    texts = {
        "/default/a": "one", "/default/dir/sub/two": "2", "/branch/a": "other", "/tag/a": "zero", "/pull/a": "zero",
        "/commit/a": "zero", "/below/sub/two": "2", "/through/two": "2", "/two/a": "zero", "/two/sub/two": "2",
        "/home/a": "zero", "/less/a": "one", "/default/link": "one",
    }  # fmt: skip
    assert {path: image.text(path) for path in texts} == texts
    assert [image.link(f"/default/{name}") for name in ("link", "out")] == ["a", "/etc"]
    names = [".gitattributes", "a", "dir", "dirlink", "link", "out", "run"]
    assert list(image.names("/default")) == names
    assert list(image.names("/less")) == [name for name in names if name not in ("dir", "out")]
    modes = {
        path: oct(image.mode(path) or 0) for path in ("/default", "/default/run", "/default/a", "/less/run")
    }
    assert list(modes.values()) == ["0o40755", "0o100755", "0o100644", "0o100700"]
    assert not shared_site.told.warnings, "plain http to this machine itself is no danger"
    shared_site.assert_clean()


def test_submodules(shared_site: Site, forge: Forge) -> None:
    """They come with theirs, from where URLs relative to their own lead, and can be left out."""
    text = f"FROM tiny\nADD {forge.url}#other /with\nADD {forge.url}?ref=other&submodules=false /without"
    image = shared_site.build(text)
    assert (image.text("/with/mod/m"), image.text("/with/mod/i n/deep")) == ("module", "deep")
    assert list(image.names("/with/mod")) == [".gitmodules", "i n", "m"]
    assert image.names("/without/mod") == ()
    assert image.is_directory("/without/mod")


def test_git_dir_is_kept(shared_site: Site, forge: Forge) -> None:
    """With one commit, a name for it, and nothing that runs by itself."""
    image = shared_site.build(
        f"FROM tiny\nADD --keep-git-dir {forge.url}#other /r\nADD {forge.url}?keep-git-dir=1&tag=v1 /t"
    )
    assert image.text("/r/.git/HEAD").strip() == forge.other
    assert image.text("/r/.git/refs/heads/other").strip() == forge.other
    assert image.text("/r/.git/shallow").strip() == forge.other
    assert forge.url in image.text("/r/.git/config")
    assert image.names("/r/.git/hooks") == ()
    assert image.text("/t/.git/refs/tags/v1").strip() == forge.main.git("rev-parse", "v1")
    assert image.text("/r/mod/.git") == "gitdir: ../.git/modules/m\n"


def test_checksums(shared_site: Site, forge: Forge) -> None:
    """They are commits, whole or how they begin; also of a tag that has one of its own."""
    tag = forge.main.git("rev-parse", "v1")
    for checksum, ref in (
        (forge.first, "v1"),
        (tag, "v1"),
        (forge.newest[:12], "main"),
        (forge.first, forge.first),
    ):
        assert shared_site.build(f"FROM tiny\nADD --checksum={checksum} {forge.url}#{ref} /d").is_file("/d/a")
    for checksum, ref in ((forge.first, "main"), (forge.newest[:12], "v1"), (forge.first, forge.newest)):
        with pytest.raises(BuildError, match=rf"Dockerfile:2: .*is commit {'.' * 40}, not {checksum}"):
            shared_site.build(f"FROM tiny\nADD --checksum={checksum} {forge.url}#{ref} /d")
    with pytest.raises(BuildError, match="is no commit's hash"):
        shared_site.build(f"FROM tiny\nADD --checksum=sha256:{'0' * 64} {forge.url} /d")


def test_what_is_not_fetched_again(site: Site, changing: Forge) -> None:
    """A commit is known by its hash: by name the server is asked for that, by hash nothing; a branch may move."""
    asked = changing.server.asked
    named, exact = (
        f"FROM tiny\nADD {changing.url}#main /d",
        f"FROM tiny\nADD {changing.url}#{changing.newest} /d",
    )
    signs = []
    for text in (named, named, exact, f"FROM tiny\nADD {changing.url} /d"):
        asked.clear()
        site.build(text)
        signs.append((site.told.signs, changing.server.fetches, bool(asked)))
    assert signs == [(".", 1, True), ("*", 0, True), ("*", 0, False), ("*", 0, True)]
    moved = changing.main.commit({"a": "moved"})
    assert site.build(named).text("/d/a") == "moved"
    assert site.told.signs == "."
    site.build(f"FROM tiny\nADD --keep-git-dir {changing.url}#{moved} /d")
    assert site.told.signs == "."
    site.build(f"FROM tiny\nADD {changing.url}#{changing.first} /d", cache="disabled")
    assert changing.server.fetches


def test_servers_that_give_only_what_has_a_name(site: Site, changing: Forge) -> None:
    """A commit that they don't give alone is found among all that they have; one that nobody has is not."""
    changing.server.old = True
    assert site.build(f"FROM tiny\nADD {changing.url}#{changing.first} /d").text("/d/a") == "zero"
    assert changing.server.fetches == 2
    assert site.build(f"FROM tiny\nADD {changing.url}#other /d").text("/d/mod/i n/deep") == "deep"
    with pytest.raises(BuildError, match=r"Dockerfile:2: .*main.git has no commit 000"):
        site.build(f"FROM tiny\nADD {changing.url}#{'0' * 39}1 /d")
    site.assert_clean()


def test_what_can_not_be_had(shared_site: Site, forge: Forge) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        rows = [
            (f"{forge.url}#nothing", "main.git has no nothing", "lists branches"),
            (f"{forge.url}#{forge.first[:9]}", f"has no {forge.first[:9]}", "all 40 digits"),
            (f"{forge.server.url}/none.git", "none.git/' not found", "is the URL right?"),
            (f"http://127.0.0.1:{port}/x.git", "127.0.0.1", "is the URL right"),
            (f"git://127.0.0.1:{port}/x", "127.0.0.1", "is the URL right"),
            (f"ssh://git@127.0.0.1:{port}/x", f"port {port}: Connection refused", "is the URL right"),
            (f"{forge.url}#main:a", "has no directory a in commit", "relative to"),
            (f"{forge.url}#main:out", "has no directory out in commit", "relative to"),
        ]
        for word, why, hint in rows:
            with pytest.raises(BuildError) as caught:
                shared_site.build(f"FROM tiny\nADD {word} /d")
            assert why in caught.value.message
            assert "Dockerfile:2" in caught.value.message
            assert hint in caught.value.hint
    with pytest.raises(BuildError, match="COPY takes no URL"):
        shared_site.build(f"FROM tiny\nCOPY {forge.url} /d")
    with pytest.raises((BuildError, ImageError), match="git is not installed"):
        shared_site.build(f"FROM tiny\nADD {forge.url} /d", environment={"PATH": "/nonexistent"})
    shared_site.assert_clean()


HOSTILE = [
    "https://h/x.git#--upload-pack=touch${IFS}x", "https://h/x.git?ref=-x", "https://h/x.git?tag=a&branch=b",
    "https://h/x.git#a..b", "https://h/x.git#a:../../etc", "https://h/x.git#a:.git", "https://h/x.git?exec=x",
    "ssh://-oProxyCommand=x/y.git", "ssh://-oProxyCommand=x@h/y.git", "git@h:-oProxyCommand=x", "git://h/-x",
    "ssh://h", "https://h:99999/x.git", "https://[::1/x.git", "ssh://u:p@h/x", "https://h/x.git#a\x07b",
    "https://h/\x07/x.git", "https://h/x.git?ref=a%0ab", "https://h/x.git?commit=main",
]  # fmt: skip


def test_hostile_words() -> None:
    """Nothing becomes an option of git or ssh, and nothing of them is asked for on a network."""
    for word in HOSTILE:
        assert gitref.is_git(word), word
        with pytest.raises(gitref.GitRefError):
            gitref.parse(word)
    for word in (
        "ext::sh -c x",
        "file:///x/.git",
        "/x/y.git",
        "./x.git",
        "https://h/x.git/y",
        "-u@h:x",
        "h:x.git",
    ):
        assert not gitref.is_git(word), word


def test_what_is_told_of_a_url() -> None:
    """No password, and of http no user, which may be a token; that of ssh is none."""
    for text, told in (
        ("ADD https://me:pw@h/x.git#a@b /d", "ADD https://*****@h/x.git#a@b /d"),
        ("http://t:k@n@h http://h/a@b", "http://*****@h http://h/a@b"),
        ("ssh://git@h/x git+ssh://git:pw@h", "ssh://git@h/x git+ssh://git:**@h"),
        ('["https://token@h"] git@h:x://y', '["https://*****@h"] git@h:x://y'),
    ):
        assert masked(text) == told


def test_hostile_repositories(site: Site, changing: Forge, tmp_path: Path) -> None:
    """No program of a repository runs, no submodule is a file or a command here, also where users allow it."""
    pwned = tmp_path / "pwned"
    home = tmp_path / "home"
    home.mkdir()
    (home / "hook").mkdir()
    (home / "hook/post-checkout").write_text(f"#!/bin/sh\ntouch {pwned}\n")
    (home / "hook/post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {pwned}\n[core]\n\thooksPath = {home}/hook\n[protocol]\n\tallow = always\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    site.build(f"FROM tiny\nADD {changing.url} /d", environment=environment)
    rows = [
        (f"ext::touch {pwned}", "", "transport 'ext' not allowed"),
        (f"file://{changing.main.path}", "", "transport 'file' not allowed"),
        ("../main.git", f"update = !touch {pwned}", "invalid value for 'submodule.m.update'"),
        (f"-u{pwned}", "", "No url found for submodule path 'mod'"),
    ]
    for url, more, why in rows:
        text = f'[submodule "m"]\n\tpath = mod\n\turl = "{url}"\n\t{more}\n'
        changing.main.commit({".gitmodules": text, "mod": f"@{changing.first}"})
        with pytest.raises(BuildError, match=f"can't fetch .*{why}"):
            site.build(f"FROM tiny\nADD {changing.url} /d", environment=environment)
    assert not pwned.exists()
    site.assert_clean()


def test_passwords(site: Site, changing: Forge) -> None:
    """That of a URL, or a token, lets in, and is neither shown nor kept anywhere."""
    for user, word, secrets in (
        ("me:geheim", "http://me:geheim@", {}),
        ("x-access-token:geheim", "http://", {"GIT_AUTH_TOKEN.127.0.0.1": Secret(value="geheim\n")}),
    ):
        changing.server.login = f"Basic {base64.b64encode(user.encode()).decode()}"
        url = changing.url.replace("http://", word)
        image = site.build(f"FROM tiny\nADD --keep-git-dir {url} /{len(secrets)}", secrets=secrets)
        assert image.text(f"/{len(secrets)}/a") == "one"
        with pytest.raises(BuildError) as caught:
            site.build(f"FROM tiny\nADD {url}#none /d", secrets=secrets)
        with pytest.raises(BuildError) as refused:
            site.build(f"FROM tiny\nADD {url.replace('geheim', 'geheimer')} /d")
        said = [
            str(caught.value),
            caught.value.hint,
            str(refused.value),
            refused.value.hint,
            *site.told.warnings,
        ]
        said += [text for _, text in site.told.steps]
        assert "geheim" not in json.dumps([*said, site.image().config.decode()])
        with pytest.raises(BuildError, match="plain http"):  # 192.0.2.2: nobody has it (RFC 5737)
            site.build(
                f"FROM tiny\nADD {word}192.0.2.2:1/x.git /d",
                secrets=dict.fromkeys(("GIT_AUTH_TOKEN",), Secret(value="geheim")),
            )
    assert "secret id=GIT_AUTH_TOKEN" in refused.value.hint
    found = subprocess.run(["grep", "-r", "-l", "geheim", site.store.path], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"")


def test_servers_that_lead_elsewhere(site: Site, forge: Forge, tmp_path: Path) -> None:
    """They are followed, but not with a password, which is for their eyes only."""
    with serving(tmp_path) as server:
        server.leads = forge.server.url
        assert site.build(f"FROM tiny\nADD {server.url}/main.git /d").text("/d/a") == "one"
        forge.server.asked.clear()
        with pytest.raises(BuildError) as caught:
            site.build(f"FROM tiny\nADD {server.url.replace('//', '//me:pw@')}/main.git /e")
    assert "passwords are told to no other server" in caught.value.hint
    assert forge.server.asked == []


DOCKERFILE = "FROM tiny\nARG WHO\nCOPY . /d/\nRUN cat /d/a >/said"
CONTEXT = {
    "Dockerfile": DOCKERFILE, "a": "context", ".dockerignore": "no\n", "no": "no", "evil": "->/etc/shadow",
    "x/b.df": f"{DOCKERFILE}\nRUN echo below >>/said", "x/a": "x", "x/b.df.dockerignore": "y", "x/y": "y",
    "x/evil": "->../../../../../version", "x/link": "->y",
}  # fmt: skip


@dataclass(frozen=True)
class Contexts:
    """ch-image build in this process, with what serves a repository of a context, and its storage."""

    site: Site
    server: Server
    url: str

    def build(self, *words: str) -> None:
        """Build."""
        environment = {"CH_IMAGE_STORAGE": str(self.site.store.path), "PATH": os.environ["PATH"]}
        assert ch_image(["build", *words], environment) == 0


@pytest.fixture(scope="module")
def contexts(shared_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contexts]:
    """Return the same with a repository My.App."""
    directory = tmp_path_factory.mktemp("contexts")
    make_repository(directory / "My.App.git").commit(CONTEXT)
    with serving(directory) as server:
        yield Contexts(shared_site, server, f"{server.url}/My.App.git")


def test_contexts_of_repositories(contexts: Contexts, capsys: pytest.CaptureFixture[str]) -> None:
    """With the Dockerfile in them, or another there; a subdirectory; what was done is not done again."""
    site = contexts.site
    contexts.build(contexts.url)
    assert "My.App.git, commit " in capsys.readouterr().err
    assert site.store_view("my.app").text("/said") == "context"
    assert not site.store_view("my.app").is_file("/d/no")
    contexts.build(f"{contexts.url}#main")
    again = capsys.readouterr().err
    assert "  3* COPY" in again
    assert "  4* RUN" in again
    contexts.build("-f", "b.df", f"{contexts.url}#main:x")
    assert site.store_view("b").text("/said") == "xbelow\n"
    assert site.store_view("b").names("/d") == ("a", "b.df", "b.df.dockerignore", "evil", "link")
    site.assert_clean()


def test_contexts_with_another_dockerfile(
    contexts: Contexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From standard input; and Docker's build argument that keeps .git."""
    (tmp_path / "text").write_text("FROM tiny\nCOPY a .git/HEAD /\n")
    with (tmp_path / "text").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        contexts.build("-t", "kept", "-f", "-", "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", contexts.url)
    assert len(contexts.site.store_view("kept").text("/HEAD").strip()) == 40
    assert "not used" not in capsys.readouterr().err
    contexts.site.assert_clean()


def test_contexts_of_files(contexts: Contexts, tmp_path: Path) -> None:
    """An archive is a context, any other file a Dockerfile without one."""
    site = contexts.site
    (tmp_path / "app.tar").write_bytes(archive({"Dockerfile": DOCKERFILE.encode(), "a": b"archive"}))
    (tmp_path / "y.df").write_text("FROM tiny\nRUN echo alone >/said")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        contexts.build(f"{url}/app.tar")
        contexts.build(f"{url}/y.df")
        server.shutdown()
    assert site.store_view("app").text("/said") == "archive"
    assert site.store_view("y").text("/said") == "alone\n"
    site.assert_clean()


def test_contexts_that_are_wrong(contexts: Contexts) -> None:
    for words, why in (
        (["-f", "../ctx/Dockerfile", contexts.url], "no such Dockerfile: ../ctx/Dockerfile"),
        (["-f", "evil", f"{contexts.url}#:x"], "no such Dockerfile: evil"),
        ([f"{contexts.url}#:none"], "has no directory none"),
        ([f"{contexts.url}#none"], "has no none"),
        ([f"{contexts.url}#--upload-pack=x"], "can't be one"),
        (["https://me:geheim@h/x.git?y=1"], "can't build from https://*********@h/x.git"),
        (["ftp://me:geheim@h/x.tar"], "can't build from ftp://*********@h/x.tar"),
    ):
        with pytest.raises((BuildError, UsageError)) as caught:
            contexts.build("-t", "wrong", *words)
        assert why in caught.value.message
        assert caught.value.hint
        assert "geheim" not in caught.value.hint
    contexts.site.assert_clean()


DAEMON = (
    "git",
    "daemon",
    "--reuseaddr",
    "--export-all",
    "--listen=127.0.0.1",
    "--base-path=/home/alice/repos",
)
PORT = 9419
URL = f"git://127.0.0.1:{PORT}/app.git"

# git daemon runs it for each request: of all but the first of a build, which asks for names, it makes a long one.
HOOK = """#!/bin/sh
cd /home/alice
[ -e stall ] || exit 0
[ -e asked ] && touch stalled && exec sleep 60
touch asked
"""


@pytest.fixture
def desk(machine: Machine, image_tiny: Path, ch_run: Path, tmp_path: Path) -> Iterator[Desk]:
    """Return alice's desk, and git's own server with a repository of hers."""
    desk = Desk(machine, image_tiny, ch_run)
    make_repository(tmp_path / "app.git").commit(CONTEXT)
    (desk.home / "repos").mkdir()
    shutil.copytree(tmp_path / "app.git", desk.home / "repos/app.git")
    (desk.home / "hook").write_text(HOOK)
    (desk.home / "hook").chmod(0o755)
    machine.root("chown -R alice: /home/alice/repos")
    words = [*DAEMON, f"--port={PORT}", "--access-hook=/home/alice/hook"]
    process = machine.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    probe = ["bash", "-c", f"until exec 3<>/dev/tcp/127.0.0.1/{PORT}; do sleep 0.02; done"]
    assert machine.run(probe, timeout=20).returncode == 0
    yield desk
    process.terminate()
    process.wait()


def test_killed_while_it_fetches(desk: Desk) -> None:
    """Interrupted by hand, it leaves nothing; killed, what the next command removes. That builds, for alice."""
    desk.machine.run(["touch", "/home/alice/stall"])
    for number in (int(signal.SIGINT), int(signal.SIGKILL)):
        for name in ("asked", "stalled"):
            (desk.home / name).unlink(missing_ok=True)
        words = [*BY_HAND, CH_IMAGE, "build", "-t", "wrong", URL]
        child = desk.machine.popen(words, env=desk.environment, cwd="/home/alice")
        deadline = time.monotonic() + 30
        while not (desk.home / "stalled").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert desk.leftovers
        for pid in desk.machine.run(["pgrep", "-u", "alice", "-f", "ch-image build"]).stdout.split():
            desk.machine.run(["kill", f"-{number}", pid])
        child.communicate(timeout=30)
        assert child.returncode
        assert number == signal.SIGKILL or desk.leftovers == []
        assert desk.machine.run(["pgrep", "-u", "alice", "-f", "git .*fetch"]).stdout == ""
    (desk.home / "stall").unlink()
    for path in (desk.home / "store/tmp").iterdir():
        os.utime(path, (1, 1))  # what is a moment old may be somebody's who just begins
    desk.ok("build", URL)
    assert desk.leftovers == []
    assert desk.run("app", "cat", "/said") == "context"


@pytest.mark.parametrize("word", ["x/y", "x/y.git", "x/y/", "x/y.git/"])
@pytest.mark.parametrize("behind", ["", "?ref=main", "#v1:sub", "?ref=a#b"])
def test_repositories_on_github_need_no_scheme(word: str, behind: str) -> None:
    assert context.in_full(f"github.com/{word}{behind}") == f"https://github.com/x/y.git{behind}"
