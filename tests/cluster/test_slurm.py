"""What we make of Slurm's words, beside what Slurm itself makes of them."""

from __future__ import annotations

import random
import shlex
from typing import TYPE_CHECKING

from machine import CHECKOUT

from chlaunch.launch import srun_words
from chlaunch.slurm import lists

if TYPE_CHECKING:
    from cluster import Cluster

LISTS = 120
PYTHON = CHECKOUT / ".venv/bin/python"


def some_list(chance: random.Random) -> str:
    """Return a host list such as Slurm writes: brackets come last in a name, or behind each other."""

    def bracket() -> str:
        items = []
        for _ in range(chance.randint(1, 3)):
            first, width = chance.randint(0, 120), chance.randint(1, 4)
            last = first + chance.randint(0, 9)
            items.append(f"{first:0{width}}" if first == last else f"{first:0{width}}-{last:0{width}}")
        return f"[{','.join(items)}]"

    def name() -> str:
        stem = "".join(chance.choices("abn-", k=chance.randint(1, 3)))
        return f"a{stem}" + chance.choice(["", "7", "08", bracket(), bracket(), f"{bracket()}x{bracket()}"])

    return ",".join(name() for _ in range(chance.randint(1, 4)))


def test_host_lists(cluster: Cluster) -> None:
    seed = random.randrange(10**6)  # noqa: S311  of lists
    chance = random.Random(seed)  # noqa: S311  likewise
    written = [some_list(chance) for _ in range(LISTS)]
    ours = [lists.hosts(text) for text in written]
    back = [lists.host_list(names) for names in ours]
    script = "".join(
        f"scontrol show hostnames {shlex.quote(text)} | paste -sd,\n"
        f"scontrol show hostnames {shlex.quote(again)} | paste -sd,\n"
        f"scontrol show hostlist {shlex.quote(','.join(names))}\n"
        for text, again, names in zip(written, back, ours, strict=True)
    )
    cluster.outside("/home/alice/lists.sh").write_text(script)  # longer than a word of a command line may be
    told = cluster.run(["sh", "lists.sh"], check=True).stdout.splitlines()
    assert len(told) == 3 * LISTS, seed
    for text, names, plain, again, short in zip(
        written, ours, told[::3], told[1::3], told[2::3], strict=True
    ):
        assert (text, ",".join(names)) == (text, plain), seed
        assert (text, again) == (text, plain), seed
        assert lists.hosts(short) == names, (seed, text, short)


def test_counts(cluster: Cluster) -> None:
    show = "salloc --quiet -N2 -n3 sh -c 'echo $SLURM_TASKS_PER_NODE $SLURM_JOB_NODELIST'"
    tasks, nodes = cluster.run(show, check=True).stdout.split()
    assert lists.hosts(nodes) == ("n1", "n2")
    assert sum(lists.counts(tasks)) == 3
    assert len(lists.counts(tasks)) == 2


def test_facts(cluster: Cluster) -> None:
    inside = "import sys; from chlaunch.slurm import facts, offer; f = facts.facts('/usr/bin/scontrol', {});"
    inside += "print(f.version, f.mpi_default, f.spool, f.tmp, f.pmix_tmp, *f.plugin_directories);"
    inside += "print(offer('/usr/bin/srun', with_version=True).version)"
    shown, version = cluster.run([PYTHON, "-c", inside], check=True).stdout.splitlines()
    assert shown.split()[:5] == [version, "none", "/var/spool/slurmd", "/tmp", "/tmp"]
    listed = cluster.run(f"ls {shown.split()[5]}", check=True).stdout.split()
    assert "mpi_pmi2.so" in listed


def test_sruns_options_are_known(cluster: Cluster) -> None:
    # an option alone, which no daemon is asked for: srun misses its value or, for all others, a command
    script = (
        "srun --help | grep -oE '^ *(-[A-Za-z], *)?--[a-z_-]+' | grep -oE -- '--.*' |"
        " while read option; do echo $option $(srun $option 2>&1 </dev/null | head -n1); done"
    )
    told = dict(line.split(maxsplit=1) for line in cluster.run(script, check=True).stdout.splitlines())
    valued = {
        name.removeprefix("--"): "requires an argument" in said
        for name, said in told.items()
        if "unrecognized" not in said  # 24.11 lists --power, which it has no more
    }
    assert len(valued) > 100
    assert {name: name in srun_words.VALUED for name in valued} == valued
    assert set(valued) <= srun_words.ALONE | srun_words.VALUED
