"""The compressions of SquashFS: one block, with a limit to what comes out and to the memory it takes."""

import importlib.util
import lzma
import sys
import zlib
from collections.abc import Callable

from chlaunch.errors import ImageError

# By their numbers in the superblock.
NAMES = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

# Packages that aren't in Python's library: of lz4, which is seldom used, and of zstd before Python 3.14.
PACKAGES = {"lz4": "lz4"} if sys.version_info >= (3, 14) else {"lz4": "lz4", "zstd": "zstandard"}

# Blocks have 1 MiB at most, and dictionaries and windows are no larger; a hostile header could ask for GiB.
MEMORY_MOST = 64 << 20
WINDOW_LOG_MOST = 23

# What is in a block, and the most bytes that may come out of it.
Decompress = Callable[[bytes, int], bytes]


def lacking(number: int) -> str:
    """Return why a compression of NAMES can't be read here; empty if it can."""
    name = NAMES[number]
    if name == "lzo":
        return "compressed with lzo, which can't be read here"
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        return f"compressed with {name}, for which Python's package {package} is not installed"
    return ""


def by_number(number: int, shown: str) -> Decompress:
    """Return what decompresses a block. number: of NAMES; shown: the image's name, for messages.

    What is returned raises ImageError, for whatever is not right, too much coming out of it included.

    Raises:
        ImageError: there is nothing for this compression; says what to install.

    """
    why = lacking(number)
    if why:
        package = PACKAGES.get(NAMES[number])
        hint = f"pip install {package}" if package else "make it again with mksquashfs -comp zstd"
        raise ImageError(f"can't look into image: {shown}: it is {why}", hint)
    read = _READERS[NAMES[number]]

    def decompress(content: bytes, most: int) -> bytes:
        try:
            found = read(content, most)
        except Exception as error:  # each library has its own, and one bug of them is no bug of ours
            raise ImageError(f"can't use image: {shown}: a block in it is damaged: {error}") from error
        if not 0 < len(found) <= most:
            raise ImageError(f"can't use image: {shown}: a block in it is damaged: wrong length")
        return found

    return decompress


def _gzip(content: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    found = stream.decompress(content, most + 1)
    if not stream.eof:  # its checksum, which comes last, was not looked at
        raise ValueError("it ends too early")
    return found


def _lzma(content: bytes, most: int) -> bytes:
    # FORMAT_AUTO: lzma's own old header, or xz's.
    stream = lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=MEMORY_MOST)
    found = stream.decompress(content, most + 1)
    if not stream.eof:
        raise ValueError("it ends too early")
    return found


def _lz4(content: bytes, most: int) -> bytes:
    import lz4.block  # noqa: PLC0415  it may be missing

    found: bytes = lz4.block.decompress(content, uncompressed_size=most)
    return found


def _zstd(content: bytes, most: int) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  of this Python only

        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MOST}
        stream = zstd.ZstdDecompressor(options=options)
        found = stream.decompress(content, most + 1)
        if not stream.eof:
            raise ValueError("it ends too early")
        return found
    import zstandard  # noqa: PLC0415  not of a newer Python; and it takes its time

    # It takes a frame's word for how much comes out of it, and makes room for that.
    if zstandard.frame_content_size(content) > most:
        raise ValueError("wrong length")
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MOST)
    return decompressor.decompress(content, max_output_size=most)


_READERS: dict[str, Decompress] = {"gzip": _gzip, "lzma": _lzma, "xz": _lzma, "lz4": _lz4, "zstd": _zstd}
