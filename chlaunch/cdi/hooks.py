"""What the hooks of a CDI file would do, as data.

Hooks are programs that an OCI runtime runs, often as root, on a container it can write to. Here none is run:
what the known ones do is done by plain options, and one that is not known is refused by name. The known ones
are those that nvidia-ctk writes (internal/discover/hooks.go and cmd/nvidia-cdi-hook of
https://github.com/NVIDIA/nvidia-container-toolkit), and a bare ldconfig.
"""

import os.path
from dataclasses import dataclass

from chlaunch.cdi.resolve import Part
from chlaunch.cdi.spec import Hook
from chlaunch.errors import CdiError

NVIDIA = ("nvidia-cdi-hook", "nvidia-ctk", "nvidia-ctk-hook")
LDCONFIG = ("ldconfig", "ldconfig.real")

CUDA_COMPAT = "enable-cuda-compat"

# Hooks without which a device works for a user, and why.
LEFT_OUT = {
    "chmod": "it opens directories of a /dev made for the container; here it is the host's own",
    "disable-device-node-modification": "it keeps root from making device files, which no user can",
    "update-nvidia-params": "it keeps root from making device files, which no user can",
    "update-application-profile": "it hides GPUs from EGL and Vulkan; here all of the host's /dev is seen",
    CUDA_COMPAT: "it is for images with a newer CUDA than the host's driver; such an image's programs need"
    " LD_LIBRARY_PATH=/usr/local/cuda/compat",
}

# What ldconfig(8) may be told without doing anything else than writing the cache.
LDCONFIG_FLAGS = ("-v", "--verbose", "-X", "-i", "--ignore-aux-cache")

WORDS_MAX = 200


@dataclass(frozen=True)
class Work:
    """What a hook does.

    folders: directories whose libraries get the names that programs ask for; cache: and are in the loader's
    cache, which is written anew; links: (target, link) of symbolic links; left_out: why nothing need be done.
    """

    name: str
    cache: bool = False
    folders: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    left_out: str = ""


def understand(hook: Hook, part: Part) -> Work:
    """Return what a hook of part does.

    Raises:
        CdiError: nobody here knows.

    """
    program = os.path.basename(hook.path)  # noqa: PTH119  pure
    if program in LDCONFIG:
        return _ldconfig(hook, part)
    if program not in NVIDIA:
        raise refusal(hook, part)
    words = [word for word in hook.args[1:2] if word != "hook"] + list(hook.args[2:])
    name, options = (words[0], words[1:]) if words else ("", [])
    if name in LEFT_OUT:
        return Work(name, options=tuple(options), left_out=LEFT_OUT[name])
    if name == "create-symlinks":
        links = _values(options, ("--link",), hook, part)["--link"]
        return Work(name, links=tuple(_link(link, hook, part) for link in links))
    if name not in ("update-ldcache", "create-soname-symlinks"):
        raise refusal(hook, part)
    values = _values(options, ("--folder", "--ldconfig-path"), hook, part)
    return Work(name, cache=name == "update-ldcache", folders=tuple(values["--folder"]))


def refusal(hook: Hook, part: Part, why: str = "") -> CdiError:
    """Return the error for a hook that can't be done without."""
    words = " ".join(hook.args or (hook.path,))
    short = words if len(words) <= WORDS_MAX else f"{words[:WORDS_MAX]}…"
    return CdiError(
        f"{part.file}: {part.what} has a {hook.name} hook that ch-run can't stand in for:"
        f" {hook.path} ({short}){f': {why}' if why else ''}",
        "if the device does without it, copy the file, take the hook out, and ask for the copy by its path"
        " instead of the device",
    )


def _ldconfig(hook: Hook, part: Part) -> Work:
    """Return the work of ldconfig itself."""
    for word in hook.args[1:]:
        if not word.startswith("/") and word not in LDCONFIG_FLAGS:
            raise refusal(hook, part, f"ldconfig {word} does more than to write the cache")
    return Work("ldconfig", cache=True, folders=tuple(word for word in hook.args[1:] if word.startswith("/")))


def _values(options: list[str], known: tuple[str, ...], hook: Hook, part: Part) -> dict[str, list[str]]:
    """Return the values of each of the known options, written --NAME VALUE or --NAME=VALUE."""
    found: dict[str, list[str]] = {name: [] for name in known}
    rest = iter(options)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in known:
            raise refusal(hook, part, f"{name} is not known")
        found[name].append(value if equals else next(rest, ""))
    return found


def _link(text: str, hook: Hook, part: Part) -> tuple[str, str]:
    """Return target and link of TARGET::LINK."""
    target, colons, link = text.partition("::")
    if not colons or not target or not link:
        raise refusal(hook, part, f"a link is TARGET::LINK, not {text}")
    return target, f"/{link.lstrip('/')}"
