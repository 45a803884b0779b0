"""Copy a file to the nodes of a job, where it is not there yet, and see that it is the same everywhere.

sbcast(1) writes as the user, and a file that it makes is new (it gives up where the name is taken, without
--force). The directory may be one where anybody writes, such as /tmp: what is there already counts only if it
is a file of the user's own, no link, and has the digest.

What is copied elsewhere than to /tmp has a link in /tmp that tells of it, made before the file is:
``ch-run --clean-job`` looks there (runtime/clean.c).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from chlaunch.errors import RefusedError, SlurmError
from chlaunch.slurm.asking import ask

# Seconds. A file of 10 GiB takes one of its own per second, at 100 MB/s to each level of sbcast's tree.
COPY_MOST = 3600
LOOK_MOST = 600

HINT = "look at the job's nodes; without --ch-stage the file is read from where it is"

# Arguments: digest, path. Prints a line with the node's name where the file is not there, or is another.
LOOK = """
[ "${2%/*}" -ef /tmp ] || ln -sT "$2" "/tmp/${2##*/}" 2>/dev/null
[ -f "$2" ] && [ ! -L "$2" ] && [ -O "$2" ] && echo "$1  $2" | sha256sum -c --status ||
	echo "lacks $(uname -n)"
echo looked
"""


def stage(file: Path, directory: str, environment: Mapping[str, str]) -> str:
    """Return the path that a file has on all nodes of this job after it was copied into directory there.

    Raises:
        RefusedError: this is no job.
        SlurmError: it can't be copied, or is not the same on a node.

    """
    job = environment.get("SLURM_JOB_ID")
    if not job:
        raise RefusedError(
            "--ch-stage copies to the nodes of a job, and this is none",
            "use it within sbatch or salloc; or leave it out",
        )
    digest = digest_of(file)
    target = f"{directory.rstrip('/')}/chlaunch-{job}-{digest[:16]}{file.suffix}"
    if not lacking(digest, target, environment):
        return target
    _, said = ask(["sbcast", str(file), target], COPY_MOST, HINT, environment)
    nodes = lacking(digest, target, environment)
    if nodes:
        reason = said.strip().splitlines()[-1:] or ["sbcast said nothing"]
        raise SlurmError(f"can't stage {file} as {target} on {' '.join(nodes)}: {reason[0]}", HINT)
    return target


def lacking(digest: str, target: str, environment: Mapping[str, str]) -> list[str]:
    """Return the nodes of this job on which target is not the file with that digest.

    Raises:
        SlurmError: they can't be asked.

    """
    count = environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
    # This step is for no image.
    plain = {name: value for name, value in environment.items() if name != "SLURM_CONTAINER"}
    plain["CHLAUNCH_IMAGE"] = "none"
    out, said = ask(
        [
            "srun",
            f"--nodes={count}",
            f"--ntasks={count}",
            "--ntasks-per-node=1",
            "--overlap",
            "--mpi=none",
            "--kill-on-bad-exit=0",
            "sh",
            "-c",
            LOOK,
            "chlaunch",
            digest,
            target,
        ],
        LOOK_MOST,
        HINT,
        plain,
    )
    lines = out.splitlines()
    if lines.count("looked") != int(count):
        reason = said.strip().splitlines()[-1:] or ["srun said nothing"]
        raise SlurmError(f"can't look at {target} on the job's nodes: {reason[0]}", HINT)
    return [line.removeprefix("lacks ") for line in lines if line.startswith("lacks ")]


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
