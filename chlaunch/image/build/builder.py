"""Go through a Dockerfile's stages and make an image of the last one.

Each instruction that changes files is a step: its key is made of what led to the state before it and of
everything its result can depend on. A step whose key is known is not done again. Two builds that come to the
same step at the same time do it once.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chlaunch.errors import BuildError, ChlaunchError
from chlaunch.image import flatten, top
from chlaunch.image.build import copies, runs, settings, stacking, steps
from chlaunch.image.build.request import Means, Request
from chlaunch.image.build.state import State, derived, now, scratch
from chlaunch.image.build.steps import Step
from chlaunch.image.dockerfile import parse, stages, syntax
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.dockerfile.scope import Scope, platform_arguments
from chlaunch.image.manifest import Config, Platform, digest_of, host_platform, parse_config
from chlaunch.image.metadata import config_of, history_of
from chlaunch.image.records import Layer, Record, StoredImage
from chlaunch.image.store import Store

if TYPE_CHECKING:
    from chlaunch.image.build.git import Git, Resolved
    from chlaunch.image.dockerfile.gitref import GitRef


@dataclass
class Progress:
    """A stage that is being built. has_cmd: it has had a CMD. done: how many instructions."""

    step: stages.Step
    scope: Scope
    state: State
    has_cmd: bool = False


@dataclass
class Builder:
    """A build that goes on.

    finished: stages by their index, with the scope at their end. commits: what names of repositories mean for
    this build. unsteady: keys of steps that are not to be remembered, for what they came of has changed
    meanwhile.
    """

    store: Store
    request: Request
    means: Means
    finished: dict[int, tuple[State, Scope]] = field(default_factory=dict)
    images: dict[tuple[str, str], State] = field(default_factory=dict)
    commits: "dict[GitRef, Resolved]" = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set)
    _unstackable: str | None = None
    unsteady: set[str] = field(default_factory=set)

    def build(self) -> StoredImage:
        """Return the image.

        Raises:
            BuildError: an instruction can't be carried out; names it.
            ChlaunchError: an image can't be had; storage can't be written.

        """
        request = self.request
        automatic = platform_arguments(host_platform(), request.platform)
        plan = stages.plan(request.dockerfile, request.target, request.given, automatic)
        for remark in request.dockerfile.warnings:
            self.means.events.warn(f"{remark.line}: {remark.text}")
        try:
            with self.store.using(self.means.events.say, f"building {request.name}"):
                for step in plan.steps:
                    state, scope = self._stage(step, plan)
                    self.finished[step.stage.index] = (state, scope)
                self._warn_unused(plan)
                return self._image(state)
        except OSError as error:
            from chlaunch.image.pull import full  # noqa: PLC0415  pulling takes 5 ms to load

            raise full(error, self.store.path) from error

    @property
    def git(self) -> "Git":
        """Return what asks repositories."""
        from chlaunch.image.build.git import Git  # noqa: PLC0415  rarely needed, and 10 ms to load

        request = self.request
        agent = request.ssh.get("default", "")
        return Git(request.environment, self.means.events, request.secrets, agent, verify=request.verify)

    def origin(self, name: str, stage: syntax.Stage, instruction: syntax.Instruction) -> State:
        """Return the stage or image that --from names."""
        found = stages.origin(name, stage.index, self.request.dockerfile.stages, instruction.place)
        if isinstance(found, int):
            return self.finished[found][0]
        return self.base(found, self.request.platform)

    def base(self, reference: str, platform: Platform) -> State:
        """Return the state that an image is."""
        if reference == stages.SCRATCH:
            return scratch(platform)
        known = self.images.get((reference, str(platform)))
        if known is None:
            known = self.images[reference, str(platform)] = _state_of(self.means.image(reference, platform))
        return known

    def remark(self, text: str) -> None:
        """Tell of something that is left out; once."""
        if text not in self.remarks:
            self.remarks.add(text)
            self.means.events.warn(text)

    def unstackable(self) -> str:
        """Return why layers can't be stacked here, so that a RUN gets a copy of all; empty if they can."""
        if self._unstackable is None:
            with self.store.work() as work:
                self._unstackable = flatten.reason(work, 0)
        return self._unstackable

    def do(
        self,
        progress: Progress,
        instruction: syntax.Instruction,
        key: str,
        work: Callable[[Path], Layer | None],
    ) -> None:
        """Advance a stage by a step that may have been done before. work: makes a layer in a directory.

        A layer without short name is one that is to be stored, its key what that shall begin with; none where
        nothing changed.

        Raises:
            BuildError: it can't be done; names the place.

        """
        place = instruction.place
        known = self._known(key)
        with nullcontext() if known else self._claimed(key, place):
            known = known or self._known(key)
            sign = "*" if known else " " if self.request.cache == "disabled" else "."
            self.means.report.begin(place.line, place.told, sign)
            if known is None:
                begun = time.monotonic()
                known = self._done(progress, place, key, work)
                self.means.report.end(place.line, time.monotonic() - begun)
        step, layer = known
        state = progress.state.with_history(_said(place.told), empty=layer is None)
        progress.state = state if layer is None else state.with_layer(layer, step.made)

    def _known(self, key: str) -> tuple[Step, Layer | None] | None:
        """Return what came of a step, if that is wanted."""
        return steps.find(self.store, key) if self.request.cache == "enabled" else None

    def _claimed(self, key: str, place: Place) -> AbstractContextManager[None]:
        """Let no other build do a step that it then could have from this one."""
        if self.request.cache == "disabled":
            return nullcontext()
        return self.store.claim_step(key, f"building {_brief(place.told)}", self.means.events.say)

    def _done(
        self, progress: Progress, place: Place, key: str, work: Callable[[Path], Layer | None]
    ) -> tuple[Step, Layer | None]:
        """Do a step, and remember it."""
        try:
            with self.store.work() as directory:
                layer = work(directory)
                if layer is not None:
                    # The same step, done anew, makes another layer: of what follows, nothing was done yet.
                    named = replace(layer, key=f"{layer.key}-{key[:32]}{os.urandom(8).hex()}")
                    layer = self.store.add_layer(directory / "layer", named)
        except BuildError:
            raise
        except ChlaunchError as error:
            raise BuildError(f"build failed: {place.shown}: {error.message}", error.hint) from error
        except OSError as error:
            from chlaunch.image.pull import full  # noqa: PLC0415  pulling takes 5 ms to load

            why = full(error, self.store.path)
            raise BuildError(f"build failed: {place.shown}: {why.message}", why.hint) from error
        made = now(self.request.source_date)
        step = Step(key, progress.state.key, place.told, layer.key if layer else "", made)
        if self.request.cache != "disabled" and key not in self.unsteady:
            steps.remember(self.store, step)
        return step, layer

    def _stage(self, step: stages.Step, plan: stages.Plan) -> tuple[State, Scope]:
        """Return what a stage comes to."""
        stage = step.stage
        platform = _platform(step.platform) or self.request.platform
        is_here = step.base is not None or step.image == stages.SCRATCH
        is_here = is_here or self.means.has(step.image, platform)
        self.means.report.begin(stage.line, stage.place.told, "*" if is_here else ".")
        if step.base is not None:
            state, inherited = self.finished[step.base]
            scope = inherited.child()
        else:
            state = self.base(step.image, platform)
            variables = dict(row.partition("=")[::2] for row in state.config.environment)
            scope = plan.scope(self.request.given, variables)
        progress = Progress(step, scope, state)
        self._triggers(progress)
        for instruction in stage.instructions:
            self._instruction(progress, instruction)
        return progress.state, progress.scope

    def _triggers(self, progress: Progress) -> None:
        """Carry out what the base image keeps for those built on it."""
        for expression in settings.triggers(progress.state.config):
            self._instruction(progress, parse.trigger(expression, progress.step.image))
        config = settings.without_triggers(progress.state.config)
        progress.state = replace(progress.state, config=config)

    def _instruction(self, progress: Progress, written: syntax.Instruction) -> None:
        """Carry out an instruction."""
        remember = self.request.cache != "disabled"
        progress.state = stacking.lowered(self.store, progress.state, remember=remember)
        instruction = written.expanded(progress.scope)
        place = instruction.place
        match instruction:
            case syntax.Run():
                runs.run(self, progress, instruction)
            case syntax.Copy() | syntax.Add() | syntax.Rsync():
                copies.copy(self, progress, instruction)
            case syntax.Arg():
                self.means.report.begin(place.line, place.told, " ")
                progress.scope.set_arguments(instruction.pairs, place)
            case _:
                if isinstance(instruction, syntax.Env):
                    progress.scope.set_environment(instruction.pairs, place)
                if isinstance(instruction, syntax.Workdir):
                    copies.make_directory(self, progress, instruction)
                else:
                    self.means.report.begin(place.line, place.told, " ")
                    progress.state = progress.state.with_history(_said(place.told), empty=True)
                config = settings.applied(progress.state.config, instruction, has_cmd=progress.has_cmd)
                _check_text(config, place)
                progress.has_cmd = progress.has_cmd or isinstance(instruction, syntax.Cmd)
                progress.state = replace(progress.state, config=config)

    def _image(self, state: State) -> StoredImage:
        """Put the image into storage; as one layer where several can't be stacked."""
        if len(state.layers) > 1 and self.unstackable():
            state = stacking.single(self.store, state)
        config = state.config
        made = state.made if self.request.source_date is None else self.request.source_date
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))
        said = {**config.said, "created": stamp}
        raw = config_of(replace(config, said=said), [], layers=len(state.layers))
        parsed = parse_config(raw, self.request.name)
        trees = state.trees(self.store)
        with self.store.work() as work:
            ours = top.make(self.store, work / "top", parsed, trees)
        record = Record(
            self.request.name,
            "",
            str(config.platform),
            made,
            tuple(layer.key for layer in state.layers),
            ours.key,
        )
        return self.store.add_image(self.request.name, record, (*state.layers, ours), raw, b"")

    def _warn_unused(self, plan: stages.Plan) -> None:
        """Tell of build arguments that no ARG asks for."""
        declared = {name for _, scope in self.finished.values() for name in scope.arguments}
        unused = [name for name in self.request.given if name not in declared and name not in plan.outside]
        if unused and not all(name in Scope(self.request.given).for_run for name in unused):
            self.means.events.warn(f"--build-arg not used: {', '.join(sorted(unused))}")


def _state_of(image: StoredImage) -> State:
    """Return the state that a stored image is."""
    layers = tuple(layer for layer in image.layers if layer.key != image.record.top)
    if not image.config:
        raise BuildError(f"can't build on {image.name}: it has no configuration", "pull or import it again")
    key = derived("image", [digest_of(image.config), [layer.key for layer in layers]])
    config = parse_config(image.config, image.name)
    history = history_of(config.history, len(layers), image.name)
    return State(layers, key, replace(config, history=tuple(history)), image.record.made)


def _platform(text: str) -> Platform | None:
    """Return the platform that --platform=os/architecture/variant names."""
    if not text:
        return None
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return Platform(architecture or os, variant)


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004  a line


def _said(text: str) -> str:
    """Return an instruction as an image's history has it, which is UTF-8."""
    return " ".join(text.split()).encode("utf-8", "surrogateescape").decode(errors="replace")


def _check_text(config: Config, place: Place) -> None:
    """Raise BuildError if what an image says of itself can't be said in JSON."""
    try:
        config_of(config, []).decode()
    except UnicodeDecodeError:
        why = "what an image says of itself is UTF-8 (RFC 8259), and this is not"
        raise place.failed(why, 0, "set such a variable within RUN") from None
