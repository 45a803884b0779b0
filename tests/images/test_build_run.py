"""RUN in builds: what a command sees, what its layer has, what it can't do, and what is never kept of it."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from builds import Site
from space import UnavailableError

from chlaunch.errors import BuildError
from chlaunch.image.build.binds import Bind
from chlaunch.image.build.request import Secret
from chlaunch.image.build.running import CommandError

SECRET = "hunter2-and-more"  # noqa: S105  for these tests only


def all_bytes(site: Site) -> bytes:
    """Return all that is in storage, but of images that were there before."""
    found = b""
    for top, _, names in os.walk(site.store.path):
        for name in names:
            path = Path(top, name)
            found += os.fsencode(path) + (
                path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            )
    return found


COMMANDS = [
    ("RUN echo a >/said", "a\n"),
    ('RUN ["/bin/sh", "-c", "echo $0 >/said", "$HOME"]', "$HOME\n"),
    ("RUN <<EOF\necho a >/said\necho b >>/said\nEOF", "a\nb\n"),
    ("RUN cat <<EOF >/said\n$HOME\nEOF", "/root\n"),
    ("RUN cat <<'EOF' >/said\n$HOME\nEOF", "$HOME\n"),
    ("RUN cat <<A <<B >/said\na\nA\nb\nB", "b\n"),
    ('RUN <<EOF\n#!/bin/awk -f\nBEGIN { print 6 * 7 >"/said" }\nEOF', "42\n"),
    ("RUN true && \\\n  # a comment\n  echo a \\\n  b >/said", "a b\n"),
    ('SHELL ["/bin/sh", "-c", "echo shell: $0 >/said"]\nRUN words here', "shell: words here\n"),
    ("WORKDIR /w/v\nRUN pwd >/said", "/w/v\n"),
    ("ENV A=1\nARG B=2\nARG A=3\nRUN echo $A$B >/said", "12\n"),
    ("ARG A=${UNSET:-x}\nENV B=${A}y\nRUN echo $B >/said", "xy\n"),
    ("ENV HOME=/else\nRUN echo ~ >/said", "/else\n"),
    ("RUN rmdir /root; echo ~ >/said", "/root\n"),
    ("RUN rmdir /root\nRUN echo ~ >/said", "/\n"),
    ("ENV PATH=/only:/bin\nRUN echo $PATH >/said", "/only:/bin\n"),
    ("ENV Q=\"'q'\" E=\nRUN echo $Q-${E-unset}- >/said", "'q'--\n"),
    ("RUN id -u >/said; id -g >>/said", "0\n0\n"),
    ("RUN chown 12:34 /etc/passwd && mknod /c c 1 3 && echo ok >/said", "ok\n"),
    ("RUN cat; readlink /proc/self/fd/0 >/said", "/dev/null\n"),
    ("RUN echo a >/said\nRUN echo b >>/said", "a\nb\n"),
    ("RUN echo $SOME_VARIABLE_OF_THE_HOST >/said", "\n"),
    ("RUN --network=none ls /sys/class/net >/said; ip -o link | wc -l >>/said", None),
    ("RUN --network=host echo x >/said", "x\n"),
    ("RUN umask >/said", "0022\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), COMMANDS, ids=[text.replace("\n", "|") for text, _ in COMMANDS])
def test_commands(shared_site: Site, monkeypatch: pytest.MonkeyPatch, text: str, said: str | None) -> None:
    monkeypatch.setenv("SOME_VARIABLE_OF_THE_HOST", "x")
    before = os.umask(0o022)
    try:
        found = shared_site.run(f"FROM tiny\n{text}\n")
    finally:
        os.umask(before)
    if said is None:
        assert "1\n" in found
    else:
        assert found == said
    shared_site.assert_clean()


def test_an_image_s_variables_are_not_for_the_host_s_programs(site: Site) -> None:
    """What LD_PRELOAD names in the image is not loaded on the host, where it may be something else."""
    said = site.run(
        "FROM tiny\nENV LD_PRELOAD=/said PATH=/nowhere LD_LIBRARY_PATH=/x\n"
        'RUN ["/bin/sh", "-c", "echo $LD_PRELOAD $PATH >/said"]'
    )
    assert said == "/said /nowhere\n"


def test_many_variables(site: Site) -> None:
    given = {f"V{number}": "x" * 100_000 for number in range(15)}
    text = f"FROM tiny\nARG {' '.join(given)}\nRUN echo ${{#V0}} ${{#V14}} >/said"
    assert site.run(text, given=given) == "100000 100000\n"


@pytest.mark.overlays
def test_only_changes_are_in_the_layer(site: Site) -> None:
    """Mount points are gone, also those of usual mounts in an image that lacks them; what changed nothing has none."""
    site.files({"x": "1"})
    site.build(
        "FROM tiny AS t\nFROM scratch\nCOPY --from=t /usr/bin /bin\n"
        "RUN --mount=target=/a/b/c --mount=type=tmpfs,target=/t true\n"
        "RUN --mount=type=secret,id=s --mount=type=cache,target=/home/c echo 1 >/x\n",
        secrets={"s": Secret(value="1")},
    )
    trees = [sorted(path.name for path in site.store.tree(layer).iterdir()) for layer in site.image().layers]
    assert trees[:2] == [["bin"], ["x"]]


@pytest.mark.overlays
def test_set_id_bits_and_closed_files(site: Site) -> None:
    """Whoever may enter storage must find nothing that makes them us; and we must be able to read it."""
    site.build(
        "FROM tiny\nRUN echo 1 >/s && chmod 6755 /s && mkdir /d /d/e && echo 1 >/d/e/f && "
        "chmod 0 /d/e/f /d/e /d && chmod 2777 /opt && chmod 0 /"
    )
    layer = site.store.tree(site.image().layers[1])
    assert oct((layer / "s").stat().st_mode & 0o7777) == "0o755"
    assert oct((layer / "opt").stat().st_mode & 0o7777) == "0o777"
    assert (layer / "d/e/f").stat().st_mode & 0o400
    assert site.image().layers[1].dropped == {"set-id bits": 1}
    assert site.inside("cat /d/e/f") == "1\n"


def test_binds_are_private(site: Site) -> None:
    """What a step writes to a mount of the context, a stage or an image is nobody's."""
    site.files({"x": "1", "d/y": "2"})
    (site.context / "x").chmod(0o640)
    said = site.run(
        """FROM tiny AS s
RUN mkdir /m && echo 3 >/m/z && ln -s z /m/l
FROM tiny
RUN --mount=target=/c,rw --mount=from=s,source=/m,target=/s,rw --mount=from=tiny,target=/i \\
    --mount=source=x,target=/file --mount=type=bind,source=d,target=rel \\
    cat /c/x /c/d/y /s/z /s/l /file /rel/y >/said; stat -c %a /c/x >>/said; test -f /i/bin/sh; \\
    echo new >/c/x; echo new >/s/z; echo new 2>&- >/i/q || echo closed >>/said
RUN test ! -e /c && test ! -e /s && test ! -e /file && test ! -e /i/bin
"""
    )
    assert said == "123\n3\n12640\nclosed\n"
    assert (site.context / "x").read_text() == "1"
    site.build("FROM tiny AS s\nRUN mkdir /m && echo 3 >/m/z && ln -s z /m/l\nRUN cat /m/z >/said")
    assert site.store_view().text("/said") == "3\n"


def test_caches(site: Site) -> None:
    """They outlive builds and are in no image; by id, or by target."""
    text = "FROM tiny\nARG N\nRUN --mount=type=cache,target=/c echo $N >>/c/f && cat /c/f >/said\n"
    assert site.run(text, given={"N": "1"}) == "1\n"
    assert site.run(text, given={"N": "2"}) == "1\n2\n"
    assert (
        site.run("FROM tiny\nRUN --mount=type=cache,id=/c,target=/d,sharing=locked cat /d/f >/said")
        == "1\n2\n"
    )
    twice = (
        "--mount=type=cache,id=/c,target=/1,sharing=locked --mount=type=cache,id=/c,target=/2,sharing=private"
    )
    assert site.run(f"FROM tiny\nRUN {twice} cat /1/f /2/f >/said") == "1\n2\n1\n2\n"
    assert not site.store_view().names("/c")


def test_locked_caches_in_any_order(site: Site) -> None:
    """Two builds that lock two caches in opposite order both end; and never use one at the same time."""
    texts = [
        "FROM tiny\n"
        f"RUN --mount=type=cache,id={a},target=/{a},sharing=locked --mount=type=cache,id={b},target=/{b},sharing=locked "
        f"mkdir /x/lock && sleep 0.2 && rmdir /x/lock; echo $? >/said; mkdir /{a}/l && sleep 0.1 && rmdir /{a}/l; echo $? >>/said"
        for a, b in (("x", "y"), ("y", "x"))
    ]
    said: list[str] = []

    def build(number: int) -> None:
        said.append(site.build(texts[number], name=f"out{number}").text("/said"))

    threads = [threading.Thread(target=build, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert said == ["0\n0\n"] * 2


def test_secrets(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A command sees them, as a file or variable; words, logs, image, cache and storage never."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    secrets = {"f": Secret(file=file), "v": Secret(value=SECRET)}
    watched: list[bytes] = []
    done = threading.Event()
    seen = tmp_path / "seen"
    seen.mkdir()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    watched.append(path.read_bytes())
            if any(b"md5sum" in line for line in watched):
                (seen / "command").touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    text = (
        "FROM tiny\nRUN --mount=type=secret,id=f --mount=type=secret,id=f,target=/else,mode=0444 "
        "--mount=type=secret,id=v,env=TOKEN --mount=type=secret,id=none md5sum </run/secrets/f >/said; "
        "echo -n $TOKEN | md5sum >>/said; stat -c %a /run/secrets/f /else >>/said; "
        'test -z "$(ls /run/secrets | grep none)" || exit 1; for i in $(seq 300); do [ ! -e /seen/command ] || exit 0; sleep 0.1; done; exit 1'
    )
    try:
        said = site.run(text, secrets=secrets, binds=(Bind(seen, "/seen"),))
    finally:
        done.set()
        watcher.join()
    lines = said.splitlines()
    assert lines[0] == lines[1]
    assert lines[2:] == ["400", "444"]
    assert not any(SECRET.encode() in line for line in watched)
    output = capfd.readouterr()
    assert SECRET not in output.out + output.err + repr(site.told) + repr(secrets)
    assert SECRET.encode() not in all_bytes(site)
    site.build(text, secrets={"f": Secret(value="another"), "v": Secret(value="another")})
    assert site.told.signs == "*"
    with pytest.raises(BuildError, match="no secret needed"):
        site.build("FROM tiny\nRUN --mount=type=secret,id=needed,required true")
    with pytest.raises(BuildError, match=r"can't read secret f: .*No such file"):
        site.build(
            "FROM tiny\nRUN --mount=type=secret,id=f true", secrets={"f": Secret(file=tmp_path / "no")}
        )
    site.assert_clean()


def test_an_ssh_agent(
    site: Site, tmp_path: Path, may_lack: Callable[[], AbstractContextManager[None]]
) -> None:
    """The agent answers in a step that has it, and in no other; the user's known hosts are there."""
    with may_lack():
        if not shutil.which("ssh-agent"):
            raise UnavailableError("there is no ssh-agent: run tests/setup.sh cluster")
    agent = tmp_path / "agent"
    server = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            time.sleep(0.01)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key", "-C", "me"], check=True
        )
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], check=True, env={"SSH_AUTH_SOCK": str(agent)})
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/known_hosts").write_text("example.com ssh-ed25519 AAAA\n")
        options = {
            "ssh": {"default": str(agent), "other": ""},
            "environment": {"HOME": str(tmp_path), "PATH": "/bin:/usr/bin"},
        }
        # The host's own ssh-add, with the host's libraries, asks it.
        loader = next(Path("/usr/lib").glob("*-linux-gnu/ld-linux*")).relative_to("/usr")
        ask = f"/h/{loader} --library-path /h/{loader.parent} /h/bin/ssh-add -l"
        said = site.run(
            f"FROM tiny\nRUN --mount=type=ssh {ask} >/said && cat /etc/ssh/ssh_known_hosts >>/said\n"
            "RUN test -z $SSH_AUTH_SOCK && test ! -e /run/buildkit && test ! -e /etc/ssh",
            binds=(Bind(Path("/usr"), "/h"),),
            **options,
        )
        assert " me (ED25519)\nexample.com ssh-ed25519" in said
        with pytest.raises(BuildError, match="no SSH agent other"):
            site.build("FROM tiny\nRUN --mount=type=ssh,id=other,required true", **options)
    finally:
        server.terminate()
        server.wait()


def test_no_network(site: Site) -> None:
    """With none, a server of this machine can't be reached; otherwise it can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = "FROM tiny\nRUN --network=%s nc -w 1 127.0.0.1 " + str(port) + " </dev/null; echo $? >/said"

        def serve() -> None:
            server.accept()[0].close()

        accept = threading.Thread(target=serve, daemon=True)
        accept.start()
        assert site.run(text % "host") == "0\n"
        accept.join()
        assert site.run(text % "none") == "1\n"


def test_proxies(site: Site) -> None:
    """They are there, from the host or --build-arg, and no reason to do a step again; nor in the image."""
    text = "FROM tiny\nRUN echo $https_proxy $HTTP_PROXY >/said"
    host = {"https_proxy": "http://one", "PATH": os.environ["PATH"]}
    assert site.run(text, environment=host, given={"HTTP_PROXY": "http://two"}) == "http://one http://two\n"
    assert site.run(text) == "http://one http://two\n"
    assert site.told.signs == "*"
    assert b"http://one" not in site.image().config


def test_binds_of_the_host(site: Site, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("1")
    assert site.run("FROM tiny\nRUN cat /s >/said", binds=(Bind(tmp_path / "seen", "/s"),)) == "1"


def test_root_emulation(site: Site) -> None:
    """Without it, what needs privilege fails; fakeroot is put in front, and without any there is an error."""
    text = "FROM tiny\nRUN chown 12:34 /etc/passwd"
    site.build(text)
    with pytest.raises(CommandError):
        site.build(text, force="none")
    fake = "FROM tiny\nCOPY --chmod=755 <<'EOF' /usr/bin/fakeroot\n#!/bin/sh\necho fake >/said\nexec \"$@\"\nEOF\n"
    assert site.run(f"{fake}RUN true", force="fakeroot") == "fake\n"
    with pytest.raises(
        BuildError, match=r"Dockerfile:2:1: .*no fakeroot, and no package manager .*apt-get, dnf"
    ):
        site.build("FROM tiny\nRUN true", force="fakeroot")


def test_words_behind_programs(site: Site) -> None:
    text = "FROM tiny\nCOPY --chmod=755 <<'EOF' /bin/tool\n#!/bin/sh\necho \"$@\" >>/said\nEOF\n"
    said = site.run(f"{text}RUN tool a; /bin/tool b; mytool c || tool\n", commands=(("tool", "-x", "y z"),))
    assert said == "-x y z a\nb\n-x y z\n"


@pytest.mark.overlays
def test_apt_is_told(site: Site) -> None:
    """Where there is an apt, it is told to stay root; no trace of that is in the image."""
    said = site.run(
        "FROM tiny\nRUN mkdir -p /etc/apt/apt.conf.d\nRUN cat /etc/apt/apt.conf.d/* >/said\nRUN true"
    )
    assert "APT::Sandbox::User" in said
    assert site.store_view().names("/etc/apt/apt.conf.d") == ()
    assert len(site.image().layers) == 4


FAILING = [
    ("RUN exit 3", "RUN command exited with 3, at Dockerfile:2: RUN exit 3", 3),
    ("RUN echo first\nRUN false", "exited with 1, at Dockerfile:3: RUN false", 1),
    ("RUN kill -KILL $$", "was ended by SIGKILL", 137),
    ("RUN kill -TERM $$", "was ended by SIGTERM", 143),
    ('RUN ["/nothing"]', "exited with 49", 49),
    ('RUN ["/bin/rm", "-rf", "/usr"]\nRUN true', "exited with 49", 49),
    ("RUN <<EOF\n#!/nowhere\nEOF", "exited with 49", 49),
    ("WORKDIR /w\nRUN rmdir /w\nRUN true", "exited with 31", 31),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why", "code"), FAILING, ids=[text.replace("\n", "|") for text, _, _ in FAILING]
)
def test_failures(shared_site: Site, text: str, why: str, code: int) -> None:
    """The step, its line, its command and what it ended with are said; nothing is left in storage."""
    with pytest.raises(CommandError) as caught:
        shared_site.build(f"FROM tiny\n{text}\n", name="failing")
    assert why in caught.value.message
    assert caught.value.message.startswith("build failed: RUN command ")
    assert caught.value.code == code
    assert "--on-failure=shell" in caught.value.hint
    assert shared_site.store.image("failing") is None
    shared_site.assert_clean()


def test_run_without_files(site: Site) -> None:
    with pytest.raises(BuildError, match="Dockerfile:2:1: RUN in an image without files"):
        site.build("FROM scratch\nRUN true")


@pytest.mark.overlays
@pytest.mark.parametrize(
    "how",
    [
        "( while :; do date >>/busy; sleep 0.01; done ) &",
        "setsid sh -c 'sh -c \"while :; do date >>/busy; done\" &' &",
    ],
)
def test_what_is_left_running_is_ended(site: Site, how: str) -> None:
    """Daemons, however they detach themselves, are gone when the step is, and write no more into its layer."""
    site.build(f"FROM tiny\nRUN {how} while ! test -s /busy; do :; done")
    file = site.store.tree(site.image().layers[1]) / "busy"
    size = file.stat().st_size
    time.sleep(0.3)
    assert file.stat().st_size == size
    mine = [path for path in Path("/proc").glob("[0-9]*/mountinfo") if str(site.store.path) in read(path)]
    assert mine == []


def read(path: Path) -> str:
    """Return a text of /proc; nothing if its process has gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def test_deep_directories(site: Site) -> None:
    with pytest.raises(BuildError, match="255 directories"):
        site.build("FROM tiny\nRUN for i in $(seq 400); do mkdir d && cd d || exit 1; done")
    site.assert_clean()


def test_a_removed_image(site: Site) -> None:
    """A step may remove whole directories, /usr too; what follows sees what is left."""
    image = site.build(
        'FROM tiny\nCOPY --from=tiny /usr/bin/busybox /keep/busybox\nRUN rm -rf /usr /var\nRUN ["/keep/busybox", "echo", "x"]'
    )
    assert image.names("/usr") == ()
    assert image.is_file("/keep/busybox")
