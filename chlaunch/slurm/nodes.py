"""A cluster's nodes, and one plain step that runs a command on each of some of them."""

import base64
import binascii
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chlaunch.errors import SlurmError
from chlaunch.slurm.asking import ask
from chlaunch.slurm.lists import host_list

DEADLINE = 10.0

# Seconds for srun to take its job back once it is told to; it waits for nodes that do not answer.
GRACE = 10.0

# In which a node takes a job, NODE STATE CODES of sinfo(1); a step that wants all of these may have to wait
# for one that is full. Then fewer are asked, the last time only those that are free.
USABLE = (
    ("idle", "mixed", "allocated", "completing", "planned"),
    ("idle", "mixed"),
    ("idle",),
)

# Seconds to wait for nodes, and the last time. What is free is given at once, if the controller is not busy.
PATIENCE = (2, 20)

# What may follow a state, of a node that still takes jobs: completing one, or planned for another. All else
# stands for one that is not reached, off, on its way, or kept (sinfo(1), likewise).
_FLAGS = "+-"

# Of a task: its node and a part of what it printed. In base64 it has no line that is too long for srun to
# keep whole (1024 bytes, MAX_MSG_LEN in Slurm's stdio of steps), and nothing that a terminal would obey.
_SCRIPT = '{ "$@" 2>&1; echo "exit=$?"; } </dev/null | base64 -w 600 | sed "s/^/ch-site $SLURMD_NODENAME /"'
_PART = re.compile(r"^ch-site (\S+) ([A-Za-z0-9+/=]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Node:
    """A node. state: as sinfo says it, idle* for one that does not respond; version: its slurmd's."""

    name: str
    state: str
    version: str

    @property
    def usable(self) -> bool:
        """Say whether a job can be started there, if not at once."""
        return self.kind in USABLE[0]

    @property
    def kind(self) -> str:
        """Return the state without what does not matter here."""
        return self.state.rstrip(_FLAGS)


@dataclass(frozen=True)
class Step:
    """What became of a step. answers: what each node's command printed, to its end; errors: what srun said.

    late: the deadline has passed.
    """

    @property
    def denied(self) -> bool:
        """Say whether no node was had, as some are busy."""
        return not self.answers and "Unable to allocate resources" in self.errors

    answers: Mapping[str, str]
    errors: str
    late: bool = False


def nodes(sinfo: str, partition: str = "", names: str = "") -> tuple[Node, ...]:
    """Return the nodes of a partition, the default one if none is named. names: a host list of those wanted.

    Raises:
        SlurmError: sinfo gave no answer, or there is no such partition or node.

    """
    argv = [sinfo, "--noheader", "--Node", "--format=%P|%N|%T|%v"]
    argv += [f"--partition={partition}"] if partition else []
    argv += [f"--nodes={names}"] if names else []
    stdout, stderr = ask(argv, DEADLINE, "is slurmctld running and reachable? scontrol ping")
    found = {}
    for line in stdout.splitlines():
        words = line.strip().split("|")
        if len(words) == 4 and (partition or words[0].endswith("*")):  # noqa: PLR2004  as asked for above
            found[words[1]] = Node(*words[1:])
    if not found:
        said = (stderr.strip() or "it printed nothing").splitlines()[-1]
        where = f"partition {partition}" if partition else "a default partition"
        raise SlurmError(
            f"sinfo knows no node{f' of {names}' if names else ''} in {where}: {said}",
            "sinfo --summarize lists partitions; ch-site check --partition=NAME",
        )
    return tuple(found.values())


def run(  # noqa: PLR0913  srun has more
    srun: str,
    found: Sequence[Node],
    command: list[str],
    environment: Mapping[str, str],
    *,
    deadline: float,
    partition: str = "",
) -> dict[str, Step]:
    """Run command once on each node that takes a job; return the step that was, by the nodes it was for.

    deadline: seconds for a step. Nodes that are busy are in none.

    Raises:
        SlurmError: srun can't be executed.

    """
    attempts: list[list[str]] = []
    for states in USABLE:
        names = [node.name for node in found if node.kind in states]
        if names and names not in attempts:
            attempts.append(names)
    for names in attempts:
        last = names is attempts[-1]
        argv = argv_of(srun, names, partition, command, PATIENCE[last])
        step = run_step(argv, environment, deadline)
        if last or not step.denied:
            return dict.fromkeys(names, step)
    return {}


def argv_of(srun: str, names: Iterable[str], partition: str, command: list[str], patience: int) -> list[str]:
    """Return the line of a step that runs command once on each node. patience: seconds to wait for them."""
    listed = tuple(names)
    return [
        srun,
        "--job-name=ch-site-check",
        f"--nodelist={host_list(listed)}",
        f"--nodes={len(listed)}",
        f"--ntasks={len(listed)}",
        "--ntasks-per-node=1",
        *([f"--partition={partition}"] if partition else []),
        "--mpi=none",
        "--input=none",
        "--chdir=/",
        "--time=10",
        f"--immediate={patience}",
        "--wait=0",
        "--kill-on-bad-exit=0",
        "sh",
        "-c",
        _SCRIPT,
        "sh",
        *command,
    ]


def run_step(argv: list[str], environment: Mapping[str, str], deadline: float) -> Step:
    """Run the line of argv_of; deadline in seconds. A node that has not answered has no answer.

    Raises:
        SlurmError: srun can't be executed.

    """
    late = False
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=own_job(environment),
            text=True,
            errors="replace",
            start_new_session=True,  # ^C comes to us: srun would only report on its tasks
        )
    except OSError as error:
        raise SlurmError(f"can't execute {argv[0]}: {error.strerror}") from error
    try:
        stdout, stderr = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        late = True
        stdout, stderr = _take_back(process)
    except BaseException:
        _take_back(process)
        raise
    return Step(answers(stdout), stderr, late)


def own_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which srun makes a job of its own, outside of any container."""
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF"
        or not name.startswith(("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "CHLAUNCH_IMAGE"))
    }


def answers(stdout: str) -> dict[str, str]:
    """Return what each node's command has printed, of those that came to their end."""
    parts: dict[str, str] = {}
    for node, part in _PART.findall(stdout):
        parts[node] = parts.get(node, "") + part
    found = {}
    for node, text in parts.items():
        with suppress(binascii.Error):
            told = base64.b64decode(text).decode(errors="replace")
            if re.search(r"^exit=[0-9]+\n\Z", told, re.MULTILINE):
                found[node] = told
    return found


def _take_back(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End srun, and its job with it; return what it had printed."""
    process.terminate()
    try:
        return process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()
