"""Dockerfiles as people write them, and what each says by Docker's reference: corpus/dockerfiles/expected.toml."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile import parse, stages, syntax
from chlaunch.image.dockerfile.command import DEFAULT_SHELL, Command
from chlaunch.image.dockerfile.scope import Scope, platform_arguments
from chlaunch.image.manifest import Platform

CORPUS = Path(__file__).parent / "corpus/dockerfiles"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "expected.toml").read_text())

PLATFORMS = platform_arguments(Platform("amd64"), Platform("arm64", "v8"))
Kind = TypeVar("Kind")

BASE = {"PATH": "/usr/bin:/bin"}


@dataclass
class Built:
    """What a builder would have in hand after the target's instructions, without having executed any."""

    scope: Scope
    image: str
    steps: list[syntax.Instruction] = field(default_factory=list)
    workdir: str = "/"
    shell: tuple[str, ...] = DEFAULT_SHELL
    said: dict[str, Any] = field(default_factory=dict)

    def do(self, instruction: syntax.Instruction) -> None:
        """Go through one instruction."""
        done = instruction.expanded(self.scope)
        self.steps.append(done)
        if isinstance(done, syntax.Env):
            self.scope.set_environment(done.pairs, done.place)
        elif isinstance(done, syntax.Arg):
            self.scope.set_arguments(done.pairs, done.place)
        elif isinstance(done, syntax.Label):
            self.said.setdefault("labels", {}).update(done.pairs)
        elif isinstance(done, syntax.Workdir):
            self.workdir = done.under(self.workdir)
        elif isinstance(done, syntax.Shell):
            self.shell = done.words
        elif isinstance(done, syntax.Cmd | syntax.Entrypoint):
            self.said[type(done).__name__.lower()] = list(done.command.argv(self.shell))
        elif isinstance(done, syntax.Healthcheck):
            self.said["healthcheck"] = healthcheck(done)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the instructions of one kind."""
        return [step for step in self.steps if isinstance(step, kind)]


def healthcheck(done: syntax.Healthcheck) -> list[str | int]:
    """Return it as image configurations have it."""
    if done.command is None:
        return ["NONE"]
    test = ["CMD-SHELL" if done.command.for_shell else "CMD", *done.command.words]
    return [*test, done.interval, done.timeout, done.start_period, done.start_interval, done.retries]


def built(plan: stages.Plan, given: dict[str, str]) -> Built:
    """Go through the stages of a plan."""
    done: dict[int, Built] = {}
    for step in plan.steps:
        below = None if step.base is None else done[step.base]
        scope = plan.scope(given, BASE) if below is None else below.scope.child()
        state = Built(scope, step.image) if below is None else Built(scope, below.image, [], below.workdir)
        for instruction in step.stage.instructions:
            state.do(instruction)
        done[step.stage.index] = state
    return done[plan.steps[-1].stage.index]


def commands(state: Built, *, for_shell: bool) -> list[Command]:
    """Return the commands of RUN in one form."""
    return [run.command for run in state.of(syntax.Run) if run.command.for_shell == for_shell]


def without(mapping: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """Return what other does not have the same."""
    return {name: value for name, value in mapping.items() if other.get(name) != value}


# How each thing that expected.toml may say is found out.
SEEN: dict[str, Callable[[syntax.Dockerfile, stages.Plan, Built], Any]] = {
    "directives": lambda file, _plan, _state: file.directives,
    "warnings": lambda file, _plan, _state: [remark.line for remark in file.warnings],
    "steps": lambda _file, plan, _state: [step.stage.name for step in plan.steps],
    "platforms": lambda _file, plan, _state: [step.platform for step in plan.steps],
    "images": lambda _file, plan, _state: sorted({image for step in plan.steps for image in step.images}),
    "image": lambda _file, _plan, state: state.image,
    "env": lambda _file, _plan, state: without(state.scope.environment, BASE),
    "args": lambda _file, _plan, state: dict(state.scope.declared),
    "workdir": lambda _file, _plan, state: state.workdir,
    "shell": lambda _file, _plan, state: list(state.shell),
    "runs": lambda _file, _plan, state: [command.text for command in commands(state, for_shell=True)],
    "execs": lambda _file, _plan, state: [
        list(command.words) for command in commands(state, for_shell=False)
    ],
    "mounts": lambda _file, plan, state: [
        [mount.kind, mount.target, mount.source, mount.identifier]
        for run in all_runs(plan, state)
        for mount in run.mounts
    ],
    "networks": lambda _file, _plan, state: [run.network for run in state.of(syntax.Run)],
    "copies": lambda _file, _plan, state: [
        [copy.origin, list(copy.sources), copy.destination] for copy in state.of(syntax.Copy)
    ],
    "copy_flags": lambda _file, _plan, state: next(
        [copy.link, copy.parents, copy.chmod, list(copy.excludes)] for copy in state.of(syntax.Copy)
    ),
    "files": lambda _file, _plan, state: [
        [file.name, file.content] for copy in state.of(syntax.Copy) for file in copy.files
    ],
    "adds": lambda _file, _plan, state: [
        [list(add.sources), add.destination] for add in state.of(syntax.Add)
    ],
    "rsyncs": lambda _file, _plan, state: [
        [rsync.new, rsync.preset, list(rsync.options), list(rsync.sources), rsync.destination]
        for rsync in state.of(syntax.Rsync)
    ],
    "user": lambda _file, _plan, state: state.of(syntax.User)[-1].user,
    "stopsignal": lambda _file, _plan, state: state.of(syntax.Stopsignal)[-1].signal,
    "maintainer": lambda _file, _plan, state: state.of(syntax.Maintainer)[-1].name,
    "expose": lambda _file, _plan, state: [
        port for expose in state.of(syntax.Expose) for port in expose.ports
    ],
    "volumes": lambda _file, _plan, state: [
        path for volume in state.of(syntax.Volume) for path in volume.paths
    ],
    "onbuild": lambda _file, _plan, state: [later.expression for later in state.of(syntax.Onbuild)],
    # TOML is UTF-8, so bytes that are not come as what Latin-1 makes of them.
    "latin_1": lambda _file, _plan, state: [
        latin_1(state.of(syntax.Label)[0].pairs[0]),
        latin_1(state.of(syntax.Copy)[0].sources),
    ],
}


def latin_1(words: tuple[str, ...]) -> list[str]:
    """Return words whose bytes are Latin-1."""
    return [word.encode("utf-8", "surrogateescape").decode("latin-1") for word in words]


def all_runs(plan: stages.Plan, state: Built) -> list[syntax.Run]:
    """Return the RUNs of the target, or of the stage before where it has none with mounts."""
    runs = state.of(syntax.Run)
    if any(run.mounts for run in runs):
        return runs
    return [step for step in plan.steps[0].stage.instructions if isinstance(step, syntax.Run)]


def test_the_corpus_is_complete() -> None:
    files = {path.stem for path in CORPUS.glob("*.dockerfile")}
    assert files == set(EXPECTED)
    assert len(files) >= 60


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dockerfile(name: str) -> None:
    expected = dict(EXPECTED[name])
    given, target, error = (
        expected.pop(key, empty) for key, empty in (("given", {}), ("target", ""), ("error", ""))
    )
    data = (CORPUS / f"{name}.dockerfile").read_bytes()
    if error:
        with pytest.raises(BuildError) as caught:
            built(stages.plan(parse.parse(data, "Dockerfile"), target, given, PLATFORMS), given)
        assert f"can't parse: Dockerfile:{error}" in caught.value.message
        return
    file = parse.parse(data, "Dockerfile")
    plan = stages.plan(file, target, given, PLATFORMS)
    state = built(plan, given)
    expected.setdefault("warnings", [])
    for what, wanted in expected.items():
        seen = SEEN[what](file, plan, state) if what in SEEN else state.said.get(what)
        assert seen == wanted, what
