"""A SquashFS file's superblock, and its blocks, decompressed.

Only blocks that are asked for are read. Images come from anywhere: every number is checked before it is used,
what is decompressed has a limit, and whatever is wrong is an ImageError.

The format: Documentation/filesystems/squashfs.rst of the kernel, its fs/squashfs/squashfs_fs.h, and the
"Squashfs Binary Format" of squashfs-tools-ng. All numbers are little-endian. Metadata (inodes, directories)
is a row of blocks with 8 KiB each before compression; a place in it is a block's address and an offset in it.
"""

import os
import struct
import weakref
from dataclasses import dataclass

from chlaunch.errors import ImageError
from chlaunch.squashfs import decompress

MAGIC = b"hsqs"

# magic, inodes, time, block size, fragments, compression, log2 of the block size, flags, ids, version; then
# the root's inode, bytes used, and where the tables are: ids, xattrs, inodes, directories, fragments, exports
SUPERBLOCK = struct.Struct("<4sIIIIHHHHHH8Q")

METADATA = 8192
UNCOMPRESSED = 0x8000  # in the size of a block of metadata
UNCOMPRESSED_DATA = 1 << 24
NO_FRAGMENT = 0xFFFFFFFF
FRAGMENT = struct.Struct("<QII")
FRAGMENTS_A_BLOCK = METADATA // FRAGMENT.size

# How many blocks of metadata are remembered.
METADATA_REMEMBERED = 512

HINT = "copy or build it again; unsquashfs -s FILE tells what is in a SquashFS header"


@dataclass(frozen=True)
class Superblock:
    """What the reader needs of it. Addresses are from the file system's first byte, which is at start."""

    start: int
    compression: int
    made: int
    block_size: int
    fragments: int
    root: int
    used: int
    inode_table: int
    directory_table: int
    fragment_table: int


def read_superblock(descriptor: int, start: int, shown: str) -> Superblock:
    """Return the superblock of the SquashFS at start, in bytes, of an open file. shown: the image's name.

    Raises:
        ImageError: there is none, or it makes no sense, in the words of ch-run (runtime/image_file.c).

    """
    size = os.fstat(descriptor).st_size
    if size - start < SUPERBLOCK.size:
        raise damaged(shown, f"it ends after {size} of {start + SUPERBLOCK.size} bytes")
    head = SUPERBLOCK.unpack(os.pread(descriptor, SUPERBLOCK.size, start))
    magic, _, made, block_size, fragments, compression, log, _, _, major, minor = head[:11]
    root, used, _, _, inodes, directories, fragment_table, _ = head[11:]
    if magic != MAGIC:
        where = "where its SIF header says" if start else "in it"
        raise damaged(shown, f"there is no SquashFS {where}")
    if (major, minor) != (4, 0):
        raise damaged(shown, "not of SquashFS version 4.0")
    if not 12 <= log <= 20 or block_size != 1 << log:  # noqa: PLR2004  4 KiB to 1 MiB
        raise damaged(shown, "its SquashFS block size is impossible")
    if compression not in decompress.NAMES:
        raise damaged(shown, "its SquashFS compression is unknown")
    if used > size - start:
        raise damaged(shown, f"it ends after {size - start} of {used} bytes")
    return Superblock(
        start, compression, made, block_size, fragments, root, used, inodes, directories, fragment_table
    )


def damaged(shown: str, why: str) -> ImageError:
    """Return the failure of an image file that makes no sense."""
    return ImageError(f"can't use image: {shown}: {why}", HINT)


class Blocks:
    """The blocks of a SquashFS in an open file."""

    def __init__(self, descriptor: int, start: int, shown: str) -> None:
        """Read the superblock at start. descriptor: kept, and closed when nothing refers to this any more.

        Raises:
            ImageError: the superblock makes no sense, or its compression can't be read here.

        """
        weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        self.shown = shown
        self.superblock = read_superblock(descriptor, start, shown)
        self._decompress = decompress.by_number(self.superblock.compression, shown)
        self._metadata: dict[int, tuple[bytes, int]] = {}
        self._fragment: tuple[int, bytes] = (NO_FRAGMENT, b"")

    def damaged(self, why: str) -> ImageError:
        """Return the failure of an image file that makes no sense."""
        return damaged(self.shown, why)

    def read(self, address: int, length: int) -> bytes:
        """Return length bytes of the file system at address.

        Raises:
            ImageError: they are not all within it, or can't be read.

        """
        if address < SUPERBLOCK.size or address + length > self.superblock.used:
            raise self.damaged("it refers to what is outside of it")
        try:
            content = os.pread(self.descriptor, length, self.superblock.start + address)
        except OSError as error:
            raise ImageError(f"can't read image: {self.shown}: {os.strerror(error.errno or 0)}") from error
        if len(content) != length:  # of a file, only at its end
            raise self.damaged("it has become shorter")
        return content

    def block(self, address: int, size: int, most: int) -> bytes:
        """Return what is in a block of data, at most most bytes. size: may say that it is not compressed."""
        length = size & (UNCOMPRESSED_DATA - 1)
        if length > most:
            raise self.damaged("a block in it is too long")
        content = self.read(address, length)
        if not size & UNCOMPRESSED_DATA:
            content = self._decompress(content, most)
        return content

    def metadata(self, address: int) -> tuple[bytes, int]:
        """Return what is in the block of metadata at address, and the address of the next."""
        known = self._metadata.get(address)
        if known is None:
            size = int.from_bytes(self.read(address, 2), "little")
            length = size & (UNCOMPRESSED - 1)
            flag = UNCOMPRESSED_DATA if size & UNCOMPRESSED else 0
            known = self.block(address + 2, length | flag, METADATA), address + 2 + length
            if len(self._metadata) >= METADATA_REMEMBERED:
                self._metadata.clear()
            self._metadata[address] = known
        return known

    def fragment(self, number: int) -> bytes:
        """Return the block with tails of files that has this number; the last one asked for is remembered."""
        if number != self._fragment[0]:
            if number >= self.superblock.fragments:
                raise self.damaged("it refers to what is outside of it")
            row, column = divmod(number, FRAGMENTS_A_BLOCK)
            block = int.from_bytes(self.read(self.superblock.fragment_table + row * 8, 8), "little")
            entry = Cursor(self, block, column * FRAGMENT.size).read(FRAGMENT.size)
            start, size, _ = FRAGMENT.unpack(entry)
            self._fragment = number, self.block(start, size, self.superblock.block_size)
        return self._fragment[1]


class Cursor:
    """A place in the metadata that moves as it is read. block: an address; offset: in bytes, within it."""

    def __init__(self, blocks: Blocks, block: int, offset: int) -> None:
        """Start at a place; nothing is read yet."""
        self._blocks = blocks
        self.block = block
        self.offset = offset

    def read(self, length: int) -> bytes:
        """Return the next length bytes.

        Raises:
            ImageError: there are not so many.

        """
        pieces = []
        while True:
            content, following = self._blocks.metadata(self.block)
            piece = content[self.offset : self.offset + length]
            pieces.append(piece)
            length -= len(piece)
            self.offset += len(piece)
            if length == 0:
                return b"".join(pieces)
            # All blocks but the last of a table are full, so hostile ones can't make this go on and on.
            if self.offset != METADATA:
                raise self._blocks.damaged("its metadata ends too early")
            self.block, self.offset = following, 0
