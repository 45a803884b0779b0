"""ADD of git repositories, and repositories as contexts: what comes of them, what is refused, what is not done twice."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from made import archive
from repositories import Repository, Server, make_repository, serving
from test_build_cli import CH_IMAGE, Desk

from chlaunch.errors import BuildError, ImageError
from chlaunch.image.build.request import Secret
from chlaunch.image.dockerfile import gitref

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builds import Site
    from machine import Machine

FILES = {"a": "one", "run": "#!/bin/sh", "dir/sub/two": "2", "link": "->a", "out": "->/etc", "dirlink": "->dir"}


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
def changing(tmp_path: Path) -> Iterator[Forge]:
    """Return a forge of its own for a test."""
    (tmp_path / "forge").mkdir()
    with made_forge(tmp_path / "forge") as forge:
        yield forge


def test_what_references_mean(site: Site, forge: Forge) -> None:
    """Branches, tags, other names and commits, in a fragment or a query; directories, links and modes."""
    url = forge.url
    image = site.build(
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
    names = ".gitattributes a dir dirlink link out run".split()
    assert list(image.names("/default")) == names
    assert list(image.names("/less")) == [name for name in names if name not in ("dir", "out")]
    modes = {path: oct(image.mode(path) or 0) for path in ("/default", "/default/run", "/default/a", "/less/run")}
    assert list(modes.values()) == ["0o40755", "0o100755", "0o100644", "0o100700"]
    assert not site.told.warnings, "plain http to this machine itself is no danger"
    site.assert_clean()


def test_submodules(site: Site, forge: Forge) -> None:
    """They come with theirs, from where URLs relative to their own lead, and can be left out."""
    text = f"FROM tiny\nADD {forge.url}#other /with\nADD {forge.url}?ref=other&submodules=false /without"
    image = site.build(text)
    assert (image.text("/with/mod/m"), image.text("/with/mod/i n/deep")) == ("module", "deep")
    assert list(image.names("/with/mod")) == [".gitmodules", "i n", "m"]
    assert image.names("/without/mod") == ()
    assert image.is_directory("/without/mod")


def test_git_dir_is_kept(site: Site, forge: Forge) -> None:
    """With one commit, a name for it, and nothing that runs by itself."""
    image = site.build(f"FROM tiny\nADD --keep-git-dir {forge.url}#other /r\nADD {forge.url}?keep-git-dir=1&tag=v1 /t")
    assert image.text("/r/.git/HEAD").strip() == forge.other
    assert image.text("/r/.git/refs/heads/other").strip() == forge.other
    assert image.text("/r/.git/shallow").strip() == forge.other
    assert forge.url in image.text("/r/.git/config")
    assert image.names("/r/.git/hooks") == ()
    assert image.text("/t/.git/refs/tags/v1").strip() == forge.main.git("rev-parse", "v1")
    assert image.text("/r/mod/.git") == "gitdir: ../.git/modules/m\n"


def test_checksums(site: Site, forge: Forge) -> None:
    """They are commits, whole or how they begin; also of a tag that has one of its own."""
    tag = forge.main.git("rev-parse", "v1")
    for checksum, ref in ((forge.first, "v1"), (tag, "v1"), (forge.newest[:12], "main"), (forge.first, forge.first)):
        assert site.build(f"FROM tiny\nADD --checksum={checksum} {forge.url}#{ref} /d").is_file("/d/a")
    for checksum, ref in ((forge.first, "main"), (forge.newest[:12], "v1"), (forge.first, forge.newest)):
        with pytest.raises(BuildError, match=rf"Dockerfile:2: .*is commit {'.' * 40}, not {checksum}"):
            site.build(f"FROM tiny\nADD --checksum={checksum} {forge.url}#{ref} /d")
    with pytest.raises(BuildError, match="is no commit's hash"):
        site.build(f"FROM tiny\nADD --checksum=sha256:{'0' * 64} {forge.url} /d")


def test_what_is_not_fetched_again(site: Site, changing: Forge) -> None:
    """A commit is known by its hash: by name the server is asked for that, by hash nothing; a branch may move."""
    asked = changing.server.asked
    named, exact = f"FROM tiny\nADD {changing.url}#main /d", f"FROM tiny\nADD {changing.url}#{changing.newest} /d"
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
    assert changing.server.fetches == 1
    assert site.build(f"FROM tiny\nADD {changing.url}#other /d").text("/d/mod/i n/deep") == "deep"
    with pytest.raises(BuildError, match="Dockerfile:2: can't fetch"):
        site.build(f"FROM tiny\nADD {changing.url}#{'0' * 39}1 /d")
    site.assert_clean()


def test_what_can_not_be_had(site: Site, forge: Forge) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        rows = [
            (f"{forge.url}#nothing", "main.git has no nothing", "lists branches"),
            (f"{forge.url}#{forge.first[:9]}", f"has no {forge.first[:9]}", "all 40 digits"),
            (f"{forge.server.url}/none.git", "none.git' not found", "is the URL right?"),
            (f"http://127.0.0.1:{port}/x.git", "127.0.0.1", "is the URL right"),
            (f"git://127.0.0.1:{port}/x", "127.0.0.1", "is the URL right"),
            (f"{forge.url}#main:a", "has no directory a in commit", "relative to"),
            (f"{forge.url}#main:out", "has no directory out in commit", "relative to"),
        ]
        for word, why, hint in rows:
            with pytest.raises(BuildError) as caught:
                site.build(f"FROM tiny\nADD {word} /d")
            assert why in caught.value.message
            assert "Dockerfile:2" in caught.value.message
            assert hint in caught.value.hint
    with pytest.raises(BuildError, match="COPY takes no URL"):
        site.build(f"FROM tiny\nCOPY {forge.url} /d")
    with pytest.raises((BuildError, ImageError), match="git is not installed"):
        site.build(f"FROM tiny\nADD {forge.url} /d", environment={"PATH": "/nonexistent"})
    site.assert_clean()


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
    for word in ("ext::sh -c x", "file:///x/.git", "/x/y.git", "./x.git", "https://h/x.git/y", "-u@h:x", "h:x.git"):
        assert not gitref.is_git(word), word


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
    for url, why in ((f"ext::touch {pwned}", "ext"), (f"file://{changing.main.path}", "file"), (f"-u{pwned}", "")):
        text = f'[submodule "m"]\n\tpath = mod\n\turl = "{url}"\n\tupdate = !touch {pwned}\n'
        changing.main.commit({".gitmodules": text, "mod": f"@{changing.first}", "mod2": "->mod"})
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
        said = [str(caught.value), caught.value.hint, str(refused.value), refused.value.hint, *site.told.warnings]
        said += [text for _, text in site.told.steps]
        assert "geheim" not in json.dumps([*said, site.image().config.decode()])
    assert "secret id=GIT_AUTH_TOKEN" in refused.value.hint
    found = subprocess.run(["grep", "-r", "-l", "geheim", site.store.path], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"")


DAEMON = ("git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", "--base-path=/home/alice/repos")
PORT = 9419
DOCKERFILE = "FROM tiny\nARG WHO\nCOPY . /d/\nRUN cat /d/a >/said"


@pytest.fixture(scope="module")
def desk(machine: Machine, image_tiny: Path, ch_run: Path) -> Iterator[Desk]:
    """Return alice's desk, and git's own server with a repository of hers."""
    desk = Desk(machine, image_tiny, ch_run)
    (desk.home / "repos").mkdir()
    repository = make_repository(desk.home / "repos/My.App.git")
    files = {"Dockerfile": DOCKERFILE, "a": "context", ".dockerignore": "no\n", "no": "no", "evil": "->/etc/shadow"}
    below = {"x/b.df": f"{DOCKERFILE}\nRUN echo below >>/said", "x/a": "x", "x/b.df.dockerignore": "y", "x/y": "y"}
    repository.commit({**files, **below, "x/evil": "->../../../../store/version"})
    machine.root("chown -R alice: /home/alice/repos")
    hook = desk.home / "hook"
    hook.write_text("#!/bin/sh\nn=$(ls /home/alice/asked 2>/dev/null | wc -l)\nmkdir -p /home/alice/asked/$n\n"
                    "[ $n -lt 1 ] || [ ! -e /home/alice/stall ] || sleep 60\n")  # fmt: skip
    hook.chmod(0o755)
    words = [*DAEMON, f"--port={PORT}", "--access-hook=/home/alice/hook"]
    process = machine.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    probe = ["bash", "-c", f"until exec 3<>/dev/tcp/127.0.0.1/{PORT}; do sleep 0.02; done"]
    assert machine.run(probe, timeout=20).returncode == 0
    yield desk
    process.terminate()
    process.wait()


URL = f"git://127.0.0.1:{PORT}/My.App.git"


def test_contexts_of_repositories(desk: Desk) -> None:
    """With the Dockerfile in them, or another there; a subdirectory; what is there twice is not done twice."""
    done = desk.ok("build", URL)
    assert "My.App.git, commit " in done.stderr
    assert desk.run("my.app", "cat", "/said") == "context"
    assert "no" not in desk.run("my.app", "ls", "/d").split()
    assert " . " not in desk.ok("build", f"{URL}#main").stderr
    desk.ok("build", "-f", "b.df", f"{URL}#main:x")
    assert desk.run("b", "cat", "/said") == "xbelow\n"
    assert desk.run("b", "ls", "/d").split() == ["Dockerfile", "a", "b.df", "b.df.dockerignore", "evil"][1:]
    shell = f"printf 'FROM tiny\\nCOPY a .git/HEAD /' | {CH_IMAGE} build -t kept -f - --build-arg "
    words = ["sh", "-c", f"{shell} BUILDKIT_CONTEXT_KEEP_GIT_DIR=1 {URL}"]
    done = desk.machine.run(words, env=desk.environment)
    assert (done.returncode, "not used" in done.stderr) == (0, False), done.stderr
    assert len(desk.run("kept", "cat", "/HEAD").strip()) == 40
    assert desk.leftovers == []


def test_contexts_that_are_wrong(desk: Desk) -> None:
    for words, code, why in (
        (["-f", "../ctx/Dockerfile", URL], 1, "no such Dockerfile: ../ctx/Dockerfile"),
        (["-f", "evil", f"{URL}#:x"], 1, "no such Dockerfile: evil"),
        ([f"{URL}#:none"], 1, "has no directory none"),
        ([f"{URL}#none"], 1, "has no none"),
        ([f"{URL}#--upload-pack=x"], 2, "can't be one"),
        (["https://me:geheim@h/x.git?y=1"], 2, "can't build from https://*********@h/x.git"),
        (["ftp://h/x.tar"], 2, "can't build from ftp://h/x.tar"),
    ):
        done = desk.image("build", "-t", "wrong", *words)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode, len(errors)) == (code, 1), done.stderr
        assert why in errors[0]
        assert "hint: " in done.stderr
        assert "geheim" not in done.stderr
    assert desk.leftovers == []


def test_contexts_of_files(desk: Desk) -> None:
    """An archive is a context, any other file a Dockerfile without one."""
    served = desk.home / "served"
    served.mkdir()
    (served / "app.tar").write_bytes(archive({"Dockerfile": DOCKERFILE.encode(), "a": b"archive"}))
    (served / "x.df").write_text("FROM tiny\nRUN echo alone >/said")
    words = ["/usr/bin/python3", "-m", "http.server", "-d", "/home/alice/served", "-b", "127.0.0.1", "9420"]
    process = desk.machine.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        probe = ["bash", "-c", "until exec 3<>/dev/tcp/127.0.0.1/9420; do sleep 0.02; done"]
        assert desk.machine.run(probe, timeout=20).returncode == 0
        desk.ok("build", "http://127.0.0.1:9420/app.tar")
        assert desk.run("app", "cat", "/said") == "archive"
        desk.ok("build", "http://127.0.0.1:9420/x.df")
        assert desk.run("x", "cat", "/said") == "alone\n"
    finally:
        process.terminate()
        process.wait()
    assert desk.leftovers == []


def test_killed_while_it_fetches(desk: Desk) -> None:
    """The next command removes what it left; interrupted by hand, nothing is left."""
    (desk.home / "stall").touch()
    try:
        for number in (signal.SIGINT, signal.SIGKILL):
            desk.machine.root("rm -rf /home/alice/asked")
            words = ["env", "--default-signal=INT", CH_IMAGE, "build", "-t", "wrong", URL]
            child = desk.machine.popen(words, env=desk.environment, cwd="/home/alice")
            deadline = time.monotonic() + 30
            while not (desk.home / "asked/1").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert desk.leftovers
            os.kill(child.pid, number)
            child.communicate(timeout=30)
            assert child.returncode
    finally:
        (desk.home / "stall").unlink()
    desk.machine.root("find /home/alice/store/tmp -mindepth 1 -maxdepth 1 -exec touch -d '-1 minute' {} +")
    desk.ok("list")
    assert desk.leftovers == []
    running = desk.machine.run(["pgrep", "-u", "alice", "-f", "git.*fetch"])
    assert running.stdout == ""
