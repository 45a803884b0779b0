"""ch-image on a machine of the tests, as an ordinary user, with what builds need of this host: its network.

The machine has no way to the outside, and no name server. A build gets this host's network, its mirrors that
are directories, its proxies, and files that say how names are resolved.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from images import cache_directory, directory_name, image
from machine import CHECKOUT
from space import MachineError

if TYPE_CHECKING:
    from machine import Machine

CH_IMAGE = CHECKOUT / ".venv/bin/ch-image"
EXAMPLE = CHECKOUT / "examples/mpi-hello"

# Where the machine's users find them; it has files of its own in /etc.
RESOLVING = ("resolv.conf", "hosts")
SHOWN = Path("/run/outward")

# In a line of sources.list(5) or a .sources file, of which apt-get indextargets would tell, but in a second.
DIRECTORY = r"\b(?:file|copy):/+(\S+)"

SECONDS = 300


def ch_image(
    machine: Machine, *words: object, storage: Path | str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ch-image as alice with this host's network; return what it wrote."""
    variables = {"CH_IMAGE_STORAGE": str(storage), **proxies(), **(env or {})}
    return machine.run([CH_IMAGE, *words], env=variables, net=network(), timeout=SECONDS)


def network() -> str:
    """Return this host's network namespace."""
    return f"/proc/{os.getpid()}/ns/net"


def outward(machine: Machine) -> list[str]:
    """Return options of ch-image build with which RUN reaches what apt of this host is configured to use."""
    shown = machine.outside(SHOWN)
    shown.mkdir(exist_ok=True)
    words = []
    for name in RESOLVING:
        (shown / name).write_bytes(Path("/etc", name).read_bytes())
        words.append(f"--bind={SHOWN / name}:/etc/{name}")
    return words + [f"--bind={path}" for path in _mirrors()]


def proxies() -> dict[str, str]:
    """Return variables for this host's proxies: its own, and apt's."""
    script = "; ".join(f"apt-config shell {kind}_proxy Acquire::{kind}::Proxy" for kind in ("http", "https"))
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    found = dict(word.partition("=")[::2] for word in shlex.split(said))
    own = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ}
    return {**found, **own}


def kept_storage(machine: Machine) -> Path:
    """Return alice's storage that is kept between runs, with debian:bookworm in it."""
    alice = next(user for user in machine.users if user.name == "alice")
    root = image("debian")
    path = cache_directory() / f"storage-{alice.uid}-{directory_name('debian')}"
    path.mkdir(mode=0o755, exist_ok=True)
    os.chown(path, alice.uid, alice.uid)
    if not (path / "images/debian+bookworm/image.json").exists():
        done = ch_image(machine, "import", root, "debian:bookworm", storage=path)
        if done.returncode:
            raise MachineError(done.stderr)
    return path


def _mirrors() -> list[str]:
    """Return the directories in which apt of this host finds packages."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    lines = [line for path in sources if path.is_file() for line in path.read_text().splitlines()]
    found = {path for line in lines for path in re.findall(DIRECTORY, line.partition("#")[0])}
    return sorted(f"/{path.strip('/')}" for path in found)
