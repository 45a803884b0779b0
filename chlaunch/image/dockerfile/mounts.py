"""RUN --mount: what may be said in it (Dockerfile reference, "RUN --mount")."""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from chlaunch.image.dockerfile import checks, grammar
from chlaunch.image.dockerfile.place import Place, nearest
from chlaunch.image.dockerfile.scope import Scope

# What each type takes besides type; the rest are other names of these.
TYPES = {
    "bind": ("target", "source", "from", "readonly"),
    "cache": ("target", "source", "from", "readonly", "id", "sharing", "mode", "uid", "gid"),
    "tmpfs": ("target", "size", "readonly"),
    "secret": ("target", "source", "id", "env", "required", "mode", "uid", "gid", "readonly"),
    "ssh": ("target", "id", "required", "mode", "uid", "gid", "readonly"),
}
OTHER_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
FLAGS = ("readonly", "readwrite", "required")
KEYS = sorted({key for keys in TYPES.values() for key in keys} | {"type", "readwrite"} | set(OTHER_NAMES))
SHARING = ("shared", "private", "locked")

WRITABLE = ("cache", "tmpfs")
NEED_TARGET = ("bind", "cache", "tmpfs")

TRUE, FALSE = ("1", "t", "true"), ("0", "f", "false")
UNITS = {unit: 1 << 10 * power for power, unit in enumerate("bkmgtp")}

NUMBER_MOST = 1 << 32
SIZE_MOST = 1 << 60


@dataclass(frozen=True)
class Mount:
    """One --mount. text: as it was given; the rest is complete once variables are in.

    origin: from. identifier: id; of a secret also its source, of a cache also its target. mode, uid, gid: of
    what is mounted. size: in bytes.
    """

    text: str
    kind: str = "bind"
    target: str = ""
    source: str = ""
    origin: str = ""
    identifier: str = ""
    variable: str = ""
    sharing: str = "shared"
    read_only: bool = True
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None

    def expanded(self, scope: Scope, place: Place) -> "Mount":
        """Return it with values. Raises BuildError as read() does."""
        return read(self.text, place, lambda word: scope.expand(word, place))


def read(text: str, place: Place, expand: Callable[[str], str] | None = None) -> Mount:
    """Return the mount that text describes. expand: None leaves out what has variables in it.

    Raises:
        BuildError: an unknown type or key, a key of another type, a value that makes no sense, no target.

    """
    if "$" not in text:
        expand = None
    options = _options(text, place)
    complete = expand is not None or "$" not in text
    known = {
        key: expand(value) if expand else value
        for key, value in options.items()
        if complete or "$" not in value
    }
    kind = known.get("type", "bind").lower()
    if kind not in TYPES:
        raise place.wrong(f"there is no mount of type {kind}", kind, _close(kind, TYPES))
    for key in options:
        if key != "type" and (complete or "$" not in options.get("type", "")) and key not in TYPES[kind]:
            hint = f"it takes {', '.join(TYPES[kind])}"
            raise place.wrong(f"a mount of type {kind} takes no {key}", key, hint)
    mount = Mount(text, kind, read_only=kind not in WRITABLE, **_values(known, place))
    if "readonly" in known:
        mount = replace(mount, read_only=_truth("readonly", known["readonly"], place))
    return _completed(mount, place) if complete else mount


def _options(text: str, place: Place) -> dict[str, str]:
    """Return the options by their first names; the later one of two counts. readwrite is readonly=false."""
    try:
        fields = [piece.text for piece in grammar.tokens("mount", text)]
    except grammar.UnreadableError:
        raise place.wrong("--mount takes KEY=VALUE,KEY=VALUE", "--mount") from None
    options = {}
    for quoted in fields:
        field = quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted
        key, equals, value = field.partition("=")
        key = key.lower()
        if key not in KEYS:
            raise place.wrong(f"--mount has no {key}", field, _close(key, KEYS))
        key = OTHER_NAMES.get(key, key)
        if not equals and key not in FLAGS:
            raise place.wrong(f"--mount: {key} needs a value", field, f"{key}=…")
        value = value if equals else "true"
        if key == "readwrite":
            key, value = "readonly", value if "$" in value else str(not _truth(key, value, place))
        options[key] = value
    return options


def _values(known: dict[str, str], place: Place) -> dict[str, Any]:
    """Return the fields of a mount that are said."""
    fields: dict[str, Any] = {}
    for key, field in (("target", "target"), ("source", "source"), ("from", "origin"), ("env", "variable")):
        fields |= {field: known[key]} if key in known else {}
    if "from" in known and not known["from"]:
        raise place.wrong("--mount: from is empty", "from=")
    fields |= {"identifier": known["id"]} if "id" in known else {}
    if "sharing" in known:
        fields["sharing"] = known["sharing"].lower()
        if fields["sharing"] not in SHARING:
            raise place.wrong(
                f"--mount: sharing={known['sharing']}", "sharing", f"one of {', '.join(SHARING)}"
            )
    if "required" in known:
        fields["required"] = _truth("required", known["required"], place)
    for key, base in (("mode", 8), ("uid", 10), ("gid", 10)):
        if key in known:
            fields[key] = _number(key, known[key], base, place)
    if "size" in known:
        fields["size"] = _size(known["size"], place)
    return fields


def _completed(mount: Mount, place: Place) -> Mount:
    """Return a mount with what follows from what is said."""
    if mount.kind in NEED_TARGET and not mount.target:
        raise place.wrong(f"a mount of type {mount.kind} needs a target", "--mount", "target=DIRECTORY")
    if mount.target.startswith("/") and checks.absolute("/", mount.target) == "/":
        raise place.wrong(
            "a mount can't replace the whole image", "target" if "target" in mount.text else "--mount"
        )
    if mount.kind == "cache":
        if mount.source and not mount.origin:
            raise place.wrong("a cache without from begins empty: it has no source", "source", "from=STAGE")
        return replace(mount, identifier=mount.identifier or posixpath.normpath(mount.target))
    if mount.kind == "ssh":
        return replace(mount, identifier=mount.identifier or "default")
    if mount.kind == "secret":
        if mount.identifier and mount.source:
            raise place.wrong("a secret has an id or a source, not both", "source")
        identifier = mount.identifier or mount.source or posixpath.basename(mount.target) or mount.variable
        if not identifier:
            raise place.wrong("a secret needs an id", "--mount", "--mount=type=secret,id=NAME")
        mounted = mount.target or ("" if mount.variable else f"/run/secrets/{posixpath.basename(identifier)}")
        return replace(mount, identifier=identifier, target=mounted)
    return mount


def _truth(key: str, value: str, place: Place) -> bool:
    """Return a truth value."""
    if value.lower() not in TRUE + FALSE:
        raise place.wrong(f"--mount: {key}={value} is neither true nor false", key)
    return value.lower() in TRUE


def _number(key: str, value: str, base: int, place: Place) -> int:
    """Return a number that is not negative."""
    digits = "01234567" if base == 8 else "0123456789"  # noqa: PLR2004  octal
    if not value or value.strip(digits) or int(value[:40], base) >= NUMBER_MOST:
        raise place.wrong(f"--mount: {key}={value} is no {'mode' if key == 'mode' else 'number'}", key)
    return int(value, base)


def _size(value: str, place: Place) -> int:
    """Return bytes: a number and maybe b, k, m, g, t or p, of powers of 1024, and then b or ib."""
    text = value.lower().strip()
    number = text.rstrip("".join(UNITS) + "i")
    unit = text[len(number) :]
    try:
        size = int(float(number) * UNITS[unit[:1] or "b"]) if unit[1:] in ("", "b", "ib") else -1
    except (ValueError, OverflowError):
        size = -1
    if not 0 <= size <= SIZE_MOST:
        raise place.wrong(f"--mount: size={value} is no size", "size", "such as 512m or 2g")
    return size


def _close(word: str, known: Any) -> str:  # noqa: ANN401  a table or a list of names
    """Return a suggestion for a word."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else f"one of {', '.join(known)}"
