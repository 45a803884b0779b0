"""Whether all nodes are fit for chlaunch: ch-doctor on each, and that they are alike. Findings are folded."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from chlaunch.doctor import checkup, stack
from chlaunch.doctor.rows import VERDICTS, Row, fine, problem, warning
from chlaunch.slurm.lists import host_list
from chlaunch.slurm.nodes import Node, Step

# How the host is called on which ch-site runs; a node may have its name.
HERE = "here"

# Of a line of the table, for the names of the hosts it is about.
NAMES_WIDTH = 16

# What srun says, among others, where a SPANK plugin that is required did not load in slurmstepd (spank(7)):
# up to 24.11, and 26.05.
_NOT_LOADED = ("Plugin initialization failed", "launch failed: Unspecified error")


@dataclass(frozen=True)
class Host:
    """A host that was looked at. versions: of ch-doctor; slurm: the release of its srun or slurmd."""

    name: str
    rows: tuple[Row, ...]
    state: str = ""
    slurm: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def judge(here: Host, node: Node, step: Step | None, probe: str, deadline: float) -> Host:
    """Return a node with what there is to say of it.

    step: what was run on it, None if nothing was; probe: the path of ch-doctor; deadline: seconds it had.
    """
    if step is None:
        busy = "later again, or --nodes of free ones"
        remedy = busy if node.usable else f"sinfo --list-reasons --nodes={node.name}"
        row = warning("node", f"{node.state}: not looked at", remedy)
        return Host(node.name, (row,), node.state, node.version)
    answer = step.answers.get(node.name)
    told = _report(answer or "")
    if answer is None or (told is None and step.late and _was_ended(answer)):
        return Host(node.name, (_no_answer(node, step, deadline),), node.state, node.version)
    if told is None:
        said, _, code = answer.rstrip().rpartition("exit=")
        last = said.strip().splitlines()
        row = problem(
            "chlaunch",
            f"{probe} can't be run there: {last[-1] if last else 'it printed nothing'} (exit code {code})",
            f"install chlaunch on {node.name} in the same place, or where all nodes see it",
        )
        return Host(node.name, (row,), node.state, node.version)
    rows, versions = told
    compared = (judge_versions(here, versions), judge_release(here.slurm, node.version))
    return Host(node.name, (*compared, *rows), node.state, node.version, versions)


def _no_answer(node: Node, step: Step, deadline: float) -> Row:
    """Return the row of a node from which nothing came."""
    if step.late:  # what srun says then is of its own end
        return problem(
            "node",
            f"{node.state}, but no answer in {deadline:g} s",
            "is it busy, or does a file system hang there? ch-site check --deadline=SECONDS",
        )
    said = [line.strip() for line in step.errors.splitlines() if line.strip()]
    named = next((line for line in reversed(said) if node.name in line), said[-1] if said else "no word")
    if step.denied:
        return warning(
            "node", f"{node.state}: not looked at: {named}", "later again, or --nodes of free ones"
        )
    remedy = "see slurmd's log there"
    if any(words in step.errors for words in _NOT_LOADED):
        remedy += f": maybe {stack.FILE} is missing, and plugstack.conf requires it: ch-site install there"
    return problem("node", f"{node.state}, but no answer: {named}", remedy)


def _was_ended(answer: str) -> bool:
    """Say whether a signal ended ch-doctor: what is taken back at the deadline may still say so."""
    code = answer.rstrip().rpartition("exit=")[2]
    return code.isdecimal() and int(code) > 128  # noqa: PLR2004  as a shell has it


def _report(answer: str) -> tuple[tuple[Row, ...], dict[str, str]] | None:
    """Return the rows and versions in what ch-doctor --json printed; None if that is something else."""
    for line in answer.splitlines():
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            told = json.loads(line)
            rows = tuple(
                Row(str(row["name"]), row["verdict"], str(row["found"]), str(row["remedy"]))
                for row in told["rows"]
            )
            versions = {str(name): str(version) for name, version in told["versions"].items()}
            if all(row.verdict in VERDICTS for row in rows):
                return rows, versions
    return None


def judge_versions(here: Host, there: Mapping[str, str]) -> Row:
    """Return whether a host has the chlaunch that is here."""
    differ = [
        f"{name} {there.get(name, 'none')}, but {version} here"
        for name, version in here.versions.items()
        if there.get(name) != version
    ]
    if differ:
        return problem("chlaunch", "; ".join(differ), "install the same release on all hosts")
    return told_versions(there)


def told_versions(versions: Mapping[str, str]) -> Row:
    """Return the row of a host that has what it should."""
    return fine("chlaunch", ", ".join(f"{name} {version}" for name, version in versions.items()))


def judge_release(here: str, there: str) -> Row:
    """Return whether a node's slurmd is of srun's release. Both may be empty, if not known."""
    if not here or here == there:
        return fine("slurmd", there or "its release is not known")
    if here.split(".")[:2] == there.split(".")[:2]:
        return warning("slurmd", f"{there}, but srun here is {here}", "update the older one")
    return problem(
        "slurmd",
        f"{there}, but srun here is {here}: a plugin for one is refused by the other",
        "ch-site install on each host, with its own plugin directory, until all have one release",
    )


def as_lines(hosts: list[Host]) -> Iterator[str]:
    """Give the table's lines: each finding once, with the hosts that have it."""
    names = [host.name for host in hosts]
    verdicts: list[str] = []
    for row, members in _folded(hosts):
        verdicts.append(row.verdict)
        at = "all" if members == names and len(names) > 1 else host_list(members)
        head = f"  {row.verdict:<8} {at:<{NAMES_WIDTH}} "
        if len(at) > NAMES_WIDTH:
            yield head.rstrip()
            head = " " * (11 + NAMES_WIDTH + 1)
        yield from checkup.row_lines(row, head)
    yield ""
    yield checkup.summary(verdicts)


def _folded(hosts: list[Host]) -> Iterator[tuple[Row, list[str]]]:
    """Give each finding with the names of its hosts. Of what is well, one tells for all what was found."""
    for name in dict.fromkeys(row.name for host in hosts for row in host.rows):
        groups: dict[tuple[str, str, str], dict[str, Row]] = {}
        for host in hosts:
            for row in (row for row in host.rows if row.name == name):
                same = ("ok", "", "") if row.verdict == "ok" else (row.verdict, row.found, row.remedy)
                groups.setdefault(same, {}).setdefault(host.name, row)
        for members in groups.values():
            first, row = next(iter(members.items()))
            if any(other.found != row.found for other in members.values()):
                row = replace(row, found=f"{row.found} ({first})")
            yield row, list(members)


def as_json(hosts: list[Host]) -> str:
    """Return the same as one JSON object."""
    told = [
        {
            "name": host.name,
            "state": host.state,
            "slurm": host.slurm,
            "versions": dict(host.versions),
            "verdict": VERDICTS[checkup.exit_code(row.verdict for row in host.rows)],
            "rows": [vars(row) for row in host.rows],
        }
        for host in hosts
    ]
    return json.dumps({"verdict": VERDICTS[exit_code(hosts)], "hosts": told})


def exit_code(hosts: list[Host]) -> int:
    """Return 0 if all is well, 1 for warnings, 2 for problems."""
    return checkup.exit_code(row.verdict for host in hosts for row in host.rows)
