"""What ch-image builds, in a registry: podman runs it alike, and equal builds are equal there."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from building import ch_image, network
from machine import CHECKOUT
from registries import RegistryServer, missing_tools
from space import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from machine import Machine

CH_RUN = CHECKOUT / ".venv/bin/ch-run"
DATE = 1_700_000_000

# Variables that podman and ch-run add, or set as they like.
THEIRS = {"container", "HOME", "HOSTNAME", "TERM", "PATH", "CH_RUNNING"}

SAYING = """\
FROM tiny
ARG WHO=world
ENV GREETING="hello, ${WHO}" EMPTY= ODD="a=b 'c' \\"d\\""
WORKDIR /opt/place
COPY <<'EOF' say
#!/bin/sh
pwd
env
for word; do echo "word: $word"; done
EOF
RUN chmod 755 say
ENTRYPOINT ["/opt/place/say", "one two"]
CMD ["three"]
"""

# What differs from build to build is no content: times, names in storage, the order in which files are made.
REPEATED = """\
FROM tiny
RUN mkdir /a && for name in c b a; do date +%N >/dev/null; echo $name >/a/$name; done && ln -s c /a/link
COPY files /files
COPY --chmod=600 files/one /one
WORKDIR /made
RUN rm /a/b && touch /a/c && mkdir -p /var/cache && ln /one /two
ENV X=1
"""


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, may_lack: Callable[[], AbstractContextManager[None]]
) -> Iterator[RegistryServer]:
    """Return a registry on this host's loopback."""
    missing = [*missing_tools(), *(tool for tool in ("podman", "skopeo") if not shutil.which(tool))]
    with may_lack():
        if missing:
            raise UnavailableError(f"there is no {', '.join(missing)}: run tests/setup.sh test")
    with RegistryServer(tmp_path_factory.mktemp("registry") / "registry") as server:
        yield server


@pytest.fixture
def storages(machine: Machine, image_tiny: Path) -> Iterator[Callable[[str], str]]:
    """Return a function that makes storage of alice's with the image tiny, by a name."""
    made = []

    def make(name: str) -> str:
        path = f"/home/alice/{name}"
        made.append(path)
        done = ch_image(machine, "import", image_tiny, "tiny", storage=path)
        assert done.returncode == 0, done.stderr
        return path

    yield make
    machine.run(["rm", "-rf", *made], check=True)


def built(machine: Machine, dockerfile: str, storage: str, *words: str, date: int | None = None) -> str:
    """Build an image x in alice's home; return what was said."""
    place = machine.outside("/home/alice/context")
    machine.run("rm -rf context; mkdir -p context/files", check=True)
    for number, name in enumerate(("one", "two", "three")):
        (place / "files" / name).write_text(name * (number + 1))
    (place / "Dockerfile").write_text(dockerfile)
    env = {} if date is None else {"SOURCE_DATE_EPOCH": str(date)}
    done = ch_image(machine, "build", "-t", "x", *words, "/home/alice/context", storage=storage, env=env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pushed(machine: Machine, registry: RegistryServer, storage: str, name: str) -> list[str]:
    """Push the image x; return the digests of its configuration and of its layers, the lowest first."""
    done = ch_image(machine, "push", "x", f"{registry.host}/{name}:1", storage=storage)
    assert done.returncode == 0, done.stderr
    fetched = machine.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{name}:1"],
        net=network(),
        check=True,
    )
    manifest = json.loads(fetched.stdout)
    return [part["digest"] for part in (manifest["config"], *manifest["layers"])]


def test_podman_runs_the_same_command_with_the_same_environment(
    machine: Machine, registry: RegistryServer, storages: Callable[[str], str]
) -> None:
    storage = storages("said")
    built(machine, SAYING, storage, "--build-arg", "WHO=there")
    pushed(machine, registry, storage, "said")
    podman = ["podman", "--root=/tmp/podman", "--runroot=/run/podman", "--storage-driver=vfs"]
    name = f"{registry.host}/said:1"

    def root(*words: str) -> str:
        return machine.login.run(words, user="root", net=network(), check=True, timeout=120).stdout

    root(*podman, "pull", "--quiet", "--tls-verify=false", name)
    run = [*podman, "--cgroup-manager=cgroupfs", "run", "--rm", "--cgroups=disabled", "--network=none"]
    theirs, theirs_variables = said(root(*run, name))
    # ch-run, like Charliecloud's, leaves an image's WORKDIR alone.
    mine = [CH_RUN, "-s", storage, "--unset-env=*", "--set-env", "--cd=/opt/place", "x"]
    ours, ours_variables = said(machine.run(mine, check=True).stdout)
    assert theirs == ours == ["/opt/place", "word: one two", "word: three"]
    assert theirs_variables == ours_variables
    assert theirs_variables["GREETING"] == "hello, there"


def said(text: str) -> tuple[list[str], dict[str, str]]:
    """Return what the program says without and with an equals sign: lines, and variables."""
    lines = text.splitlines()
    variables = dict(line.partition("=")[::2] for line in lines if "=" in line)
    return [line for line in lines if "=" not in line], {
        name: value for name, value in variables.items() if name not in THEIRS
    }


def test_equal_builds_are_equal_at_one_date(
    machine: Machine, registry: RegistryServer, storages: Callable[[str], str]
) -> None:
    digests = []
    for name in ("first", "second"):
        storage = storages(name)
        built(machine, REPEATED, storage, date=DATE)
        digests.append(pushed(machine, registry, storage, name))
    assert digests[0] == digests[1]


def test_cached_steps_keep_their_digests(
    machine: Machine, registry: RegistryServer, storages: Callable[[str], str]
) -> None:
    storage = storages("kept")
    stamped = REPEATED.replace("ENV X=1", "RUN date +%N >/stamp\nENV X=1")
    built(machine, stamped, storage)
    first = pushed(machine, registry, storage, "kept")
    built(machine, stamped.replace("X=1", "X=2"), storage)
    assert pushed(machine, registry, storage, "kept")[1:] == first[1:]
    built(machine, stamped, storage)
    assert pushed(machine, registry, storage, "kept") == first
    built(machine, stamped, storage, "--rebuild")
    assert pushed(machine, registry, storage, "kept")[-1] != first[-1]
