"""ch-image's subcommands that make images: build, modify, build-cache."""

import json
import os
import re
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chlaunch import native
from chlaunch.cli import context, progress, shared
from chlaunch.cli.asked import Asked, name_in_storage
from chlaunch.errors import UsageError
from chlaunch.image import reference
from chlaunch.image.build import cached
from chlaunch.image.build.builder import Builder
from chlaunch.image.build.request import CACHES, FORCES, Means, Request, Secret
from chlaunch.image.build.state import epoch
from chlaunch.image.dockerfile import parse
from chlaunch.image.dockerfile.syntax import Dockerfile
from chlaunch.image.manifest import Platform, host_platform
from chlaunch.image.records import StoredImage
from chlaunch.image.store import Store

SECRETS = "id=NAME,src=FILE or id=NAME,env=VARIABLE"

if TYPE_CHECKING:
    from chlaunch.image.build.binds import Bind

# Of an instruction that is a program.
LINE_MOST = 1000

# Said of a step that took so long, in seconds.
TIME_FROM = 1.0


def build_image(asked: Asked) -> int:
    """Build an image from a Dockerfile."""
    given = asked.given
    arguments = _arguments(given["build_arg"], asked.environment)
    keep_git_dir = arguments.get(context.KEEP_GIT_DIR, "").lower() in context.TRUE
    access = context.Access(_secrets(asked), _agents(asked), keep_git_dir)
    with context.opened(asked, access) as found:
        dockerfile = parse.parse(found.text, found.title)
        if given["parse_only"]:
            for warning in dockerfile.warnings:
                asked.events.warn(f"{warning.line}: {warning.text}")
            asked.events.say(f"{found.title}: {len(dockerfile.stages)} stages")
            return 0
        tag = str(reference.parse(given["tag"] or inferred_tag(found.file, found.named)))
        request = _request(asked, dockerfile, tag, found.directory)
        request = replace(request, left_out=found.left_out, secrets=access.secrets, ssh=access.ssh)
        return _build(asked, request)


def modify(asked: Asked) -> int:
    """Make an image from another by commands, a script, or a shell on the terminal."""
    given = asked.given
    shell = given["shell"] or "/bin/sh"
    lines = [f"SHELL {json.dumps([shell, '-c'])}"] if given["shell"] else []
    directory = None
    before = len(lines)
    if given["script"]:
        script = Path(given["script"])
        directory = script.absolute().parent
        lines.append(f"COPY --chmod=755 {json.dumps([script.name, '/ch/script.sh'])}")
        lines.append(f"RUN {json.dumps([*([shell] if given['shell'] else []), '/ch/script.sh'])}")
    lines += [_run(command) for command in given["commands"]]
    if given["interactive"]:
        # What somebody's last command there ended with is no failure.
        lines.append(f"RUN {json.dumps([shell, '-c', f'{shlex.quote(shell)} || true'])}")
    if len(lines) == before:
        raise UsageError("nothing to do", "give commands with -c, a script, or -i")
    text = "\n".join([f"FROM {given['source']}", *lines])
    dockerfile = parse.parse(text.encode("utf-8", "surrogateescape"), "modify")
    request = _request(asked, dockerfile, str(reference.parse(given["target"])), directory)
    if given["interactive"] and request.cache == "enabled":
        request = replace(request, cache="rebuild")  # what is typed is never the same
    return _build(asked, request)


def _run(command: str) -> str:
    """Return RUN for a command, whatever is in it."""
    plain = "\n" not in command and "<<" not in command and not command.endswith("\\")
    if plain and command.strip() and not command.lstrip().startswith(("[", "--", "#")):
        return f"RUN {command}"
    end = "END"
    while end in command:
        end += "_"
    return f"RUN <<'{end}'\n{command}\n{end}"


def build_cache(asked: Asked) -> int:
    """Show, or thin out, what builds have kept."""
    store = asked.store()
    given = asked.given
    if given["reset"]:
        cached.reset(store, asked.events.say)
        asked.events.say("forgotten: all steps; ch-image gc removes their layers")
    if given["gc"]:
        from chlaunch.image import keeping  # noqa: PLC0415  not for building

        count = cached.thin(store, asked.events.say)
        freed = keeping.collect(store, asked.events.say)
        asked.events.say(f"forgotten: {count} steps; removed {progress.size(freed)}")
    if given["tree"]:
        for line in cached.tree(store):
            click.echo(line)
    if given["dot"]:
        Path(given["dot"]).write_text(cached.dot(store))
    summary = cached.summary(store)
    if given["json"]:
        click.echo(json.dumps(summary))
    elif not (given["tree"] or given["dot"]):
        for name, value in summary.items():
            click.echo(f"{name + ':':<16} {value}")
    return 0


def inferred_tag(file: Path | None, context: Path | None) -> str:
    """Return the name that an image gets without one: from the Dockerfile's extension, else the directory's.

    ``Dockerfile.x`` gives x, ``x.df`` and ``x.dockerfile`` give x, any other the name of its context.
    """
    if file is not None:
        for pattern in (r"Dockerfile\.(.+)", r"(.+)\.df", r"(.+)\.dockerfile"):
            found = re.fullmatch(pattern, file.name, re.IGNORECASE)
            if found:
                return _as_name(found[1])
    return _as_name(context.name) if context is not None and context.name else "root"


def _as_name(text: str) -> str:
    """Return a text with what no reference can have replaced."""
    return re.sub(r"[^a-z0-9._-]", "_", text.lower()).lstrip("._-") or "root"


class Steps:
    """Instructions on the terminal or in a log: one line each, and how long those took that took long."""

    def __init__(self, asked: Asked) -> None:
        """Begin."""
        self._asked = asked
        self._lock = threading.Lock()
        self.count = 0

    def begin(self, line: int, text: str, state: str) -> None:
        """Show one that begins."""
        self.count += 1
        if self._asked.given["json"]:
            shared.say("", json.dumps({"event": "step", "line": line, "text": text, "state": state.strip()}))
        else:
            plain = "".join(one if one.isprintable() else " " for one in text)
            first = plain if len(plain) <= LINE_MOST else f"{plain[: LINE_MOST - 1]}…"
            self._asked.events.say(f"{line:>3}{state} {first}")

    def end(self, line: int, seconds: float) -> None:
        """Show how long one took."""
        if self._asked.given["json"]:
            shared.say("", json.dumps({"event": "step-done", "line": line, "seconds": round(seconds, 3)}))
        elif seconds >= TIME_FROM or self._asked.given["verbose"]:
            self._asked.events.say(f"{line:>3}  took {seconds:.1f} s")


def _build(asked: Asked, request: Request) -> int:
    """Build."""
    if asked.given["dry_run"]:
        steps = Steps(asked)
        for stage in request.dockerfile.stages:
            steps.begin(stage.line, stage.place.told, " ")
            for instruction in stage.instructions:
                steps.begin(instruction.place.line, instruction.place.told, " ")
        return 0
    begun = time.monotonic()
    store = asked.store()
    steps = Steps(asked)
    means = Means(
        asked.events,
        steps,
        lambda word, platform: _image(asked, store, word, platform),
        _fetch(asked),
        lambda word, platform: _stored(asked, store, word, platform) is not None,
    )
    image = Builder(store, request, means).build()
    asked.events.say(f"grown in {steps.count} instructions: {image.name} ({time.monotonic() - begun:.1f} s)")
    asked.result({"name": image.name, "layers": len(image.layers), "platform": image.record.platform})
    return 0


def _stored(asked: Asked, store: Store, word: str, platform: Platform) -> StoredImage | None:
    """Return an image that a Dockerfile names from storage; None if it is to come from its registry."""
    known = store.image(name_in_storage(str(reference.parse(word)), platform))
    return None if asked.given["always_download"] else known


def _image(asked: Asked, store: Store, word: str, platform: Platform) -> StoredImage:
    """Return an image that a Dockerfile names: from storage, else from its registry."""
    known = _stored(asked, store, word, platform)
    if known is not None:
        return known
    from chlaunch.cli import transfer  # noqa: PLC0415  requests takes 150 ms to load
    from chlaunch.image import finding, pull  # noqa: PLC0415  likewise

    source = reference.parse(word)
    full = source.complete(asked.environment)
    wanted = finding.Wanted(name_in_storage(str(source), platform), str(full), full.version, platform)
    with transfer.registry(full, asked) as found:
        return pull.pull(store, found, wanted, asked.events)


def _fetch(asked: Asked) -> Any:  # noqa: ANN401  see Means
    """Return what brings files of ADD from the network."""

    def fetch(url: str, path: Path, checksum: str) -> None:
        from chlaunch.image import urls  # noqa: PLC0415  requests takes 150 ms to load

        how = urls.Fetching(asked.environment, asked.events, verify=not asked.given["tls_no_verify"])
        urls.fetch_url(url, path, how, checksum=checksum)

    return fetch


def _request(asked: Asked, dockerfile: Dockerfile, tag: str, directory: Path | None) -> Request:
    """Return what was asked for."""
    given, environment = asked.given, asked.environment
    platform = asked.platform() or host_platform()
    arguments = _arguments(given["build_arg"], environment)
    arguments.pop(context.KEEP_GIT_DIR, None)  # no ARG asks for it
    date = arguments.get("SOURCE_DATE_EPOCH") or environment.get("SOURCE_DATE_EPOCH")
    return Request(
        dockerfile,
        name_in_storage(tag, platform),
        directory,
        native.ch_run(environment),
        target=given.get("target_stage") or "",
        given=arguments,
        platform=platform,
        cache=_cache(given, environment),
        force=_choice("--force", given["force"] or "seccomp", FORCES),
        commands=tuple(tuple(words.split(",")) for words in given["force_cmd"]),
        binds=tuple(_bind(words) for words in given["bind"]),
        environment=environment,
        source_date=epoch(date),
        interactive=bool(given.get("interactive")),
        shell=given.get("on_failure") == "shell",
        apart=bool(given["json"]),
        verify=not given["tls_no_verify"],
    )


def _arguments(words: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Return build arguments; one without a value has that of the environment.

    Raises:
        UsageError: it has none there.

    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in environment:
            raise UsageError(
                f"--build-arg: {name} has no value, and none in the environment", f"{name}=VALUE"
            )
        found[name] = value if equals else environment[name]
    return found


def _cache(given: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return how the cache is to be used: by options, else CH_IMAGE_CACHE."""
    chosen = [
        name
        for name, state in (("cache", "enabled"), ("no_cache", "disabled"), ("rebuild", "rebuild"))
        if given[name]
    ]
    if len(chosen) > 1:
        raise UsageError("--cache, --no-cache and --rebuild exclude each other", "give one of them")
    names = {"cache": "enabled", "no_cache": "disabled", "rebuild": "rebuild"}
    return (
        names[chosen[0]]
        if chosen
        else _choice("CH_IMAGE_CACHE", environment.get("CH_IMAGE_CACHE") or "enabled", CACHES)
    )


def _choice(what: str, word: str, choices: tuple[str, ...]) -> str:
    """Return a word that must be one of several."""
    if word not in choices:
        raise UsageError(f"{what}: not {word}", f"one of {', '.join(choices)}")
    return word


def _bind(word: str) -> "Bind":
    """Return --bind=SRC[:DST]."""
    from chlaunch.image.build.binds import Bind  # noqa: PLC0415  3 ms to load, and for few

    source, colon, target = word.partition(":")
    return Bind(Path(os.path.abspath(source)), target if colon else source, read_only=False)  # noqa: PTH100  links stay


def _secrets(asked: Asked) -> dict[str, Secret]:
    """Return what --secret gives."""
    return dict(_secret(words, asked.environment) for words in asked.given.get("secret") or ())


def _agents(asked: Asked) -> dict[str, str]:
    """Return what --ssh gives."""
    return dict(_agent(words, asked.environment) for words in asked.given.get("ssh") or ())


def _secret(word: str, environment: Mapping[str, str]) -> tuple[str, Secret]:
    """Return --secret=id=ID[,src=FILE|,env=NAME]; of an ID alone the variable, else the file of that name."""
    said = dict(part.partition("=")[::2] for part in word.split(","))
    name, kind = said.get("id", ""), said.get("type", "")
    if not name or set(said) - {"id", "src", "source", "env", "type"} or kind not in ("", "env", "file"):
        raise UsageError(f"--secret: {word.partition(',')[0]}", SECRETS)
    source, variable = said.get("src") or said.get("source"), said.get("env")
    if source and kind == "env":
        source, variable = None, source
    value = None if source or kind == "file" else environment.get(variable or name)
    if source or (value is None and not variable and kind != "env" and Path(name).is_file()):
        return name, Secret(file=Path(source or name))
    if value is None:
        raise UsageError(f"--secret: {variable or name} is not set", SECRETS)
    return name, Secret(value=value)


def _agent(word: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return --ssh=ID[=SOCKET]."""
    name, _, socket = word.partition("=")
    socket = socket or environment.get("SSH_AUTH_SOCK", "")
    if not socket:
        raise UsageError(f"--ssh={word}: SSH_AUTH_SOCK is not set", "eval $(ssh-agent); ssh-add")
    if not Path(socket).is_socket():
        hint = "eval $(ssh-agent); ssh-add KEY; then --ssh=ID: keys are given by an agent only"
        raise UsageError(f"--ssh: {socket} is no agent's socket", hint)
    return name, socket
