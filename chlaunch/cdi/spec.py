"""A CDI specification: the fields of version 0.3.0 to 1.1.0, checked as the reference library does.

Sources: SPEC.md, specs-go/config.go, specs-go/version.go and pkg/cdi/container-edits.go of
https://github.com/cncf-tags/container-device-interface.
"""

import re
from dataclasses import dataclass

from chlaunch.cdi.document import Value, shown
from chlaunch.errors import CdiError

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

# The fields that came with a later version than the first. 0.8.0 and 1.0.0 brought no field; that
# names of devices may begin with a digit since 0.5.0 and classes have dots since 0.6.0 is checked with them.
SINCE = {
    "mounts.type": "0.4.0",
    "deviceNodes.hostPath": "0.5.0",
    "annotations": "0.6.0",
    "intelRdt": "0.7.0",
    "additionalGIDs": "0.7.0",
    "netDevices": "1.1.0",
    "intelRdt.schemata": "1.1.0",
    "intelRdt.enableMonitoring": "1.1.0",
}

HOOK_NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NODE_TYPES = ("", "b", "c", "u", "p")

_VENDOR_OR_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]{0,251}[A-Za-z0-9])?")
_PERMISSIONS = re.compile(r"[rwm]*|none")

_NUMBER_MAX = 2**63 - 1
_ID_MAX = 2**32 - 1
_PATH_MAX = 4095  # PATH_MAX of limits.h, which counts the zero


@dataclass(frozen=True)
class DeviceNode:
    """A device file: path in the container, host_path on the host; type b, c, u or p, empty if not said.

    Numbers, mode and owner are checked and dropped: a user can't make device files, only show the host's.
    """

    path: str
    host_path: str
    type: str = ""


@dataclass(frozen=True)
class Mount:
    """A mount: of host_path at container_path, unless type says it is something else."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


@dataclass(frozen=True)
class Hook:
    """A program that an OCI runtime would run. args are all of its words, the first its own name."""

    name: str
    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContainerEdits:
    """What one device, or any of a file, needs. env: NAME=VALUE. interfaces: of the host's network."""

    env: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    gids: tuple[int, ...] = ()
    intel_rdt: bool = False
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """A device by its name within the kind, and its edits."""

    name: str
    edits: ContainerEdits


@dataclass(frozen=True)
class Spec:
    """What one file says. edits: made once if any of its devices is used."""

    file: str
    kind: str
    devices: tuple[Device, ...]
    edits: ContainerEdits = ContainerEdits()


def is_kind(word: str) -> bool:
    """Say whether word is vendor/class."""
    vendor, slash, name = word.partition("/")
    return bool(slash and _VENDOR_OR_CLASS.fullmatch(vendor) and _VENDOR_OR_CLASS.fullmatch(name))


def is_device_name(word: str) -> bool:
    """Say whether word can name a device of a kind."""
    return _DEVICE.fullmatch(word) is not None


def parse(value: Value) -> Spec:
    """Return the specification that a file holds.

    Raises:
        CdiError: naming file, place and what is wrong.

    """
    fields = value.fields(("cdiVersion", "kind", "annotations", "devices", "containerEdits"))
    _need(value, fields, "cdiVersion", "kind", "devices")
    version = _version(fields["cdiVersion"])
    kind = _kind(fields["kind"], version)
    _annotations(fields, version)
    devices = tuple(_device(item, version) for item in fields["devices"].items())
    if not devices:
        raise fields["devices"].error("is empty: there must be a device")
    names: set[str] = set()
    for device in devices:
        if device.name in names:
            raise fields["devices"].error(f"has two devices {device.name}")
        names.add(device.name)
    edits = _edits(fields["containerEdits"], version) if "containerEdits" in fields else ContainerEdits()
    return Spec(value.file, kind, devices, edits)


def _version(value: Value) -> str:
    """Return the version of the specification; the reference library takes v0.5.0 for 0.5.0."""
    version = value.text().removeprefix("v")
    if version not in VERSIONS:
        raise CdiError(
            f"{value.file}: cdiVersion is {shown(version)}; known are {', '.join(VERSIONS)}",
            "make the file again with an older version of its vendor's tool, or take a newer chlaunch",
        )
    return version


def _kind(value: Value, version: str) -> str:
    """Return vendor/class."""
    kind = value.text()
    if not is_kind(kind):
        raise value.error(f"must be vendor.com/class, not {shown(kind)}")
    if "." in kind.partition("/")[2]:
        _since(value, "0.6.0", version, "a class with a dot")
    return kind


def _device(value: Value, version: str) -> Device:
    """Return one device."""
    fields = value.fields(("name", "annotations", "containerEdits"))
    _need(value, fields, "name", "containerEdits")
    _annotations(fields, version)
    name = fields["name"].text()
    if not is_device_name(name):
        raise fields["name"].error(
            f"must be letters and digits, with . _ - and : between them, not {shown(name)}"
        )
    if name[0].isdigit():
        _since(fields["name"], "0.5.0", version, "a name that begins with a digit")
    edits = _edits(fields["containerEdits"], version)
    if edits == ContainerEdits():
        raise fields["containerEdits"].error("is empty: a device must be something")
    return Device(name, edits)


def _edits(value: Value, version: str) -> ContainerEdits:
    """Return the edits of a device or a specification."""
    fields = value.fields(
        ("env", "deviceNodes", "hooks", "mounts", "intelRdt", "additionalGIDs", "netDevices")
    )
    _check_since(fields, version)
    items = {name: field.items() for name, field in fields.items() if name != "intelRdt"}
    if "intelRdt" in fields:
        _intel_rdt(fields["intelRdt"], version)
    return ContainerEdits(
        env=tuple(_variable(item) for item in items.get("env", ())),
        nodes=tuple(_node(item, version) for item in items.get("deviceNodes", ())),
        mounts=tuple(_mount(item, version) for item in items.get("mounts", ())),
        hooks=tuple(_hook(item) for item in items.get("hooks", ())),
        gids=tuple(item.number(0, _ID_MAX) for item in items.get("additionalGIDs", ())),
        intel_rdt="intelRdt" in fields,
        interfaces=tuple(_interface(item) for item in items.get("netDevices", ())),
    )


def _variable(value: Value) -> str:
    """Return NAME=VALUE."""
    text = value.text()
    if text.find("=") < 1:
        raise value.error(f"must be NAME=VALUE, not {shown(text)}")
    return text


def _node(value: Value, version: str) -> DeviceNode:
    """Return one device file."""
    fields = value.fields(
        ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
    )
    _need(value, fields, "path")
    _check_since(fields, version, "deviceNodes.")
    for name, most in (("major", _NUMBER_MAX), ("minor", _NUMBER_MAX), ("fileMode", _ID_MAX)):
        _number(fields, name, most)
    _number(fields, "uid", _ID_MAX)
    _number(fields, "gid", _ID_MAX)
    if "permissions" in fields and not _PERMISSIONS.fullmatch(fields["permissions"].text()):
        raise fields["permissions"].error("must be of the letters r, w and m, or none")
    kind = fields["type"].text() if "type" in fields else ""
    if kind not in NODE_TYPES:
        raise fields["type"].error(f"must be b, c, u or p, not {shown(kind)}")
    path = _path(fields["path"])
    host = fields.get("hostPath")
    return DeviceNode(path, _path(host) if host and host.data != "" else path, kind)


def _mount(value: Value, version: str) -> Mount:
    """Return one mount."""
    fields = value.fields(("hostPath", "containerPath", "options", "type"))
    _need(value, fields, "hostPath", "containerPath")
    _check_since(fields, version, "mounts.")
    options = fields["options"].items() if "options" in fields else []
    kind = fields["type"].text() if "type" in fields else ""
    # Of a file system there is no path to mount from: "tmpfs" stands where OCI runtimes have the device.
    host = fields["hostPath"].text() if kind not in ("", "bind", "none") else _path(fields["hostPath"])
    return Mount(host, _path(fields["containerPath"]), tuple(item.text() for item in options), kind)


def _hook(value: Value) -> Hook:
    """Return one hook."""
    fields = value.fields(("hookName", "path", "args", "env", "timeout"))
    _need(value, fields, "hookName", "path")
    name = fields["hookName"].text()
    if name not in HOOK_NAMES:
        raise fields["hookName"].error(f"must be one of {', '.join(HOOK_NAMES)}, not {shown(name)}")
    for item in fields["env"].items() if "env" in fields else ():
        _variable(item)
    _number(fields, "timeout", _NUMBER_MAX)
    args = fields["args"].items() if "args" in fields else []
    return Hook(name, _path(fields["path"]), tuple(item.text() for item in args))


def _interface(value: Value) -> str:
    """Return the host's name of a network interface."""
    fields = value.fields(("hostInterfaceName", "name"))
    _need(value, fields, "hostInterfaceName", "name")
    fields["name"].text()
    return fields["hostInterfaceName"].text()


def _intel_rdt(value: Value, version: str) -> None:
    """Check the classes of cache and memory bandwidth, which no user may set."""
    texts = ("closID", "l3CacheSchema", "memBwSchema")
    switches = ("enableCMT", "enableMBM", "enableMonitoring")
    fields = value.fields((*texts, *switches, "schemata"))
    _check_since(fields, version, "intelRdt.")
    for name, field in fields.items():
        if name in texts:
            field.text()
        elif name in switches:
            field.is_true()
        else:
            for item in field.items():
                item.text()


def _annotations(fields: dict[str, Value], version: str) -> None:
    """Check remarks for people, which change no container."""
    if "annotations" not in fields:
        return
    _check_since(fields, version)
    value = fields["annotations"]
    known = value.data if isinstance(value.data, dict) else {}
    for item in value.fields(known).values():
        item.text()


def _path(value: Value) -> str:
    """Return an absolute path."""
    path = value.text()
    if not path.startswith("/"):
        raise value.error(f"must be an absolute path, not {shown(path)}")
    if len(path.encode()) > _PATH_MAX:
        raise value.error(f"is longer than a path can be: {shown(path)}")
    return path


def _number(fields: dict[str, Value], name: str, most: int) -> None:
    """Check the number under name, if there is one."""
    if name in fields:
        fields[name].number(0, most)


def _need(value: Value, fields: dict[str, Value], *names: str) -> None:
    """Raise CdiError if a field is missing."""
    for name in names:
        if name not in fields:
            raise value.error(f"needs {name}")


def _check_since(fields: dict[str, Value], version: str, place: str = "") -> None:
    """Raise CdiError for a field that came with a later version; an empty one says nothing."""
    for name, field in fields.items():
        since = SINCE.get(place + name)
        if since is not None and field.data not in ("", [], {}, False):
            _since(field, since, version, f"the field {place}{name}")


def _since(value: Value, since: str, version: str, what: str) -> None:
    """Raise CdiError if version is before since."""
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise value.error(f"needs cdiVersion {since} or later for {what}; the file says {version}")
