"""Which stages a target needs, and what each is built on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chlaunch.errors import UsageError
from chlaunch.image.dockerfile import checks, syntax
from chlaunch.image.dockerfile.place import Place, nearest, said
from chlaunch.image.dockerfile.scope import PREDEFINED, Scope

SCRATCH = "scratch"


@dataclass(frozen=True)
class Step:
    """A stage that is to be built.

    base: the index of the stage it is built on; None if that is an image. image: its reference, ``scratch``
    for nothing, empty if it is a stage. platform: empty for the usual one. needs: indexes of the stages that
    it copies or mounts from, and base. images: references of images that it copies or mounts from.
    """

    stage: syntax.Stage
    base: int | None
    image: str
    platform: str
    needs: frozenset[int]
    images: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """What to build, in this order; the last one is the target. outside: what ARG without a value takes."""

    steps: tuple[Step, ...]
    outside: Mapping[str, str]

    def scope(self, given: Mapping[str, str], environment: Mapping[str, str]) -> Scope:
        """Return the scope of a stage on an image with this environment, before its first instruction."""
        return Scope(given, self.outside, dict(environment))


def plan(
    dockerfile: syntax.Dockerfile, target: str, given: Mapping[str, str], automatic: Mapping[str, str]
) -> Plan:
    """Return what is to be built for a target: a stage's name or index; empty for the last one.

    given: --build-arg. automatic: scope.platform_arguments().

    Raises:
        UsageError: there is no such target.
        BuildError: a FROM has no value.

    """
    wanted = {_target(dockerfile.stages, target)}
    name = dockerfile.stages[max(wanted)].name
    scope = Scope(given, {}, {}, _automatic(name, given, automatic))
    for arg in dockerfile.global_args:
        scope.set_arguments(arg.expanded(scope).pairs, arg.place)
    steps = [_step(stage, dockerfile.stages, scope) for stage in dockerfile.stages]
    for step in reversed(steps):
        if step.stage.index in wanted:
            wanted |= step.needs
    return Plan(tuple(step for step in steps if step.stage.index in wanted), scope.visible)


def unused(dockerfile: syntax.Dockerfile, given: Mapping[str, str]) -> list[str]:
    """Return the names of --build-arg that no ARG declares, though maybe a base image's ONBUILD."""
    declared = {name for arg in dockerfile.global_args for name, _ in arg.pairs}
    for stage in dockerfile.stages:
        declared |= {
            name for step in stage.instructions if isinstance(step, syntax.Arg) for name, _ in step.pairs
        }
    return sorted(set(given) - declared - set(PREDEFINED))


def origins(instruction: syntax.Instruction) -> list[str]:
    """Return the stages or images that an instruction names: COPY --from, RUN --mount from."""
    if isinstance(instruction, syntax.Copy):
        return [instruction.origin] if instruction.origin else []
    if isinstance(instruction, syntax.Run):
        return [mount.origin for mount in instruction.mounts if mount.origin]
    return []


def origin(name: str, index: int, stages: Sequence[syntax.Stage], place: Place) -> int | str:
    """Return the index of the stage that name means in stage index, or the reference of an image.

    Raises:
        BuildError: the stage itself, or one that comes later.

    """
    if name.isascii() and name.isdigit():
        number = int(name[:9])
        if number >= index:
            why = (
                "is this one"
                if number == index
                else "comes later"
                if number < len(stages)
                else "does not exist"
            )
            raise place.wrong(f"stage {name} {why}", name, "stages are counted from 0")
        return number
    named = [stage.index for stage in stages if stage.name == name.lower()]
    before = [number for number in named if number < index]
    if named and not before:
        why = "is this one" if index in named else "comes later"
        raise place.wrong(f"the stage {name} {why}", name, "only what stands above can be taken from")
    return before[-1] if before else name


def check(stages: Sequence[syntax.Stage]) -> None:
    """Raise BuildError if an instruction takes from its own stage or a later one."""
    for stage in stages:
        for instruction in stage.instructions:
            for name in origins(instruction):
                origin(name, stage.index, stages, instruction.place)


def _automatic(name: str, given: Mapping[str, str], automatic: Mapping[str, str]) -> dict[str, str | None]:
    """Return the ARGs that there are anyway; --build-arg wins. name: the target's."""
    known = {"TARGETSTAGE": name or "default", **automatic}
    return {name: given.get(name, value) for name, value in known.items()}


def _step(stage: syntax.Stage, stages: Sequence[syntax.Stage], scope: Scope) -> Step:
    """Return a stage with what it is built on and takes from."""
    image = scope.expand(stage.base, stage.place)
    if not image.strip():
        hint = "an ARG that FROM uses stands before the first FROM, with a value, or comes by --build-arg"
        raise stage.place.wrong(f"{stage.base} is empty", stage.base, hint)
    platform = scope.expand(stage.platform, stage.place)
    if stage.platform:
        checks.not_blank(platform, stage.platform, stage.place)
    checks.platform(platform, stage.place)
    base = _base(image, stage, stages)
    found = [
        origin(name, stage.index, stages, instruction.place)
        for instruction in stage.instructions
        for name in origins(instruction)
    ]
    needs = {name for name in found if isinstance(name, int)} | ({base} if base is not None else set())
    images = frozenset(name for name in found if isinstance(name, str))
    return Step(stage, base, "" if base is not None else image, platform, frozenset(needs), images)


def _base(image: str, stage: syntax.Stage, stages: Sequence[syntax.Stage]) -> int | None:
    """Return the index of the stage of this name that stands above; later ones, and numbers, are images."""
    before = [other.index for other in stages[: stage.index] if other.name and other.name == image.lower()]
    return before[-1] if before else None


def _target(stages: Sequence[syntax.Stage], target: str) -> int:
    """Return the index of the target."""
    if not target:
        return len(stages) - 1
    named = [stage.index for stage in stages if stage.name == target.lower()]
    if named:
        return named[-1]
    if target.isascii() and target.isdigit() and int(target[:9]) < len(stages):
        return int(target)
    names = [stage.name for stage in stages if stage.name]
    near = nearest(target.lower(), names)
    hint = f"did you mean {near}?" if near else f"stages with a name: {', '.join(names) or 'none'}"
    raise UsageError(f"--target: there is no stage {said(target)}", hint)
