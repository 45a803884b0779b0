"""What a member of a tar says of itself, checked: name, time, attributes, holes. Pure."""

import base64
import binascii
import re
import urllib.parse
from typing import TYPE_CHECKING, cast

from chlaunch.image.inside import Names

if TYPE_CHECKING:
    from tarfile import TarInfo

# NAME_MAX, limits.h(0p); PATH_MAX less its NUL.
NAME_MOST = 255
PATH_MOST = 4095

# OCI Image Layer Filesystem Changeset, "Whiteouts". What else begins with the second is aufs's own.
WHITEOUT = b".wh."
RESERVED = b".wh..wh."
OPAQUE = b".wh..wh..opq"

# Extended attributes, in headers of GNU tar and star, and of bsdtar; and what else tars have of the kind.
XATTR, XATTR_BASE64 = "SCHILY.xattr.", "LIBARCHIVE.xattr."
XATTR_OTHERS = ("SCHILY.acl.", "RHT.security.")

# What a mere user may set and the kernel takes for no instruction (Documentation/filesystems/overlayfs.rst).
XATTR_KEPT, XATTR_OVERLAY = b"user.", b"user.overlay."
OPAQUE_ATTRIBUTE = "user.overlay.opaque"

TIME = re.compile(r"(-?)(\d{1,12})(?:\.(\d*))?")
SECOND = 1_000_000_000


def encoded(text: str) -> bytes:
    """Return a name as it is in the archive, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


def decoded(names: Names) -> str:
    """Return a path as text; what is not UTF-8 as surrogates."""
    return b"/".join(names).decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return a name from an archive such that it can be shown."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= 200 else f"{plain[:200]}…"  # noqa: PLR2004  enough to find it by


def names_of(path: str) -> Names:
    """Return a path's names from the top of the tree down, where absolute paths begin too.

    Raises:
        ValueError: it can't be the name of a file, or it has "..".

    """
    raw = encoded(path)
    names = tuple(name for name in raw.split(b"/") if name not in (b"", b"."))
    if b".." in names:
        raise ValueError('".." in its name')
    if b"\0" in raw:
        raise ValueError("a NUL in its name")
    if len(raw) > PATH_MOST or any(len(name) > NAME_MOST for name in names):
        raise ValueError(
            f"its name is too long (more than {NAME_MOST} bytes, or {PATH_MOST} with directories)"
        )
    return names


def time_of(member: "TarInfo") -> int:
    """Return the time of last change, in ns since 1970."""
    text = member.pax_headers.get("mtime") if member.pax_headers else None
    exact = TIME.fullmatch(text) if text else None
    if exact is None:
        return min(max(int(member.mtime), -(10**9)), 10**9 * 9) * SECOND
    sign, seconds, fraction = exact.groups()
    time = min(int(seconds), 10**9 * 9) * SECOND + int(f"{fraction or ''}000000000"[:9])
    return -time if sign else time


def attributes_of(member: "TarInfo") -> tuple[dict[bytes, bytes], int]:
    """Return the extended attributes that are kept, and how many are not."""
    found: dict[bytes, bytes] = {}
    others = 0
    for key, value in member.pax_headers.items():
        if key.startswith(XATTR):
            found[encoded(key.removeprefix(XATTR))] = encoded(value)
        elif key.startswith(XATTR_BASE64):
            name = urllib.parse.unquote_to_bytes(encoded(key.removeprefix(XATTR_BASE64)))
            try:
                found.setdefault(name, base64.b64decode(f"{value}==", validate=False))
            except binascii.Error:
                others += 1
        elif key.startswith(XATTR_OTHERS):
            others += 1
    kept = {
        name: value
        for name, value in found.items()
        if name.startswith(XATTR_KEPT) and not name.startswith(XATTR_OVERLAY) and b"\0" not in name
    }
    return kept, others + len(found) - len(kept)


def parts_of(member: "TarInfo") -> list[tuple[int, int]]:
    """Return where in the file what the archive has of it goes: offsets and sizes, in order, in bytes.

    Raises:
        ValueError: they overlap, or are not within the file.

    """
    # Pairs, whatever typeshed says.
    holes = cast("list[tuple[int, int]] | None", member.sparse)
    parts = [(0, member.size)] if holes is None else holes
    end = 0
    for offset, size in parts:
        if size < 0 or (offset < end and size):
            raise ValueError("its list of holes makes no sense")
        end = max(end, offset + size)
    if member.size < end:
        raise ValueError("it has more parts than bytes")
    return parts
