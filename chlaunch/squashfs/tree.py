"""What is in a SquashFS: directories, links, files. Only inodes and names that lead to a path are read.

The format, and what is done about hostile files: see blocks.py.
"""

import errno
import io
import os
import stat
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from chlaunch.squashfs.blocks import METADATA, NO_FRAGMENT, UNCOMPRESSED_DATA, Blocks, Cursor

INODE = struct.Struct("<HHHHII")  # kind, permissions, user, group, time, number
DIRECTORY_HEADER = struct.Struct("<III")
ENTRY = struct.Struct("<HhHH")
INDEX = struct.Struct("<III")

NAME_MOST = 256
ENTRIES_MOST = 256  # below one header
LINK_MOST = 4095  # PATH_MAX without its NUL; the kernel reads no more

# Limits of ours, for memory and time: of a directory's listing, in bytes; of the names that are read in an
# image before it is called hostile (half a minute), where a look for a name is free if it reads no more of a
# listing than one with an index makes necessary; of a file's blocks (at 128 KiB, 128 GiB); of blocks of
# a file and of inodes that are remembered.
LISTING_MOST = 8 << 20
NAMES_MOST = 1 << 24
LISTING_FREE = METADATA + ENTRIES_MOST * (8 + NAME_MOST)
BLOCKS_MOST = 1 << 20
BLOCKS_REMEMBERED = 4
INODES_REMEMBERED = 4096

# What follows an inode's header: the type, the layout, and its fields' names. "after" it come a file's block
# sizes, a link's target, or a directory's index.
KINDS = {
    1: (stat.S_IFDIR, struct.Struct("<IIHHI"), ("block", "links", "size", "offset", "parent")),
    2: (stat.S_IFREG, struct.Struct("<IIII"), ("start", "fragment", "offset", "size")),
    3: (stat.S_IFLNK, struct.Struct("<II"), ("links", "size")),
    4: (stat.S_IFBLK, struct.Struct("<"), ()),
    5: (stat.S_IFCHR, struct.Struct("<"), ()),
    6: (stat.S_IFIFO, struct.Struct("<"), ()),
    7: (stat.S_IFSOCK, struct.Struct("<"), ()),
    8: (
        stat.S_IFDIR,
        struct.Struct("<IIIIHHI"),
        ("links", "size", "block", "parent", "indexed", "offset", "xattr"),
    ),
    9: (
        stat.S_IFREG,
        struct.Struct("<QQQIIII"),
        ("start", "size", "sparse", "links", "fragment", "offset", "xattr"),
    ),
    10: (stat.S_IFLNK, struct.Struct("<II"), ("links", "size")),
    11: (stat.S_IFBLK, struct.Struct("<"), ()),
    12: (stat.S_IFCHR, struct.Struct("<"), ()),
    13: (stat.S_IFIFO, struct.Struct("<"), ()),
    14: (stat.S_IFSOCK, struct.Struct("<"), ()),
}

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Inode:
    """What is known of a file. fields: by the names in KINDS; block, after: the place of what follows it."""

    mode: int
    fields: dict[str, int]
    block: int
    after: int


class Squashfs:
    """The files of a SquashFS, as a Tree (trees.py)."""

    def __init__(self, blocks: Blocks) -> None:
        """Start with the root; nothing is read yet."""
        self._blocks = blocks
        self._found: dict[Parts, Inode | None] = {}
        self._names_read = 0

    def mode(self, parts: Parts) -> int | None:
        """Return the st_mode of what is there; None if nothing is."""
        inode = self._find(parts)
        return None if inode is None else inode.mode

    def target(self, parts: Parts) -> str:
        """Return what the link there says."""
        inode = self._must_find(parts)
        if not stat.S_ISLNK(inode.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        size = inode.fields["size"]
        if not 0 < size <= LINK_MOST:
            raise self._blocks.damaged("a link in it is too long, or empty")
        return os.fsdecode(Cursor(self._blocks, inode.block, inode.after).read(size).partition(b"\0")[0])

    def names(self, parts: Parts) -> list[str]:
        """Return the names in the directory there."""
        inode = self._must_find(parts)
        if not stat.S_ISDIR(inode.mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return [os.fsdecode(name) for name, _, _ in self._entries(inode, None)]

    def open(self, parts: Parts) -> io.BufferedReader:
        """Open the regular file there for reading and seeking."""
        inode = self._must_find(parts)
        if not stat.S_ISREG(inode.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if inode.fields["start"] > self._blocks.superblock.used:
            raise self._blocks.damaged("it refers to what is outside of it")
        if inode.fields["size"] > BLOCKS_MOST * self._blocks.superblock.block_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return io.BufferedReader(Content(self._blocks, inode), 32768)

    def identity(self, _find: Callable[[str], Parts | None]) -> str:
        """Return a text that changes when the file does."""
        status = os.fstat(self._blocks.descriptor)
        whole = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return " ".join(map(str, (*whole, self._blocks.superblock.made, self._blocks.superblock.used)))

    def _inode(self, reference: int) -> Inode:
        """Return the inode at reference, a block's address in the table and the offset in it."""
        cursor = Cursor(
            self._blocks, self._blocks.superblock.inode_table + (reference >> 16), reference & 0xFFFF
        )
        kind, permissions, *_ = INODE.unpack(cursor.read(INODE.size))
        if kind not in KINDS:
            raise self._blocks.damaged("an inode in it is of no known kind")
        type_, layout, names = KINDS[kind]
        fields = dict(zip(names, layout.unpack(cursor.read(layout.size)), strict=True))
        return Inode(type_ | permissions & 0o7777, fields, cursor.block, cursor.offset)

    def _must_find(self, parts: Parts) -> Inode:
        inode = self._find(parts)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return inode

    def _find(self, parts: Parts) -> Inode | None:
        """Return the inode there; what was found on the way is remembered."""
        depth = len(parts)
        while depth and parts[:depth] not in self._found:
            depth -= 1
        inode = self._found[parts[:depth]] if depth else self._inode(self._blocks.superblock.root)
        for known in range(depth, len(parts)):
            if inode is None or not stat.S_ISDIR(inode.mode):
                return None
            inode = self._child(inode, parts[known])
            if len(self._found) >= INODES_REMEMBERED:
                self._found.clear()
            self._found[parts[: known + 1]] = inode
        return inode

    def _child(self, directory: Inode, name: str) -> Inode | None:
        """Return the inode that has name in the directory."""
        try:
            wanted = os.fsencode(name)
        except UnicodeEncodeError:
            return None
        for found, block, offset in self._entries(directory, wanted):
            if found == wanted:
                return self._inode(block << 16 | offset)
            if found > wanted:  # they are sorted by their bytes
                break
        return None

    def _entries(self, directory: Inode, wanted: bytes | None) -> Iterator[tuple[bytes, int, int]]:
        """Give a directory's names with the places of their inodes: all, or from near the wanted one on."""
        fields = directory.fields
        # An empty directory has 3: the kernel counts "." and "..", which are not there.
        left = fields["size"] - 3
        skipped, block = self._indexed(directory, wanted) if wanted else (0, fields["block"])
        left -= skipped
        first = left
        place = (fields["offset"] + skipped) % METADATA
        cursor = Cursor(self._blocks, self._blocks.superblock.directory_table + block, place)
        while left > 0:
            count, inodes, _ = DIRECTORY_HEADER.unpack(cursor.read(DIRECTORY_HEADER.size))
            left -= DIRECTORY_HEADER.size
            if wanted is None or first - left > LISTING_FREE:
                self._names_read += count + 1
            if count >= ENTRIES_MOST or first - left > LISTING_MOST or self._names_read > NAMES_MOST:
                raise self._blocks.damaged("a directory in it makes no sense, or is too large")
            for _ in range(count + 1):
                offset, _, _, length = ENTRY.unpack(cursor.read(ENTRY.size))
                left -= ENTRY.size + length + 1
                if length >= NAME_MOST or left < 0:
                    raise self._blocks.damaged("a directory in it makes no sense")
                name = cursor.read(length + 1)
                if b"/" in name or b"\0" in name or name in (b".", b".."):
                    raise self._blocks.damaged("a name in it makes no sense")
                yield name, inodes, offset

    def _indexed(self, directory: Inode, wanted: bytes) -> tuple[int, int]:
        """Return how many bytes of the listing come before the header below which wanted is, and its block.

        The index has the first name behind some headers, a few for each 8 KiB of a large directory.
        """
        skipped, block = 0, directory.fields["block"]
        cursor = Cursor(self._blocks, directory.block, directory.after)
        for _ in range(directory.fields.get("indexed", 0)):
            position, start, length = INDEX.unpack(cursor.read(INDEX.size))
            if length >= NAME_MOST:
                raise self._blocks.damaged("a directory's index makes no sense")
            if cursor.read(length + 1) > wanted:
                break
            skipped, block = position, start
        return skipped, block


class Content(io.RawIOBase):
    """A file's bytes. Blocks are decompressed when they are read, and the last few are remembered.

    Who reads an ELF file goes to and fro between its beginning, its end, and a place or two between.
    """

    def __init__(self, blocks: Blocks, inode: Inode) -> None:
        """Start at the beginning; nothing is read yet."""
        super().__init__()
        self._blocks = blocks
        self._size = inode.fields["size"]
        self._fields = inode.fields
        self._sizes = Cursor(blocks, inode.block, inode.after)
        self._ends = array(
            "Q", [inode.fields["start"]]
        )  # where blocks end, as far as is known; and their sizes
        self._stored = array("I")
        self._position = 0
        self._last: dict[int, bytes] = {}

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can seek."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, in bytes, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        """Fill buffer with what follows, up to the end of a block; return how many bytes that was."""
        if self._position >= self._size:
            return 0
        number, offset = divmod(self._position, self._blocks.superblock.block_size)
        if number not in self._last:
            if len(self._last) >= BLOCKS_REMEMBERED:
                del self._last[next(iter(self._last))]
            self._last[number] = self._block(number)
        piece = self._last[number][offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        """Return the file's block with that number, decompressed."""
        block_size = self._blocks.superblock.block_size
        expected = min(block_size, self._size - number * block_size)
        fragment = self._fields["fragment"]
        if fragment != NO_FRAGMENT and number == self._size // block_size:
            start = self._fields["offset"]
            content = self._blocks.fragment(fragment)[start : start + expected]
        else:
            self._read_sizes(number)
            size = self._stored[number]
            content = self._blocks.block(self._ends[number], size, block_size) if size else bytes(expected)
        if len(content) != expected:
            raise self._blocks.damaged("a block in it is too short or too long")
        return content

    def _read_sizes(self, number: int) -> None:
        """Have the sizes of blocks up to that number, and where they end."""
        missing = number + 1 - len(self._stored)
        if missing > 0:
            more = array("I", struct.unpack(f"<{missing}I", self._sizes.read(missing * 4)))
            lengths = (size & (UNCOMPRESSED_DATA - 1) for size in more)
            self._ends.extend(list(accumulate(lengths, initial=self._ends[-1]))[1:])
            self._stored.extend(more)
