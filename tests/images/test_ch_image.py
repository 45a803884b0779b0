"""ch-image as a user has it: real registries, skopeo and podman at the other end, and what it says to whom."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import pytest
from certificates import Authority
from machine import CHECKOUT
from made import Entries, layout
from served import served

from chlaunch.image.manifest import host_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from machine import Machine
    from served import Served

RUN = {
    "Env": ["PATH=/usr/bin:/bin", "GREETING=hello there"],
    "Entrypoint": ["/usr/bin/env"],
    "Cmd": ["cat", "/data/second"],
    "WorkingDir": "/data",
    "User": "65534",
    "Labels": {"org.example.note": "a label"},
    "StopSignal": "SIGINT",
}
UPPER: Entries = {"data": None, "data/first": b"1\n", "data/second": b"2\n"}
ARM: Entries = {"etc/arm": b"64\n"}
TOP: Entries = {"data/.wh.first": b"", "data/third": "=>data/second"}
USERS = {"alice": "open sesame", "bob": "swordfish"}
BAR = "━"
KILLS = CHECKOUT / "tests/images/kills.py"


@dataclass(frozen=True)
class Site:
    """A machine with ch-image, a registry for everybody, and one for those it knows; both by an own authority."""

    machine: Machine
    bin: Path
    open: Served
    closed: Served

    def try_(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ch-image as alice, who believes the authority."""
        return self.machine.run([self.bin / "ch-image", *words], env=self.believing(environment))

    def ok(self, *words: object, **environment: str) -> str:
        """Run it, see that it ends well, and return what it wrote to standard output."""
        done = self.try_(*words, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *words: object, code: int = 1, **environment: str) -> str:
        """Run it, see that it fails in a line with a hint, and that nothing is left; return what it said."""
        done = self.try_(*words, **environment)
        assert done.returncode == code, done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert lines[0].startswith("error: "), done.stderr
        assert all(line.startswith("hint: ") for line in lines[1:]), done.stderr
        assert done.stdout == ""
        left = self.sh("cd /var/tmp/alice.ch/tmp 2>/dev/null && find . -mindepth 1 || true")
        assert left == ""
        return done.stderr

    def sh(self, script: str, **environment: str) -> str:
        """Run a script as alice; return what it wrote to standard output."""
        return self.machine.run(["sh", "-euc", script], env=environment, check=True, timeout=120).stdout

    def dialogue(self, words: Sequence[object], answers: Sequence[tuple[str, str]]) -> tuple[str, int]:
        """Run ch-image on a terminal, and give answers to prompts; return what was seen, and the exit code."""
        command = shlex.join([str(self.bin / "ch-image"), *map(str, words)])
        process = self.machine.popen(
            ["script", "--quiet", "--flush", "--return", "--command", command, "/dev/null"],
            stdin=subprocess.PIPE,
            env=self.believing({"TERM": "xterm", "COLUMNS": "150"}),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        seen = ""
        for prompt, answer in answers:
            seen += read_until(process.stdout, prompt)
            process.stdin.write(f"{answer}\n")
            process.stdin.flush()
        rest, _ = process.communicate(timeout=60)
        return seen + rest, process.returncode

    def believing(self, more: dict[str, str]) -> dict[str, str]:
        """Return variables of a user who believes the authority."""
        return {"REQUESTS_CA_BUNDLE": "/home/alice/ca.crt", **more}


def read_until(stream: IO[str], text: str) -> str:
    """Read from a stream up to a text."""
    seen = ""
    while not seen.endswith(text):
        letter = stream.read(1)
        assert letter, f"it ends before {text!r}: {seen!r}"
        seen += letter
    return seen


@pytest.fixture(scope="module")
def site(
    may_lack: Callable[[], AbstractContextManager[None]],
    machine: Machine,
    ch_run: Path,
    image_tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Return the registries, with an image in both that skopeo put there."""
    authority = Authority(tmp_path_factory.mktemp("authority") / "ca")
    home = machine.outside("/home/alice")
    (home / "ca.crt").write_bytes(authority.certificate.read_bytes())
    with tarfile.open(home / "base.tar", "w") as tar:
        tar.add(image_tiny, ".", filter=as_roots)
    base = (home / "base.tar").read_bytes()
    layout(home / "layout", [base, UPPER, TOP], run=RUN)
    layout(home / "layout", [base, UPPER], name="2", run=RUN)
    layout(home / "layout", [base, ARM], name="arm", architecture="arm64")
    machine.root("chown -R alice: /home/alice")
    with ExitStack() as stack:
        stack.enter_context(may_lack())
        registries = [
            stack.enter_context(served(machine, f"registry-{port}", port, authority=authority, users=users))
            for port, users in ((5000, None), (5001, USERS))
        ]
        made = Site(machine, ch_run.parent, *registries)
        for server, tag, more in (
            (made.open, "1", ""),
            (made.open, "2", ""),
            (made.open, "arm", ""),
            (made.closed, "1", "--dest-creds='alice:open sesame'"),
        ):
            made.sh(
                f"skopeo copy --quiet --dest-cert-dir=. {more} oci:layout:{tag} docker://{server.host}/small:{tag}"
            )
        yield made


def as_roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Give a member to root."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


@pytest.fixture
def here(site: Site) -> Iterator[Site]:
    """Return the site, with nothing in storage and nobody logged in."""
    site.sh("rm -rf /var/tmp/alice.ch .config .docker $XDG_RUNTIME_DIR/containers", XDG_RUNTIME_DIR="/none")
    yield site
    site.sh("rm -rf /var/tmp/alice.ch")


def inspected(site: Site, host: str, more: str = "") -> dict[str, Any]:
    """Return an image's configuration, as skopeo gets it from a registry."""
    said = site.sh(f"skopeo inspect --config --cert-dir=. {more} docker://{host}")
    found: dict[str, Any] = json.loads(said)
    return found


def digest_there(site: Site, name: str) -> str:
    """Return the digest of an image's manifest, as skopeo gets it."""
    said = site.sh(f"skopeo inspect --raw --cert-dir=. docker://{name} | sha256sum")
    return f"sha256:{said.split()[0]}"


def test_from_a_registry_to_a_container(here: Site) -> None:
    """By skopeo there, by ch-image from there, by ch-convert into a file: ch-run has the image's files and words."""
    name = f"{here.open.host}/small:1"
    said = here.try_("pull", name)
    assert said.returncode == 0, said.stderr
    assert f"pulled: {name} {digest_there(here, name)}" in said.stderr
    here.sh(f"{here.bin}/ch-convert -q {name} ./small.sqfs && {here.bin}/ch-convert -q {name} small.tar.zst")
    here.sh(f"{here.bin}/ch-convert -q small.tar.zst ./small")
    for image in (name, "./small.sqfs", "./small"):
        run = f"{here.bin}/ch-run {image}"
        assert here.sh(f"{run} -- ls /data").split() == ["second", "third"]
        assert here.sh(f"{run} --set-env -- sh -c 'echo $GREETING; pwd'").splitlines()[0] == "hello there"
    assert "up to date" in here.try_("pull", name).stderr


def test_pulled_once(here: Site) -> None:
    """Two pulls at the same time of images that share layers download each layer once."""
    before = here.open.requests("GET", "/blobs/")
    pull = f"{here.bin}/ch-image -q pull {here.open.host}/small:"
    environment = here.believing({})
    here.sh(f"{pull}1 & {pull}1 & {pull}2 & wait", **environment)
    assert len(here.ok("list").split()) == 2
    assert here.sh("ls /var/tmp/alice.ch/blobs/sha256 | wc -l") == "3\n"
    blobs = here.open.requests("GET", "/blobs/") - before
    assert blobs == 3 + 3  # each layer once, and a configuration for each pull


def test_what_we_push_others_pull(here: Site) -> None:
    """Skopeo and podman have the same digests and configuration as what came from skopeo."""
    source, target = f"{here.open.host}/small:1", f"{here.open.host}/me/copy:1"
    here.ok("pull", source)
    before = here.open.requests("PATCH")
    said = json.loads(here.ok("push", source, target, "--json"))
    assert here.open.requests("PATCH") == before + 1  # it took the layers from its own, not the configuration
    assert said["digest"] == digest_there(here, target) == digest_there(here, source)
    assert inspected(here, target) == inspected(here, source)
    uid = here.sh("id -u").strip()
    podman = "podman --root podman --runroot podman-run --storage-driver vfs"
    script = f"{podman} pull --quiet --cert-dir=. {target} && {podman} image inspect {target}; rm -rf podman*"
    (found,) = json.loads(here.sh(script, XDG_RUNTIME_DIR=f"/run/user/{uid}").partition("\n")[2])
    assert found["Digest"] == said["digest"]
    assert {key: found["Config"].get(key) for key in RUN} == RUN


def test_pushed_as_it_was_imported(here: Site) -> None:
    """What has no archives gets the same ones each time, and its configuration says what the image does."""
    here.ok("pull", f"{here.open.host}/small:1")
    here.sh(f"{here.bin}/ch-convert -q {here.open.host}/small:1 ./tree && chmod 1777 tree/data")
    digests = set()
    for name in ("a", "b"):
        imported = here.try_("import", "./tree", name)
        assert re.search(r"^copying \S+/tree: [\d.]+ [KM]iB in ", imported.stderr, re.MULTILINE)
        digests.add(json.loads(here.ok("push", name, f"{here.open.host}/{name}:1", "--json"))["digest"])
    digests.add(json.loads(here.ok("push", "--image=tree", f"{here.open.host}/c:1", "--json"))["digest"])
    assert len(digests) == 1
    config = inspected(here, f"{here.open.host}/c:1")
    assert {key: config["config"].get(key) for key in ("Cmd", "Entrypoint", "Labels", "WorkingDir")} == {
        key: RUN[key] for key in ("Cmd", "Entrypoint", "Labels", "WorkingDir")
    }
    assert "GREETING=hello there" in config["config"]["Env"]
    here.ok("pull", f"{here.open.host}/b:1")
    modes = here.sh(f"{here.bin}/ch-run {here.open.host}/b:1 -- stat -c %a /data /data/second")
    assert modes.split() == ["1777", "644"]


def test_the_machines_authorities(here: Site) -> None:
    """A registry is believed by what certs.d has, too; without either, its certificate is described."""
    name = f"{here.open.host}/small:2"
    said = here.fails("pull", name, REQUESTS_CA_BUNDLE="")
    assert "certificate verify failed" in said
    assert "issued by “Authority of the tests, chlaunch”" in said
    here.sh(f"d=.config/containers/certs.d/{here.open.host}; mkdir -p $d && cp ca.crt $d")
    here.ok("pull", name, REQUESTS_CA_BUNDLE="")
    here.sh("rm -r .config")
    done = here.try_("pull", name, "--tls-no-verify", REQUESTS_CA_BUNDLE="")
    assert done.returncode == 0
    assert "warning: localhost:5000: TLS certificates are not verified" in done.stderr


def test_login(here: Site) -> None:
    """Name and password are asked for on the terminal, tried, and kept for the user alone; podman's file."""
    name = f"{here.closed.host}/small:1"
    assert "login" in here.fails("pull", name)
    words = ["login", here.closed.host]
    seen, code = here.dialogue(words, [("Username: ", "alice"), ("Password: ", "wrong")])
    assert code == 1
    assert "error: " in seen
    seen, code = here.dialogue(words, [("Username: ", "alice"), ("Password: ", USERS["alice"])])
    assert code == 0, seen
    assert USERS["alice"] not in seen
    (file,) = re.findall(r"logged in: \S+ \((\S+)\)", seen)
    assert here.sh(f"stat -c '%a %U' {file}") == "600 alice\n"
    here.ok("pull", name)
    here.ok("push", name, f"{here.closed.host}/mine:1")
    here.sh(f"skopeo inspect --authfile={file} --cert-dir=. docker://{here.closed.host}/mine:1 >/dev/null")
    here.ok("logout", here.closed.host)
    assert USERS["alice"] not in here.sh(f"cat {file}")
    here.fails("pull", name, "--always-download")
    here.fails("logout", here.closed.host)


def test_password_from_standard_input(here: Site) -> None:
    here.sh(
        f"printf 'swordfish\\n' | {here.bin}/ch-image login -u bob --password-stdin {here.closed.host}",
        **here.believing({}),
    )
    here.ok("pull", f"{here.closed.host}/small:1")


def test_auth_asks_and_keeps_nothing(here: Site) -> None:
    name = f"{here.closed.host}/small:1"
    prompts = [("Username for localhost:5001: ", "bob"), ("Password for localhost:5001: ", USERS["bob"])]
    seen, code = here.dialogue(["pull", "--auth", name], prompts)
    assert code == 0, seen
    assert USERS["bob"] not in seen
    here.ok("delete", name)
    here.fails("pull", "--auth", name)  # no terminal
    here.ok("pull", "--auth", name, CH_IMAGE_USERNAME="alice", CH_IMAGE_PASSWORD=USERS["alice"])
    assert USERS["alice"] not in here.fails(
        "pull", "--auth", name, CH_IMAGE_USERNAME="bob", CH_IMAGE_PASSWORD=USERS["alice"]
    )


def test_what_is_in_storage(here: Site) -> None:
    """List, du, delete, undelete, gc and reset: what each says, and what is there afterwards."""
    names = [f"{here.open.host}/small:{tag}" for tag in (1, 2)]
    for name in names:
        here.ok("pull", name)
    here.ok("import", "./base.tar", "base")
    assert here.ok("list").splitlines() == ["base", *names]
    rows = {row["name"]: row for row in json.loads(here.ok("list", "--json"))}
    first, second = (rows[name] for name in names)
    assert first["digest"] == digest_there(here, names[0])
    assert second["size"] < first["size"]
    assert second["size_own"] < 20_000 < second["size"]  # its layers are the first's too, but for ours
    (line,) = (line for line in here.ok("list", "-l").splitlines() if line.endswith(names[1]))
    assert re.search(r"[KM]iB +\S+ .?i?B own +amd64|[KM]iB .* own  \w+", line)
    about = json.loads(here.ok("list", "--json", names[0]))
    assert about["local"]["digest"] == first["digest"] == about["remote"][about["host"]]
    room = json.loads(here.ok("du", "--json"))
    assert room["deleted"] == 0

    assert "no image" in here.fails("delete", f"{here.open.host}/*", "nosuch*").lower()
    here.ok("delete", f"{here.open.host}/small:*")
    assert here.ok("list").splitlines() == ["base"]
    assert here.ok("list", "-u").splitlines() == names
    assert json.loads(here.ok("du", "--json"))["deleted"] > 0
    here.ok("undelete", names[1])
    assert here.ok("list").splitlines() == ["base", names[1]]
    here.ok("gc")
    assert here.ok("list", "-u") == ""
    here.fails("undelete", names[0])
    assert here.sh(f"{here.bin}/ch-run {names[1]} -- cat /data/first") == "1\n"
    assert json.loads(here.ok("du", "--json"))["layers"] < room["layers"]
    here.sh(": >/var/tmp/alice.ch/images/base/image.json")
    damaged = here.try_("list")
    assert damaged.stdout == f"{names[1]}\n"
    assert "image is damaged: base: pull, import or build it again" in damaged.stderr
    here.ok("reset")
    assert here.sh("find /var/tmp/alice.ch -mindepth 1") == "/var/tmp/alice.ch/lock\n"
    assert here.ok("list") == ""


def test_what_launches_fetched(here: Site) -> None:
    """It is fetched without a lock where there are none; du tells of it, gc removes what no launch uses."""
    name = f"{here.open.host}/small:1"
    cache = "/home/alice/.cache/chlaunch/fetched"
    here.sh(f"rm -rf {cache}")
    file = f"{digest_there(here, name).partition(':')[2]}-{host_platform().architecture}.sqfs"
    lock, part = f"{cache}/.{file}.lock", f"{cache}/.{file}.new-x"
    launch = [here.bin / "ch-launch", "--ch-dry-run", name, "--", "true"]
    strace = ["strace", "-f", "-qq", "-o/dev/null", f"-P{lock}", "-einject=flock:error=ENOSYS"]
    done = here.machine.run([*strace, *launch], env=here.believing({}), check=True)
    assert f"{cache}/{file}" in done.stdout
    assert done.stderr.count("Function not implemented") == 1
    size = int(here.sh(f"stat -c %s {cache}/{file}"))
    assert json.loads(here.ok("du", "--json"))["fetched"] == size
    assert f"fetched: {cache}" in here.ok("du")

    here.sh(f"touch {part} {cache}/note; touch -d '40 days ago' {cache}/*")
    done = here.machine.run(launch, env=here.believing({}), check=True)
    assert done.stderr == ""
    here.ok("gc")
    assert here.sh(f"ls -A {cache}").split() == sorted((f".{file}.lock", f".{file}.new-x", file, "note"))
    here.sh(f"touch -d '40 days ago' {cache}/{file} {lock} {part}")
    assert here.try_("gc", "--unused-days=50").stderr == "removed 0 B\n"
    assert here.sh(f"ls -A {cache}").split() == sorted((f".{file}.lock", file, "note"))  # no part
    here.sh(f"touch -d '40 days ago' {lock}")
    held = here.machine.popen(["flock", lock, "-c", "echo; read line"], stdin=subprocess.PIPE)
    assert held.stdout is not None
    held.stdout.readline()
    assert f"of {cache}, not used for 30 days" in here.try_("gc", f"--cache-dir={cache}").stderr
    assert here.sh(f"ls -A {cache}").split() == [f".{file}.lock", "note"]
    held.communicate("\n")
    here.ok("gc")
    assert here.sh(f"ls -A {cache}") == "note\n"


def test_another_architecture(here: Site) -> None:
    """It gets a name of its own: the native image stays. yolo takes what there is."""
    name = f"{here.open.host}/multi:1"
    host = json.loads(here.ok("list", "--json", f"{here.open.host}/small:1"))["host"]
    if host != "amd64":
        pytest.skip("the images of this test are for amd64 and arm64")
    put_index(here, "multi", ("2", "arm"))
    here.ok("pull", name)
    here.ok("pull", "--arch=arm64", name)
    assert here.ok("list").splitlines() == [name, f"{name}~arm64"]
    assert here.sh(f"{here.bin}/ch-run {name} -- cat /data/first") == "1\n"
    (arm,) = (row for row in json.loads(here.ok("list", "--json")) if "~" in row["name"])
    assert arm["platform"].startswith("arm64")
    said = here.fails("pull", "--arch=ppc64le", name)
    assert "amd64" in said
    assert "arm64" in said


def put_index(site: Site, name: str, tags: Sequence[str]) -> None:
    """Put an index of images of the open registry there, for all of their machines."""
    rows = []
    for tag, architecture in zip(tags, ("amd64", "arm64"), strict=True):
        raw = site.sh(f"skopeo inspect --raw --cert-dir=. docker://{site.open.host}/small:{tag}")
        site.sh(
            f"skopeo copy --quiet --src-cert-dir=. --dest-cert-dir=. docker://{site.open.host}/small:{tag}"
            f" docker://{site.open.host}/{name}:{architecture}"
        )
        rows.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "size": len(raw.encode()),
                "digest": digest_there(site, f"{site.open.host}/small:{tag}"),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    kind = "application/vnd.oci.image.index.v1+json"
    site.machine.outside("/home/alice/index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": rows})
    )
    site.sh(
        f"curl -sSf --cacert ca.crt -X PUT -H 'Content-Type: {kind}' --data-binary @index.json"
        f" https://{site.open.host}/v2/{name}/manifests/1"
    )


def test_events_and_silence(here: Site) -> None:
    """--json: every line is an object; -q: nothing; else lines in a file, and bars on a terminal."""
    name = f"{here.open.host}/small:1"
    done = here.try_("pull", "--json", name)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    ended = [event for event in events if event["event"] == "end" and event["what"].startswith("layer ")]
    assert len(ended) == 3
    assert all(0 < event["bytes"] == event["total"] for event in ended)
    assert set(json.loads(done.stdout)) == {"name", "digest", "platform"}

    here.ok("reset")
    done = here.try_("pull", "-q", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    here.ok("reset")
    said = here.try_("pull", name).stderr
    assert len(re.findall(r"^layer [0-9a-f]{12}: .* in \d+\.\d s$", said, re.MULTILINE)) == 3
    assert "\x1b" not in said

    here.ok("reset")
    seen, code = here.dialogue(["pull", name], [])
    assert code == 0
    assert "\x1b[" in seen
    assert BAR in seen
    assert len(set(re.findall(r"layer [0-9a-f]{12}", seen))) == 3


BAD: dict[str, tuple[list[str], int, str]] = {
    "no subcommand": ([], 2, "Missing command"),
    "an unknown one": (["nosuch"], 2, "nosuch"),
    "an unknown option": (["pull", "--nosuch", "a"], 2, "--nosuch"),
    "no word": (["pull"], 2, "SOURCE"),
    "no reference": (["pull", "local host/a"], 2, "local host/a"),
    "a reference in capitals": (["pull", "localhost:5000/Small:1"], 2, "Small"),
    "no such architecture": (["pull", "--arch=a b", "localhost:5000/small:1"], 2, "--arch"),
    "no such image": (["pull", "localhost:5000/nosuch:1"], 1, "nosuch"),
    "no such tag": (["pull", "localhost:5000/small:nosuch"], 1, "localhost:5000/small:nosuch: not found"),
    "no such digest": (["pull", f"localhost:5000/small@sha256:{64 * '0'}"], 1, "not found"),
    "push what is not there": (["push", "nosuch"], 1, "nosuch"),
    "push to a digest": (["push", "a", f"localhost:5000/a@sha256:{64 * '0'}"], 2, "digest"),
    "push no image": (["push", "--image=layout", "localhost:5000/a:1"], 1, "layout"),
    "import nothing": (["import", "nosuch.tar", "a"], 1, "nosuch.tar"),
    "import no image": (["import", "ca.crt", "a"], 1, "ca.crt"),
    "undelete nothing": (["undelete", "nosuch"], 1, "nosuch"),
    "delete nothing": (["delete", "nosuch*"], 1, "nosuch*"),
    "a storage that is none": (["-s", "layout", "list"], 1, "layout"),
    "a storage that is a file": (["-s", "ca.crt", "list"], 1, "ca.crt"),
    "too large a layer": (["pull", "--max-members=1", "localhost:5000/small:1"], 1, "--max-members"),
}


def test_failures(here: Site) -> None:
    """Each is said in a line, with a remedy; what was there is as it was. No connection is tried for a while."""
    refused = [here.bin / "ch-image", "-s", "/home/alice/waiting", "pull", "localhost:5999/small:1"]
    waiting = here.machine.popen(refused, env=here.believing({}))
    here.ok("pull", f"{here.open.host}/small:2")
    for case, (words, code, text) in BAD.items():
        assert text in here.fails("-q", *words, code=code), case
    assert here.ok("list") == "localhost:5000/small:2\n"
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (1, "")
    assert err.count("nothing listens there; trying again in") == 4
    assert err.splitlines()[-2:] == [
        "error: https://localhost:5999: no connection: nothing listens there",
        "hint: is the reference right?",
    ]


def test_import_of_a_url(here: Site) -> None:
    """An archive from a web server, with all in one directory, is known by where it came from; nothing is left."""
    here.sh(
        "mkdir -p web/top web/tmp && tar -C web/top -xf base.tar && tar -C web -cJf web/rootfs.tar.xz top"
    )
    server = here.machine.popen(
        ["python3", "-m", "http.server", "--bind=127.0.0.1", "--directory=web", "8000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        here.sh(
            "for i in $(seq 500); do curl -sf localhost:8000/ >/dev/null && exit; sleep 0.02; done; exit 1"
        )
        url = "http://localhost:8000/rootfs.tar.xz"
        done = here.try_("import", url, "web", TMPDIR="/home/alice/web/tmp")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^rootfs\.tar\.xz: .*iB in ", done.stderr, re.MULTILINE)
        (row,) = json.loads(here.ok("list", "--json"))
        assert (row["name"], row["reference"]) == ("web", url)
        assert "root:" in here.sh(f"{here.bin}/ch-run web -- cat /etc/passwd")
        for name, text in (("nosuch.tar", "not found"), ("", "can't")):
            said = here.fails(
                "-q", "import", f"http://localhost:8000/{name}", "no", TMPDIR="/home/alice/web/tmp"
            )
            assert text in said
        assert "URL" in here.fails("import", "http://alice:secret@localhost/a.tar", "no", code=2)
        assert here.sh("find web/tmp -mindepth 1") == ""
    finally:
        server.terminate()
        server.wait()
        here.sh("rm -rf web")


def test_killed_pulls(here: Site) -> None:
    """A hundred pulls are killed at any moment; after each, storage is whole, and at last a pull goes through."""
    script = f"mkdir kills && cd kills && {here.bin}/python {KILLS} pulls 100 4 {here.open.host}/small"
    try:
        done = here.machine.run(["sh", "-euc", script], env=here.believing({}), timeout=300)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 50
    finally:
        here.sh("rm -rf kills")
