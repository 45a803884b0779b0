"""Patterns of ``${x#p}`` and its relatives: ``*`` is any text, ``?`` any character, all else itself.

A pattern is its blocks: the texts between its stars, with ANY for each question mark. Blocks are looked for
one after the other, each as early as can be, and the last one as late as can be where the longest match is
asked for. This finds what trying all ways would find, in time that grows with the text only, and not with
what a hostile pattern makes of it.
"""

# Stands for a question mark. No variable has such a character: neither a file nor execve(2) lets it through.
ANY = "\0"

Blocks = tuple[str, ...]


def blocks_of(pieces: list[tuple[str, bool]]) -> Blocks:
    """Return the blocks of a pattern.

    pieces: its texts, and whether each is quoted, so that stars are stars. In one that is not, which a
    variable gave, a backslash quotes.
    """
    blocks = [""]
    for text, quoted in pieces:
        at = 0
        while not quoted and (found := text.find("\\", at)) >= 0:
            _append(blocks, text[at:found], quoted=False)
            _append(blocks, text[found + 1 : found + 2] or "\\", quoted=True)
            at = found + 2
        _append(blocks, text[at:], quoted=quoted)
    # Several stars in a row are one.
    return (blocks[0], *(block for block in blocks[1:-1] if block), *blocks[1:][-1:])


def _append(blocks: list[str], text: str, *, quoted: bool) -> None:
    """Add text to blocks."""
    first, *others = [text] if quoted else text.replace("?", ANY).split("*")
    blocks[-1] += first
    blocks += others


def trimmed_start(blocks: Blocks, value: str, *, longest: bool) -> str:
    """Return value without what the pattern matches at its start."""
    span = _span(blocks, value, 0, anchored=True, longest=longest)
    return value if span is None else value[span[1] :]


def trimmed_end(blocks: Blocks, value: str, *, longest: bool) -> str:
    """Return value without what the pattern matches at its end."""
    return trimmed_start(tuple(block[::-1] for block in reversed(blocks)), value[::-1], longest=longest)[::-1]


def replaced(blocks: Blocks, value: str, replacement: str, *, everywhere: bool, most: int) -> str | None:
    """Return value with replacement for the first match, or for each; None if that is longer than most.

    The longest match counts, as in bash(1). An empty pattern matches nothing.
    """
    parts: list[str] = []
    at = length = 0
    while at < len(value) or not value:
        span = None if blocks == ("",) else _span(blocks, value, at, anchored=False, longest=True)
        if span is None:
            break
        parts += (value[at : span[0]], replacement)
        length += span[0] - at + len(replacement)
        at = span[1]
        if length > most:
            return None
        if not everywhere or at >= len(value):
            break
    return "".join((*parts, value[at:])) if length + len(value) - at <= most else None


def _span(blocks: Blocks, value: str, start: int, *, anchored: bool, longest: bool) -> tuple[int, int] | None:
    """Return where the leftmost match from start on begins and ends.

    anchored: only one that begins at start.
    """
    begin = start if anchored else _first(blocks[0], value, start)
    if begin < 0 or not _fits(blocks[0], value, begin):
        return None
    at = begin + len(blocks[0])
    for number, block in enumerate(blocks[1:], 2):
        last = longest and number == len(blocks)
        found = _last(block, value, at) if last else _first(block, value, at)
        if found < 0:
            return None
        at = found + len(block)
    return begin, at


def _fits(block: str, value: str, at: int) -> bool:
    """Say whether block is what value has there."""
    if ANY not in block:
        return value.startswith(block, at)
    if at + len(block) > len(value):
        return False
    return all(wanted in (ANY, value[at + number]) for number, wanted in enumerate(block))


def _first(block: str, value: str, start: int) -> int:
    """Return where value has block first, from start on; -1 if nowhere."""
    if ANY not in block:
        return value.find(block, start)
    places = range(start, len(value) - len(block) + 1)
    return next((at for at in places if _fits(block, value, at)), -1)


def _last(block: str, value: str, start: int) -> int:
    """Return where value has block last, but not before start; -1 if nowhere."""
    if ANY not in block:
        return value.rfind(block, start)
    places = range(len(value) - len(block), start - 1, -1)
    return next((at for at in places if _fits(block, value, at)), -1)
