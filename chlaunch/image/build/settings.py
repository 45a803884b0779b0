"""What instructions say of an image without changing its files: ENV, CMD, LABEL and so on."""

from dataclasses import replace
from typing import Any

from chlaunch.image.dockerfile import syntax
from chlaunch.image.dockerfile.command import DEFAULT_SHELL
from chlaunch.image.manifest import Config

Setting = (
    syntax.Env | syntax.Label | syntax.Cmd | syntax.Entrypoint | syntax.Shell | syntax.Healthcheck |
    syntax.User | syntax.Expose | syntax.Volume | syntax.Stopsignal | syntax.Maintainer | syntax.Onbuild |
    syntax.Workdir
)  # fmt: skip


def applied(config: Config, instruction: Setting, *, has_cmd: bool) -> Config:  # noqa: C901, PLR0911, PLR0912  a row each
    """Return what an image says of itself after an instruction whose variables have their values.

    has_cmd: this stage has had a CMD, which ENTRYPOINT then leaves in force (Dockerfile reference,
    "Understand how CMD and ENTRYPOINT interact").
    """
    shell = config.shell or DEFAULT_SHELL
    match instruction:
        case syntax.Env():
            names = dict(row.partition("=")[::2] for row in config.environment) | dict(instruction.pairs)
            return replace(config, environment=tuple(f"{name}={value}" for name, value in names.items()))
        case syntax.Label():
            return replace(config, labels={**config.labels, **dict(instruction.pairs)})
        case syntax.Cmd():
            return replace(config, cmd=instruction.command.argv(shell))
        case syntax.Entrypoint():
            cmd = config.cmd if has_cmd else None
            return replace(config, entrypoint=instruction.command.argv(shell), cmd=cmd)
        case syntax.Shell():
            return replace(config, shell=instruction.words)
        case syntax.User():
            return replace(config, user=instruction.user)
        case syntax.Workdir():
            return replace(config, directory=instruction.under(config.directory or "/"))
        case syntax.Volume():
            return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *instruction.paths))))
        case syntax.Maintainer():
            return replace(config, said={**config.said, "author": instruction.name})
        case syntax.Expose():
            ports = {**_run(config).get("ExposedPorts", {}), **{port: {} for port in instruction.ports}}
            return _with(config, "ExposedPorts", ports)
        case syntax.Stopsignal():
            return _with(config, "StopSignal", instruction.signal)
        case syntax.Onbuild():
            return _with(config, "OnBuild", [*triggers(config), instruction.expression])
        case syntax.Healthcheck():
            return _with(config, "Healthcheck", _healthcheck(instruction, shell))


def is_root(user: str) -> bool:
    """Say whether that is root, as USER says it: a name or number, and maybe a group."""
    return user.partition(":")[0] in ("", "0", "root")


def triggers(config: Config) -> list[str]:
    """Return the instructions that an image keeps for those built on it."""
    said = _run(config).get("OnBuild") or []
    return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []


def without_triggers(config: Config) -> Config:
    """Return what an image says of itself with its triggers pulled: they are not for the next but one."""
    return _with(config, "OnBuild", None)


def _healthcheck(instruction: syntax.Healthcheck, shell: tuple[str, ...]) -> dict[str, Any]:
    """Return a health check as Docker's image configurations have it."""
    if instruction.command is None:
        return {"Test": ["NONE"]}
    command = instruction.command
    test = ["CMD-SHELL", command.text] if command.for_shell else ["CMD", *command.argv(shell)]
    times = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {"Test": test, **{name: value for name, value in times.items() if value}}


def _run(config: Config) -> dict[str, Any]:
    """Return what only Docker understands."""
    said = config.said.get("config")
    return dict(said) if isinstance(said, dict) else {}


def _with(config: Config, name: str, value: object) -> Config:
    """Return it with one of those changed."""
    return replace(config, said={**config.said, "config": {**_run(config), name: value}})
