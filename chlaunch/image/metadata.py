"""What an image says of itself, as files in /ch: written for ch-run and Charliecloud's tools, and read back.

``/ch/environment`` has ``NAME=VALUE`` lines; ``/ch/entrypoint`` and ``/ch/cmd`` have words in the form of
runtime/command.c; ``/ch/metadata.json`` has all of it, with Charliecloud's keys and ``user``;
``/ch/config.pulled.json`` is the configuration as it was had, for what the others have no place for.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from chlaunch.errors import ImageError
from chlaunch.image import manifest
from chlaunch.image.manifest import CONFIG_MOST, Config, Platform
from chlaunch.rootfs import Rootfs

ENVIRONMENT = "ch/environment"
METADATA = "ch/metadata.json"
PULLED = "ch/config.pulled.json"
ENTRYPOINT = "ch/entrypoint"
CMD = "ch/cmd"

# Of a file of words, and of the two files that ch-run reads (runtime/command.c, environment.c).
MAGIC = b"angi"
LENGTH = struct.Struct(">I")
WORDS_MOST = 4096
FILE_MOST = 1 << 20

# What a shell form is run by where nothing else is said (Dockerfile reference, SHELL).
SHELL = ("/bin/sh", "-c")

# The machines of ELF (elf(5), e_machine), and what images call them where the bytes are in this order.
MACHINES = {
    ("little", 3): Platform("386"),
    ("little", 8): Platform("mips64le"),
    ("little", 21): Platform("ppc64le"),
    ("big", 21): Platform("ppc64"),
    ("big", 22): Platform("s390x"),
    ("little", 40): Platform("arm"),
    ("little", 62): Platform("amd64"),
    ("little", 183): Platform("arm64", "v8"),
    ("little", 243): Platform("riscv64"),
    ("little", 258): Platform("loong64"),
}
ELF_HEADER = 20

# Programs that nearly every image has, and where its C library may be, whose name begins so.
PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/busybox", "/sbin/ldconfig")
LIBRARIES = ("/lib64", "/lib", "/usr/lib64", "/usr/lib")
LIBRARY = ("libc.so", "ld-")


def metadata_files(config: Config) -> dict[str, bytes]:
    """Return the files that an image gets, by their paths without the first slash.

    A variable whose value has a line end is in metadata.json only: a line of a file can't hold it.

    Raises:
        ImageError: its command or its environment is longer than ch-run reads.

    """
    environment = _mapping(config.environment)
    files = {ENVIRONMENT: _environment_text(environment), METADATA: _metadata_text(config, environment)}
    for name, words in ((ENTRYPOINT, config.entrypoint), (CMD, config.cmd)):
        if words:
            files[name] = _command_text(words)
    if config.raw:
        files[PULLED] = config.raw
    for name in (ENVIRONMENT, ENTRYPOINT, CMD):
        if len(files.get(name, b"")) >= FILE_MOST:
            raise ImageError(f"can't use image: what would be /{name} has more than 1 MiB", "is it an image?")
    return files


def read_metadata(rootfs: Rootfs, shown: str, default: Platform | None = None) -> Config:
    """Return what an image says of itself in /ch, of the platform that platform_of() tells, or the default.

    The files that ch-run reads win over metadata.json, so what users changed in them holds. There are no
    diff_ids; raw is empty.

    Raises:
        ImageError: one of the files makes no sense, or nothing tells the platform.

    """
    said = _json_file(rootfs, METADATA, shown)
    pulled = _json_file(rootfs, PULLED, shown)
    environment = _mapping(tuple(f"{name}={value}" for name, value in _object(said, "env", shown).items()))
    if rootfs.is_file(ENVIRONMENT):
        long = {name: value for name, value in environment.items() if "\n" in value}
        environment = {**long, **_parse_environment(_file(rootfs, ENVIRONMENT, shown))}
    history = said.get("history")
    return Config(
        platform=platform_of(rootfs, shown, default),
        environment=tuple(f"{name}={value}" for name, value in sorted(environment.items())),
        entrypoint=_command(rootfs, ENTRYPOINT, said.get("entrypoint"), shown),
        cmd=_command(rootfs, CMD, said.get("cmd"), shown),
        directory=_text(said, "cwd", shown),
        user=_text(said, "user", shown),
        shell=_words(said.get("shell"), f"{shown}: /{METADATA}: shell"),
        labels={name: str(value) for name, value in _object(said, "labels", shown).items()},
        volumes=_words(said.get("volumes"), f"{shown}: /{METADATA}: volumes") or (),
        diff_ids=(),
        history=tuple(row for row in history if isinstance(row, dict)) if isinstance(history, list) else (),
        said=pulled,
        raw=b"",
    )


def config_of(
    config: Config, diff_ids: Sequence[str], *, created_by: str = "chlaunch", layers: int | None = None
) -> bytes:
    """Return the configuration of an image that consists of these layers, the same for the same content.

    created_by: what its history says of layers that its own does not account for. layers: how many there are,
    where their diff IDs are not known yet. What only Docker understands, such as a health check, is taken
    from config.said.
    """
    run = dict(config.said.get("config") or {}) if isinstance(config.said.get("config"), dict) else {}
    run.update(
        {
            "Env": list(config.environment),
            "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
            "Cmd": None if config.cmd is None else list(config.cmd),
            "WorkingDir": config.directory,
            "User": config.user,
            "Labels": dict(config.labels),
            "Volumes": {path: {} for path in config.volumes},
            "Shell": None if config.shell in (None, SHELL) else list(config.shell or ()),
        }
    )
    said = {
        "architecture": config.platform.architecture,
        "os": config.platform.os,
        "config": {name: value for name, value in run.items() if value not in (None, "", {})},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": history_of(config.history, len(diff_ids) if layers is None else layers, created_by),
    }
    if config.platform.variant:
        said["variant"] = config.platform.variant
    for name in ("created", "author"):
        if isinstance(config.said.get(name), str):
            said[name] = config.said[name]
    return manifest.dump(said)


def platform_of(rootfs: Rootfs, shown: str, default: Platform | None = None) -> Platform:
    """Return what an image runs on: by its programs, with the variant that metadata has; else the default.

    Raises:
        ImageError: there is none of them.

    """
    said = _text(_json_file(rootfs, METADATA, shown), "arch", shown)
    architecture, _, variant = said.partition("/")
    told = Platform(architecture, variant)
    found = _platform_of_programs(rootfs)
    if found is not None and (not architecture or found.architecture != architecture):
        return found
    if architecture:
        return told
    if default is not None:
        return default
    raise ImageError(
        f"can't tell the architecture of {shown}: it has neither /{METADATA} nor a program of a known one",
        "is it an image? If so, name its architecture with --arch",
    )


def command_text(words: Sequence[str]) -> bytes:
    """Return the text of /ch/entrypoint or /ch/cmd."""
    return MAGIC + b"".join(LENGTH.pack(len(word)) + word for word in map(_encoded, words))


def parse_command(text: bytes, shown: str) -> tuple[str, ...]:
    """Return the words that a text of /ch/entrypoint or /ch/cmd holds.

    Raises:
        ImageError: it is not in that form.

    """
    words: list[str] = []
    at = len(MAGIC)
    while text.startswith(MAGIC) and at + LENGTH.size <= len(text) and len(words) < WORDS_MOST:
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(text, at)[0]
        word = text[start:at]
        if at > len(text) or b"\0" in word:
            break
        words.append(word.decode("utf-8", "surrogateescape"))
    if at != len(text) or not text.startswith(MAGIC):
        raise ImageError(f"{shown}: not the words of a command", "make the image again, or remove that file")
    return tuple(words)


def _command_text(words: Sequence[str]) -> bytes:
    if len(words) > WORDS_MOST:
        raise ImageError(f"can't use image: its command has more than {WORDS_MOST} words", "is it an image?")
    return command_text(words)


def _metadata_text(config: Config, environment: Mapping[str, str]) -> bytes:
    """Return metadata.json. Charliecloud's tools want all of their keys."""
    said = {
        "arch": str(config.platform),
        "arg": {},
        "cmd": None if config.cmd is None else list(config.cmd),
        "cwd": config.directory or "/",
        "entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "env": dict(environment),
        "history": list(config.history),
        "labels": dict(config.labels),
        "shell": list(config.shell or SHELL),
        "user": config.user,
        "volumes": sorted(config.volumes),
    }
    return json.dumps(said, indent=2, sort_keys=True).encode() + b"\n"  # all ASCII: surrogates are escaped


def _mapping(variables: Sequence[str]) -> dict[str, str]:
    """Return variables by their names. What has no name is none; of two the later holds."""
    parts = [variable.partition("=") for variable in variables]
    return {name: value for name, equals, value in parts if name and equals and "\n" not in name}


def _environment_text(environment: Mapping[str, str]) -> bytes:
    """Return the lines of /ch/environment. ch-run takes quotes off a value: that gets another pair."""
    lines = []
    for name, value in sorted(environment.items()):
        quoted = len(value) > 1 and value[0] == value[-1] == "'"
        if "\n" not in value:
            lines.append(f"{name}='{value}'\n" if quoted else f"{name}={value}\n")
    return _encoded("".join(lines))


def _parse_environment(text: bytes) -> dict[str, str]:
    """Return the variables in a text of /ch/environment."""
    found = {}
    for name, value in _mapping(text.decode("utf-8", "surrogateescape").split("\n")).items():
        quoted = len(value) > 1 and value[0] == value[-1] == "'"
        found[name] = value[1:-1] if quoted else value
    return found


def history_of(rows: Sequence[Mapping[str, Any]], layers: int, created_by: str) -> list[dict[str, Any]]:
    """Return a history in which as many rows made a layer as there are (OCI: "history")."""
    if sum(1 for row in rows if not row.get("empty_layer")) == layers:
        return [dict(row) for row in rows]
    return [
        *({**row, "empty_layer": True} for row in rows),
        *({"created_by": created_by} for _ in range(layers)),
    ]


def _platform_of_programs(rootfs: Rootfs) -> Platform | None:
    """Return what the programs of an image run on; None if there are none that we know."""
    libraries = (
        f"{directory}/{name}"
        for directory in LIBRARIES
        for name in rootfs.names(directory)
        if name.startswith(LIBRARY)
    )
    for path in (*PROGRAMS, *libraries):
        file = rootfs.open(path)
        if file is None:
            continue
        with file:
            header = file.read(ELF_HEADER)
        order = {1: "little", 2: "big"}.get(header[5]) if len(header) == ELF_HEADER else None
        if header.startswith(b"\x7fELF") and order is not None:
            machine = struct.unpack_from("<H" if order == "little" else ">H", header, 18)[0]
            if (order, machine) in MACHINES:
                return MACHINES[order, machine]
    return None


def _command(rootfs: Rootfs, path: str, said: object, shown: str) -> tuple[str, ...] | None:
    """Return the words of ENTRYPOINT or CMD: of its file, else as metadata.json has them."""
    if rootfs.is_file(path):
        return parse_command(_file(rootfs, path, shown), f"{shown}: /{path}")
    return _words(said, f"{shown}: /{METADATA}: {path.removeprefix('ch/')}")


def _json_file(rootfs: Rootfs, path: str, shown: str) -> dict[str, Any]:
    """Return the object in a JSON file of the image; empty if there is no such file."""
    if not rootfs.is_file(path):
        return {}
    try:
        said = json.loads(_file(rootfs, path, shown, CONFIG_MOST))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ImageError(f"{shown}: /{path}: not a JSON object", "mend or remove that file")
    return said


def _file(rootfs: Rootfs, path: str, shown: str, most: int = FILE_MOST) -> bytes:
    """Return what is in a file of the image."""
    file = rootfs.open(path)
    if file is None:
        raise ImageError(f"{shown}: /{path}: can't be read", "make it readable")
    with file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ImageError(f"{shown}: /{path}: more than {most >> 20} MiB", "mend or remove that file")
    return text


def _object(said: Mapping[str, Any], name: str, shown: str) -> dict[str, str]:
    """Return an object of metadata.json whose values are texts; empty if it is not there."""
    value = said.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ImageError(f"{shown}: /{METADATA}: {name} is no object of texts", "mend or remove that file")
    return value


def _text(said: Mapping[str, Any], name: str, shown: str) -> str:
    """Return a text of metadata.json; empty if it is not there."""
    value = said.get(name) or ""
    if not isinstance(value, str):
        raise ImageError(f"{shown}: /{METADATA}: {name} is no text", "mend or remove that file")
    return value


def _words(value: object, shown: str) -> tuple[str, ...] | None:
    """Return an array of texts; None if it is not there."""
    if value is None:
        return None
    if not isinstance(value, list) or any(not isinstance(word, str) or "\0" in word for word in value):
        raise ImageError(f"{shown}: no array of texts", "mend or remove that file")
    return tuple(value)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
