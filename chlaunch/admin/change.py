"""From what is wanted to changes: planned, shown, made, undone. A file not as we left it is the admin's."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from chlaunch.admin import places, record
from chlaunch.admin.places import Found, Root
from chlaunch.admin.record import Entry, Record, digest
from chlaunch.errors import RefusedError


@dataclass(frozen=True)
class Wanted:
    """A file that is to be there.

    mode: its permissions, where it is not there yet. added: content is to be added to what is there, and no
    other line is to have mark in it.
    """

    part: str
    path: str
    content: bytes
    mode: int = 0o644
    added: bool = False
    mark: bytes = b""


@dataclass(frozen=True)
class Change:
    """What becomes of a file. after: None to remove it. entry: how it is remembered, None if it is not.

    overwritten: it was not as we had left it. said: what there is to say of it, or empty.
    """

    path: str
    before: Found | None
    after: Found | None
    entry: Entry | None = None
    overwritten: bool = False
    said: str = ""

    @property
    def needed(self) -> bool:
        """Say whether the file changes."""
        return (self.before and self.before.content) != (self.after and self.after.content)


def plan(root: Root, known: Record, wanted: Iterable[Wanted], *, overwrite: bool) -> list[Change]:
    """Return what is to be done, of which some may already be as wanted; nothing is written.

    Raises:
        RefusedError: a file is the admin's, and overwrite is not set; or others can choose what is there.
        ChlaunchError: a file can't be read.

    """
    changes = [_change(places.read(root, one.path), known.entry(one.path), one) for one in wanted]
    foreign = [root.shown(change.path) for change in changes if change.overwritten]
    if foreign and not overwrite:
        raise RefusedError(
            f"not as ch-site left it: {', '.join(foreign)}; nothing was written",
            "see the difference with --dry-run --overwrite; --overwrite alone replaces it and keeps a copy",
        )
    return changes


def _change(found: Found | None, entry: Entry | None, wanted: Wanted) -> Change:
    """Return what is to be done about one file."""
    before = found.content if found else b""
    content, text = wanted.content, b""
    foreign = bool(found) and before != content and (entry is None or digest(before) not in entry.digests)
    if wanted.added:
        content, text, foreign = _addition(before, entry, wanted)
    mode, owner = (found.mode, found.owner) if found else (wanted.mode, places.ourselves())
    after = Found(content, mode, owner)
    if found and before == content and entry is None:
        return Change(wanted.path, found, after, said="it was so before")
    remembered = Entry(
        wanted.path,
        wanted.part,
        (digest(content),),
        (text.decode(),) if text else (),
        created=entry.created if entry else found is None,
        saved=entry.saved if entry else "",
    )
    return Change(wanted.path, found, after, remembered, overwritten=foreign)


def _addition(before: bytes, entry: Entry | None, wanted: Wanted) -> tuple[bytes, bytes, bool]:
    """Return a file with what is wanted in it, what that is, and whether the admin's lines are replaced."""
    ours = [text.encode() for text in entry.texts] if entry else []
    present = next((text for text in ours if text in before), None)
    if present is not None and wanted.mark not in _code(_without(before, present)):
        text = (b"\n" if present.startswith(b"\n") else b"") + wanted.content
        return before.replace(present, text, 1), text, False
    rest = _without(before, present) if present is not None else before
    lines = rest.splitlines(keepends=True)
    kept = b"".join(line for line in lines if wanted.mark not in _code(line))
    text = _gap(kept) + wanted.content
    return kept + text, text, kept != rest


def _without(content: bytes, text: bytes) -> bytes:
    """Return content without the text that was added; what is behind it stays on a line of its own."""
    before, _, behind = content.partition(text)
    return before + (b"\n" if behind and text.startswith(b"\n") else b"") + behind


def _gap(before: bytes) -> bytes:
    """Return what ends the last line of a file, where nothing does."""
    return b"" if not before or before.endswith(b"\n") else b"\n"


def _code(text: bytes) -> bytes:
    """Return the lines that are no comments."""
    return b"\n".join(line for line in text.splitlines() if not line.lstrip().startswith(b"#"))


def apply(root: Root, known: Record, changes: list[Change]) -> Record:
    """Make the changes; return what is known from now on. What is under way is on record before it is done.

    Raises:
        ChlaunchError: a file can't be written, or was changed meanwhile.
        OSError: no room, or no right.

    """
    pending = [change for change in changes if change.needed]
    entries = {entry.path: entry for entry in known.entries}
    ours = {change.path: change.entry for change in changes if change.entry}
    if not pending and all(entries.get(path) == entry for path, entry in ours.items()):
        return known
    copies = {_saved(change): change.before for change in pending if change.overwritten and change.before}
    for change in pending:
        if change.overwritten and change.entry:
            ours[change.path] = replace(change.entry, saved=_saved(change))
    paths = [record.PATH, *copies, *(change.path for change in pending)]
    missing = [top for path in paths for top in places.missing_directories(root, path)]
    directories = tuple(dict.fromkeys([*known.directories, *missing]))
    under_way = {path: _both(entries.get(path), entry) for path, entry in ours.items()}
    record.save(root, Record(tuple({**entries, **under_way}.values()), directories))
    for saved, copy in copies.items():
        if places.read(root, saved) is None:
            places.write(root, saved, copy, None)
    for change in pending:
        if change.after:
            places.write(root, change.path, change.after, change.before.content if change.before else None)
    done = Record(tuple({**entries, **ours}.values()), directories)
    record.save(root, done)
    return done


def _saved(change: Change) -> str:
    """Return where a copy of what is overwritten is kept."""
    name = f"{quote(change.path, safe='')}.{digest(change.before.content if change.before else b'')[:8]}"
    return f"{record.DIRECTORY}/saved/{name}"


def _both(before: Entry | None, after: Entry) -> Entry:
    """Return an entry for a file that may still be as it was."""
    if before is None:
        return after
    return replace(
        after,
        digests=tuple(dict.fromkeys([*before.digests, *after.digests])),
        texts=tuple(dict.fromkeys([*before.texts, *after.texts])),
    )


def plan_undo(root: Root, known: Record) -> list[Change]:
    """Return what undoes all that is on record; files that were changed since are left, and said so."""
    return [_undo(root, entry) for entry in reversed(known.entries)]


def _undo(root: Root, entry: Entry) -> Change:
    """Return what undoes one entry."""
    found = places.read(root, entry.path)
    if found is None:
        return Change(entry.path, None, None, entry, said="it has gone already")
    saved = places.read(root, entry.saved) if entry.saved else None
    if digest(found.content) in entry.digests:
        if saved is not None:
            return Change(entry.path, found, saved, entry)
        if not entry.texts:
            return Change(entry.path, found, None, entry)
    text = next((text for text in entry.texts if text.encode() in found.content), None)
    copy = f"what it was before is in {root.shown(entry.saved)}" if saved else ""
    if text is None:
        said = f"left as it is: it was changed after ch-site wrote it{'; ' if copy else ''}{copy}"
        return Change(entry.path, found, found, entry, overwritten=True, said=said)
    rest = _without(found.content, text.encode())
    if not rest and entry.created:
        return Change(entry.path, found, None, entry)
    after = replace(found, content=rest)
    return Change(entry.path, found, after, entry, overwritten=bool(copy), said=copy)


def undo(root: Root, known: Record, changes: list[Change]) -> None:
    """Make the changes of plan_undo, and forget what was installed.

    Raises:
        ChlaunchError: a file can't be written or removed, or was changed meanwhile.

    """
    for change in changes:
        if change.needed and change.before and change.after:
            places.write(root, change.path, change.after, change.before.content)
        elif change.needed and change.before:
            places.remove(root, change.path, change.before.content)
        kept = change.entry.saved if change.entry else ""
        saved = places.read(root, kept) if kept else None
        if saved and saved == change.after:  # it has been put back
            places.remove(root, kept, saved.content)
    record.forget(root, known)


def shown(root: Root, changes: Iterable[Change]) -> Iterator[str]:
    """Give the lines of a unified diff, and a line on each file that does not change."""
    for change in changes:
        path = root.shown(change.path)
        if change.said or not change.needed:
            yield f"# {path}: {change.said or 'as it should be'}"
        if change.needed:
            yield from _difference(path, change)


def _difference(path: str, change: Change) -> Iterator[str]:
    """Give the lines of the difference in one file."""
    sides = [found.content if found else b"" for found in (change.before, change.after)]
    old, new = (path if found else "/dev/null" for found in (change.before, change.after))
    if any(b"\0" in side for side in sides):
        yield f"Binary files {old} ({len(sides[0])} bytes) and {new} ({len(sides[1])} bytes) differ"
        return
    before, after = (side.decode(errors="replace").splitlines(keepends=True) for side in sides)
    for line in difflib.unified_diff(before, after, old, new):
        yield line.removesuffix("\n")
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"
