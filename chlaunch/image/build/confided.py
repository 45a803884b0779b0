"""What a RUN may see and no image shall have: secrets, and the user's SSH agents."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.image.build.binds import Bind
from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.mounts import Mount

if TYPE_CHECKING:
    from chlaunch.image.build.mounted import Mounts, Step

SSH_SOCKET = "/run/buildkit/ssh_agent."  # and a number, as BuildKit calls it
SSH_VARIABLE = "SSH_AUTH_SOCK"
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


def default_target(instruction: syntax.Run, mount: Mount) -> str:
    """Return where a mount without a target goes; empty if nowhere."""
    return f"{SSH_SOCKET}{_agents(instruction).index(mount.text)}" if mount.kind == "ssh" else ""


def secret(step: "Step", mount: Mount, place: Path, mounts: "Mounts") -> None:
    """Show a secret as a file, or a variable, or both.

    Raises:
        BuildError: it is required and not there, or can't be read.

    """
    found = step.builder.request.secrets.get(mount.identifier)
    at = step.instruction.place
    if found is None:
        if mount.required:
            why = f"no secret {mount.identifier}"
            raise at.failed(why, mount.text, f"--secret=id={mount.identifier},src=FILE")
        return
    try:
        content = (
            found.value.encode("utf-8", "surrogateescape") if found.file is None else found.file.read_bytes()
        )
    except OSError as error:
        why = f"can't read secret {mount.identifier}: {error.filename}: {error.strerror}"
        raise at.failed(why, mount.text, "--secret=id=ID,src=FILE") from error
    if mount.variable:
        mounts.secrets[mount.variable] = content.decode("utf-8", "surrogateescape")
    if mount.target:
        _write(place, content, 0o400 if mount.mode is None else mount.mode & 0o777)
        mounts.binds.append(Bind(place, mount.target))


def agent(step: "Step", mount: Mount, place: Path, mounts: "Mounts") -> None:
    """Show the user's SSH agent, and the hosts that the user knows: nobody is there to say yes to others.

    Raises:
        BuildError: it is required and not there.

    """
    socket = step.builder.request.ssh.get(mount.identifier)
    if not socket or not Path(socket).is_socket():
        if mount.required:
            raise step.instruction.place.failed(
                f"no SSH agent {mount.identifier}",
                mount.text,
                "start ssh-agent; --ssh=default, or --ssh=ID=SOCKET",
            )
        return
    mounts.binds.append(Bind(Path(socket), mount.target))
    if SSH_VARIABLE not in mounts.variables or mount.text == _agents(step.instruction)[0]:
        mounts.variables[SSH_VARIABLE] = mount.target
    known = Path(step.builder.request.environment.get("HOME") or "/", ".ssh", "known_hosts")
    if known.is_file() and not any(bind.target == KNOWN_HOSTS for bind in mounts.binds):
        # A copy: root in the image can make any bind writable again.
        _write(place, known.read_bytes(), 0o444)
        mounts.binds.append(Bind(place, KNOWN_HOSTS))


def _agents(instruction: syntax.Run) -> list[str]:
    """Return the words of all mounts of agents, in their order."""
    return [mount.text for mount in instruction.mounts if mount.kind == "ssh"]


def _write(path: Path, content: bytes, mode: int) -> None:
    """Make a file that only the user has ever been able to read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
