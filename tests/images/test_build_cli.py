"""ch-image build, modify and build-cache on the command line of an unprivileged user."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chlaunch.cli.build import inferred_tag

if TYPE_CHECKING:
    from machine import Machine

CHECKOUT = Path(__file__).resolve().parents[2]
CH_IMAGE = CHECKOUT / ".venv/bin/ch-image"

# What runs in the background of a script ignores SIGINT, and whatever it starts.
BY_HAND = ("env", "--default-signal=INT")

Done = subprocess.CompletedProcess[str]


class Desk:
    """Alice on the login node, with a storage that has the image tiny, and a directory ctx of her own."""

    def __init__(self, machine: Machine, tiny: Path, ch_run: Path) -> None:
        """Make both."""
        self.machine, self.ch_run = machine, ch_run
        self.home = machine.outside(machine.home())
        self.environment = {"CH_IMAGE_STORAGE": "/home/alice/store"}
        self.ok("import", str(tiny), "tiny")

    def image(self, *words: str, text: str | None = None, **options: str) -> Done:
        """Run ch-image, in her context, with a Dockerfile there."""
        (self.home / "ctx").mkdir(exist_ok=True)
        os.chown(self.home / "ctx", self.machine.users[0].uid, -1)
        if text is not None:
            (self.home / "ctx" / "Dockerfile").write_text(text)
        environment = {**self.environment, **options}
        return self.machine.run([CH_IMAGE, *words], env=environment, cwd="/home/alice/ctx")

    def ok(self, *words: str, text: str | None = None, **options: str) -> Done:
        """Do the same, and see that it succeeds."""
        done = self.image(*words, text=text, **options)
        assert done.returncode == 0, done.stderr
        return done

    def run(self, name: str, *words: str) -> str:
        """Return what a command in an image prints."""
        done = self.machine.run([self.ch_run, name, "--", *words], env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def leftovers(self) -> list[str]:
        """Return what is half-made in storage."""
        return [path.name for path in (self.home / "store/tmp").iterdir()]

    def on_terminal(self, words: list[str], talk: list[tuple[str, str]]) -> tuple[int, str]:
        """Run ch-image on a terminal; wait for each text, and type another. Return code and all that was shown."""
        ours, theirs = pty.openpty()
        child = self.machine.popen(
            [*BY_HAND, "setsid", "--ctty", "--wait", CH_IMAGE, *words],
            env=self.environment,
            cwd="/home/alice/ctx",
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown, seen = "", 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if talk and talk[0][0] in shown[seen:]:
                seen = len(shown)
                os.write(ours, talk.pop(0)[1].encode())
            if not select.select([ours], [], [], 0.1)[0]:
                if child.poll() is not None:
                    break
                continue
            try:
                piece = os.read(ours, 65536)
            except OSError:  # nobody has the other end
                break
            shown += piece.decode(errors="replace")
        os.close(ours)  # which hangs up
        code = child.wait(10)
        assert not talk, shown
        return code, shown


@pytest.fixture(scope="module")
def desk(machine: Machine, image_tiny: Path, ch_run: Path) -> Desk:
    """Return alice's desk."""
    return Desk(machine, image_tiny, ch_run)


TEXT = 'FROM tiny\nARG WHO=world\nCOPY greeting /\nRUN echo $(cat /greeting) $WHO >/said; echo from RUN\nCMD ["cat", "/said"]\n'


def lines_of(done: Done) -> list[str]:
    """Return the lines of instructions."""
    return [line for line in done.stderr.splitlines() if line[:3].strip().isdigit() and " took " not in line]


def test_a_build_and_another(desk: Desk) -> None:
    """One line for each step; the second time nothing is done again; the image runs."""
    desk.ok("list", text=TEXT)
    (desk.home / "ctx/greeting").write_text("hello")
    first = desk.ok("build", "-t", "demo", ".")
    lines = lines_of(first)
    assert lines == [
        "  1* FROM tiny", "  2  ARG WHO=world", "  3. COPY greeting /",
        "  4. RUN echo $(cat /greeting) $WHO >/said; echo from RUN", '  5  CMD ["cat", "/said"]',
    ]  # fmt: skip
    assert first.stderr.splitlines()[-1].startswith("grown in 5 instructions: demo")
    assert first.stdout == "from RUN\n"
    assert desk.run("demo") == "hello world\n"
    second = desk.ok("build", "-t", "demo", ".")
    assert [line[3] for line in lines_of(second)] == list("* ** ")
    assert second.stdout == ""
    third = desk.ok("build", "-t", "demo", "--build-arg=WHO=you", ".")
    assert [line[3] for line in lines_of(third)] == list("* *. ")
    assert desk.run("demo") == "hello you\n"
    assert desk.leftovers == []


def test_how_much_is_said(desk: Desk) -> None:
    slow = desk.ok("build", "-t", "x", "--no-cache", ".", text="FROM tiny\nRUN true\nRUN sleep 1.1\n").stderr
    assert "  3  took 1." in slow
    text = "FROM tiny\nRUN echo out; echo err >&2\nRUN true\n"
    quiet = desk.ok("build", "-q", "-t", "x", "--no-cache", ".", text=text)
    assert (quiet.stdout, quiet.stderr) == ("out\n", "err\n")
    assert "  2  took" in desk.ok("build", "-v", "-t", "x", "--no-cache", ".").stderr
    machine = desk.ok("build", "--json", "-t", "x", "--no-cache", ".")
    assert json.loads(machine.stdout)["name"] == "x"
    rows = [json.loads(line) for line in machine.stderr.splitlines() if line.startswith("{")]
    assert [row["line"] for row in rows if row["event"] == "step"] == [1, 2, 3]
    assert {"out", "err"} <= set(machine.stderr.splitlines())


def test_without_doing_anything(desk: Desk) -> None:
    """--dry-run and --parse-only make neither image nor step; what is wrong is said all the same."""
    text = "FROM tiny\nRUN touch /x\n"
    dry = desk.ok("build", "-n", "-t", "none", ".", text=text)
    assert "  2  RUN touch /x" in dry.stderr
    assert "2 " not in desk.ok("build", "--parse-only", "-t", "none", ".").stdout
    assert "none" not in desk.ok("list").stdout.split()
    for option in ("--parse-only", "--dry-run"):
        wrong = desk.image("build", option, "-t", "none", ".", text="FROM tiny\nRUM x\n")
        assert wrong.returncode == 1
        assert "Dockerfile:2:1" in wrong.stderr


@pytest.mark.parametrize(
    ("file", "context", "tag"),
    [
        ("Dockerfile", "/a/My Project", "my_project"), ("Dockerfile.foo", "/a/b", "foo"), ("x.df", "/a/b", "x"),
        ("X.dockerfile", "/a/b", "x"), ("other", "/a/b", "b"), ("Dockerfile", "/", "root"), (None, "/a/b", "b"), (None, None, "root"),
    ],
)  # fmt: skip
def test_names(file: str | None, context: str | None, tag: str) -> None:
    assert (
        inferred_tag(None if file is None else Path(file), None if context is None else Path(context)) == tag
    )


def test_dockerfiles_from_elsewhere(desk: Desk) -> None:
    """From another file, from standard input with and without a context; an ignore file beside the Dockerfile."""
    desk.ok("list", text="no Dockerfile at all")
    (desk.home / "ctx/greeting").write_text("hello")
    (desk.home / "ctx/b.df").write_text("FROM tiny\nCOPY . /c\n")
    (desk.home / "ctx/b.df.dockerignore").write_text("*\n!greeting\n")
    desk.ok("build", "-f", "b.df", ".")
    assert desk.run("b", "ls", "/c") == "greeting\n"
    shell = f"printf 'FROM tiny\\nRUN echo stdin >/said\\n%s' | {CH_IMAGE} build -t"
    for words, more in (("s1 -f - .", "COPY greeting /g"), ("s2 -", "")):
        line = f"{shell} {words}".replace("%s", more)
        done = desk.machine.run(["sh", "-c", line], env=desk.environment, cwd="/home/alice/ctx")
        assert done.returncode == 0, done.stderr
        assert desk.run(words.split()[0], "cat", "/said") == "stdin\n"
    line = f"{shell} s3 -".replace("%s", "COPY greeting /g")
    done = desk.machine.run(["sh", "-c", line], env=desk.environment, cwd="/home/alice/ctx")
    assert done.returncode == 1
    assert "there is no context" in done.stderr


WRONG = [
    (["build", "-t", "wrong", "nowhere"], "FROM tiny", 2, "no such directory: nowhere"),
    (["build", "-t", "wrong", "-f", "none", "."], "FROM tiny", 1, "can't read Dockerfile: none"),
    (["build", "-t", "X/Y:", "."], "FROM tiny", 2, "image ref"),
    (["build", "-t", "wrong", "--target", "y", "."], "FROM tiny", 2, "there is no stage y"),
    (["build", "-t", "wrong", "--force=magic", "."], "FROM tiny", 2, "--force: not magic"),
    (["build", "-t", "wrong", "--cache", "--rebuild", "."], "FROM tiny", 2, "exclude each other"),
    (["build", "-t", "wrong", "--build-arg=UNSET_HERE", "."], "FROM tiny", 2, "UNSET_HERE has no value"),
    (["build", "-t", "wrong", "--secret=src=/x", "."], "FROM tiny", 2, "--secret: src=/x"),
    (["build", "-t", "wrong", "--secret=type=env,id=Dockerfile", "."], "FROM tiny", 2, "Dockerfile is not set"),
    (["build", "-t", "wrong", "--ssh=default", "."], "FROM tiny", 2, "SSH_AUTH_SOCK is not set"),
    (["build", "-t", "wrong", "--ssh=key=Dockerfile", "."], "FROM tiny", 2, "Dockerfile is no agent's socket"),
    (["build", "-t", "wrong", "ftp://example.com/x"], "FROM tiny", 2, "can't build from ftp://"),
    (["build", "-t", "wrong", "."], "FROM tiny\nCOPY ../../etc/passwd /", 1, "is outside of the context"),
    (["build", "-t", "wrong", "."], "FROM tiny\nRUN exit 3", 1, "RUN command exited with 3, at Dockerfile:2: RUN exit 3"),
    (["build", "-t", "wrong", "."], "FROM tiny\nRUN --mount=type=secret,id=s,required cat /run/secrets/s", 1, "no secret s"),
    (["build", "-t", "wrong", "."], "FROM tiny\nRUN --mount=target=/a:b true", 1, "can't mount at /a:b"),
    (["modify", "tiny", "wrong"], "", 2, "nothing to do"),
    (["modify", "-c", "exit 4", "tiny", "wrong"], "", 1, "exited with 4"),
    (["modify", "tiny", "wrong", "none.sh"], "", 1, "none.sh: not in the context"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text", "code", "why"), WRONG, ids=[f"{row[0]} {row[1]}"[:60] for row in WRONG]
)
def test_what_is_wrong(desk: Desk, words: list[str], text: str, code: int, why: str) -> None:
    """One line says what, and hints what to do; nothing is left behind."""
    done = desk.image(*words, text=text)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert why in errors[0]
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert desk.leftovers == []
    assert not (desk.home / "store/images/wrong").exists()


def test_modify(desk: Desk) -> None:
    """Commands of any form, another shell, a script; the source stays as it is."""
    commands = [
        "echo 1 >/said",
        "cat >>/said <<E\n2\nE",
        "echo 3 \\\n >>/said",
        "[ -s /said ] && echo 4 >>/said",
        "# nothing",
    ]
    words = [word for command in commands for word in ("-c", command)]
    desk.ok("modify", *words, "tiny", "changed")
    assert desk.run("changed", "cat", "/said") == "1\n2\n3\n4\n"
    assert "/said" not in desk.run("tiny", "find", "/", "-maxdepth", "1", "-name", "said")
    desk.ok("modify", "-S", "/bin/ash", "-c", "echo $0 >/said", "changed", "again")
    assert desk.run("again", "cat", "/said") == "/bin/ash\n"
    (desk.home / "ctx/script.sh").write_text("#!/bin/sh\necho script $0 >/said\n")
    desk.ok("modify", "tiny", "scripted", "script.sh")
    assert desk.run("scripted", "cat", "/said") == "script /ch/script.sh\n"
    again = desk.ok("modify", "tiny", "scripted", "script.sh")
    assert " . " not in again.stderr


def test_a_shell_to_modify_with(desk: Desk) -> None:
    """What is typed is done each time; Ctrl-C is for the shell; what its last command ended with is no failure."""
    for text in ("one", "two"):
        talk = [
            ("# ", f"echo {text} >/said; sh -c 'echo be\"\"gun; exec sleep 300'\n"),
            ("begun", "\x03"),
            ("# ", "false\n"),
            ("# ", "exit\n"),
        ]
        code, shown = desk.on_terminal(["modify", "-i", "tiny", "typed"], talk)
        assert code == 0, shown
        assert desk.run("typed", "cat", "/said") == f"{text}\n"


def test_a_shell_where_it_failed(desk: Desk) -> None:
    """It sees what the failing command has left, which is then gone."""
    desk.ok("list", text="FROM tiny\nENV A=b\nWORKDIR /w\nRUN echo left >/w/f; exit 7\n")
    talk = [("# ", "echo $A $(pwd) $(cat f) | tr a-z A-Z\n"), ("# ", "exit\n")]
    code, shown = desk.on_terminal(["build", "-t", "x", "--on-failure=shell", "."], talk)
    assert code == 1
    assert "B /W LEFT" in shown
    assert "exited with 7" in shown
    assert desk.leftovers == []


def test_secrets_and_agents_by_words(desk: Desk) -> None:
    (desk.home / "ctx/s").write_text("from file")
    text = (
        "FROM tiny\nRUN --mount=type=secret,id=a --mount=type=secret,id=TOKEN,env=T "
        "echo $(cat /run/secrets/a) $T | md5sum >/said\n"
    )
    given = {"TOKEN": "from variable"}
    desk.ok("build", "-t", "x", "--secret=id=a,src=s", "--secret=id=TOKEN", ".", text=text, **given)
    assert desk.run("x", "sh", "-c", "echo from file from variable | md5sum") == desk.run("x", "cat", "/said")
    for words in (["--secret=id=s"], ["--secret=type=env,id=s,src=S"]):
        one = "FROM tiny\nRUN --mount=type=secret,id=s cp /run/secrets/s /said\n"
        desk.ok("build", "-t", "y", "--no-cache", *words, ".", text=one, S="from file")
        assert desk.run("y", "cat", "/said") == "from file"
    assert desk.machine.run(["grep", "-r", "from variable", "/home/alice/store"]).returncode == 1


def test_stopped_by_the_user(desk: Desk) -> None:
    """SIGINT of ch-image ends the command too, with all it has started; storage is as before."""
    desk.ok("list", text="FROM tiny\nRUN (sleep 300 &); echo begun; sleep 300\n")
    child = desk.machine.popen(
        [*BY_HAND, CH_IMAGE, "build", "-t", "x", "."], env=desk.environment, cwd="/home/alice/ctx"
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    builders = desk.machine.run(["pgrep", "-u", "alice", "-f", "ch-image build"]).stdout.split()
    for pid in builders:
        desk.machine.run(["kill", "-INT", pid])
    child.communicate(timeout=15)
    assert child.returncode == 128 + signal.SIGINT
    assert desk.leftovers == []
    assert desk.machine.run(["pgrep", "-u", "alice", "-f", "sleep 300"]).stdout == ""


def test_killed_with_its_command(desk: Desk) -> None:
    """Who kills ch-image ends the command as well; the next command clears up."""
    desk.ok("list", text="FROM tiny\nRUN echo begun; sleep 301\n")
    child = desk.machine.popen(
        [*BY_HAND, CH_IMAGE, "build", "-t", "x", "."], env=desk.environment, cwd="/home/alice/ctx"
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    for pid in desk.machine.run(["pgrep", "-u", "alice", "-f", "ch-image build"]).stdout.split():
        desk.machine.run(["kill", "-KILL", pid])
    child.communicate(timeout=15)
    deadline = time.monotonic() + 10
    while (
        desk.machine.run(["pgrep", "-u", "alice", "-f", "sleep 301"]).stdout and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert desk.machine.run(["pgrep", "-u", "alice", "-f", "sleep 301"]).stdout == ""
    for path in (desk.home / "store/tmp").iterdir():
        os.utime(path, (1, 1))  # what is a moment old may be somebody's who just begins
    desk.ok("build", "-t", "x", ".", text="FROM tiny\nRUN true\n")
    assert desk.leftovers == []


def test_a_full_disk(desk: Desk, image_tiny: Path) -> None:
    """RUN and COPY that fill it say so; nothing is left behind, and the storage works."""
    desk.ok("list", text="FROM tiny\nRUN head -c 60000000 /dev/zero >/big\n")
    (desk.home / "ctx/Copied").write_text("FROM tiny\nCOPY big /b\n")
    with (desk.home / "ctx/big").open("wb") as file:
        file.write(os.urandom(60_000_000))
    script = f"""
mkdir -p small && mount -t tmpfs -o size=30m,mode=755 tmpfs small && export CH_IMAGE_STORAGE=$PWD/small/store
python3 -c 'import os; os.setxattr("small", "user.overlay.opaque", b"y")' || exit 77
{CH_IMAGE} import {{tiny}} tiny || exit 78
for file in Dockerfile Copied; do {CH_IMAGE} build -t x -f $file .; echo code $?; ls small/store/tmp; done
printf 'FROM tiny\\nRUN echo fine' | {CH_IMAGE} build -t y -
""".replace("{tiny}", str(image_tiny))
    done = desk.machine.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=desk.environment,
        cwd="/home/alice/ctx",
    )
    if done.returncode == 77:
        pytest.skip("tmpfs has no user attributes here (before Linux 6.6)")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "code 1\ncode 1\nfine\n"
    assert done.stderr.count("no room in storage") == 2
    (desk.home / "ctx/big").unlink()


def test_a_cache_of_another_user(desk: Desk) -> None:
    """Bob can neither build in alice's storage nor does she build on what he put in the place of hers."""
    done = desk.machine.run([CH_IMAGE, "build", "-t", "x", "/home/bob"], user="bob", env=desk.environment)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    made = desk.machine.run(["mkdir", "-m", "777", "/tmp/bobs"], user="bob")
    assert made.returncode == 0
    done = desk.image("build", "-t", "x", "-s", "/tmp/bobs", ".", text="FROM tiny\n")
    assert done.returncode == 1
    assert "storage directory belongs to user" in done.stderr


def test_the_cache_s_commands(desk: Desk) -> None:
    desk.ok("build", "-t", "x", ".", text="FROM tiny\nRUN head -c 1048576 /dev/zero >/big\nRUN true\n")
    said = desk.ok("build-cache").stdout
    assert "steps:" in said
    assert json.loads(desk.ok("build-cache", "--json").stdout)["bytes"] >= 1 << 20
    assert "1.0 MiB" in desk.ok("build-cache", "--tree").stdout
    desk.ok("build-cache", "--dot", "graph.dot")
    assert (desk.home / "ctx/graph.dot").read_text().startswith("digraph")
    desk.ok("delete", "x")
    assert "forgotten: " in desk.ok("build-cache", "--gc").stderr
    assert "  2. RUN head" in desk.ok("build", "-t", "x", ".").stderr
    desk.ok("build-cache", "--reset")
    assert json.loads(desk.ok("build-cache", "--json").stdout)["steps"] == 0
    assert desk.run("x", "ls", "/big") == "/big\n"
