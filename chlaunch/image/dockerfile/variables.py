"""Words with variables in them: ``$x``, ``${x}``, and the forms of ``${x:-y}`` that BuildKit has.

A word is read into a template once; its value follows from the template and the variables. Quotes are as in
sh(1): nothing is special between single quotes, the dollar sign and the escape character between double ones.
As in sh, what is quoted in the pattern of ``${x#p}`` has no stars; unlike there, a pattern has no brackets.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chlaunch.image.dockerfile import globs, grammar

# What is longer is refused: ENV X=$X$X, thirty times, is a gigabyte. Bodies of here-documents fit in.
VALUE_MOST = 1 << 20
# Variables within variables within variables; people write two.
NESTING_MOST = 32
# Of words whose templates are kept.
KEPT_MOST = 1 << 10

# The value of a variable, None if it is not set.
Lookup = Callable[[str], str | None]


@dataclass(frozen=True)
class Literal:
    """Text as it is. quoted: it is not split into words, and has no stars as a pattern."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Reference:
    """A variable.

    operator: what follows its name, such as ``:-``, with its argument. depth: of nesting, from 1.
    """

    name: str
    operator: str = ""
    argument: "Template" = ()
    replacement: "Template" = ()
    quoted: bool = False
    depth: int = 1


Template = tuple[Literal | Reference, ...]


class ValueRefusedError(Exception):
    """A word has no value: nested too deep, too long, or ``${x:?why}`` says so. The argument says why."""


def needs_expansion(word: str, escape: str) -> bool:
    """Say whether the value of word is anything but word."""
    return any(character in word for character in ("$", "'", '"', escape))


def template(word: str, escape: str, *, body: bool = False) -> Template:
    """Return the template of a word. body: it is of a here-document, where quotes are like any character.

    Raises:
        UnreadableError: a quote or brace is open at the end, or what follows a name in braces means nothing.
        ValueRefusedError: it is nested too deep.

    """
    if not needs_expansion(word, "\\" if body else escape):
        return (Literal(word),)
    return _kept(word, escape, body) if len(word) <= KEPT_MOST else _made(word, escape, body)


def _made(word: str, escape: str, body: bool) -> Template:  # noqa: FBT001  as the cache wants its arguments
    """Return the template of a word."""
    made: Template = grammar.template(word, escape, Maker, body=body)
    return made


# Each word is read twice: when the file is, and when it gets its value.
_kept = functools.lru_cache(maxsize=1024)(_made)


def value(made: Template, lookup: Lookup) -> str:
    """Return the value of a template as one word.

    Raises:
        ValueRefusedError: it is too long, or ``${x:?why}`` refuses.

    """
    return "".join(text for text, _ in _pieces(made, lookup))


def words(made: Template, lookup: Lookup) -> list[str]:
    """Return the value of a template, split at the blanks that are not quoted. Raises what value() raises."""
    found: list[str] = []
    open_word = False
    for text, quoted in _pieces(made, lookup):
        parts = [text] if quoted else text.split()
        if not quoted and text[:1].isspace():
            open_word = False
        for number, part in enumerate(parts):
            if open_word and number == 0:
                found[-1] += part
            else:
                found.append(part)
        open_word = (quoted or bool(parts) or open_word) and (quoted or not text[-1:].isspace())
    return found


def _pieces(made: Template, lookup: Lookup) -> list[tuple[str, bool]]:
    """Return the texts of a template's parts, and whether each is quoted."""
    pieces = []
    length = 0
    for part in made:
        text = part.text if isinstance(part, Literal) else _referred(part, lookup)
        length += len(text)
        if length > VALUE_MOST:
            raise ValueRefusedError(f"the value is longer than {VALUE_MOST} characters")
        pieces.append((text, part.quoted))
    return pieces


def _referred(part: Reference, lookup: Lookup) -> str:
    """Return what a variable and its operator give."""
    found = lookup(part.name)
    operator, kind = part.operator, part.operator[-1:]
    if kind == "" or operator[0] in "#%/":
        return _edited(part, found or "", lookup)
    absent = found is None or (operator[0] == ":" and not found)
    if kind == "+":
        return "" if absent else value(part.argument, lookup)
    if not absent:
        return found or ""
    if kind == "-":
        return value(part.argument, lookup)
    why = value(part.argument, lookup) or ("must not be unset" if found is None else "must not be empty")
    raise ValueRefusedError(f"{part.name}: {why}")


def _edited(part: Reference, found: str, lookup: Lookup) -> str:
    """Return a variable's value with what its pattern matches taken out or replaced."""
    operator = part.operator
    if not operator:
        return found
    blocks = globs.blocks_of(_pieces(part.argument, lookup))
    twice = len(operator) > 1
    if operator[0] == "#":
        return globs.trimmed_start(blocks, found, longest=twice)
    if operator[0] == "%":
        return globs.trimmed_end(blocks, found, longest=twice)
    new = value(part.replacement, lookup)
    text = globs.replaced(blocks, found, new, everywhere=twice, most=VALUE_MOST)
    if text is None:
        raise ValueRefusedError(f"the value is longer than {VALUE_MOST} characters")
    return text


class Maker:
    """What the grammar's rules of templates make: each method has the name of a rule."""

    def text(self, children: Sequence[Literal | Reference | Template]) -> Template:
        """Return a template."""
        made: list[Literal | Reference] = []
        for child in children:
            made += child if isinstance(child, tuple) else (child,)
        return tuple(made)

    def plain(self, children: Sequence[str]) -> Literal:
        """Return text as it is."""
        return Literal(str(children[0]))

    def escaped(self, children: Sequence[str]) -> Literal:
        """Return the character after the escape character, if any."""
        return Literal(children[0][1:], quoted=True)

    def single(self, children: Sequence[str]) -> Literal:
        """Return what stands between single quotes."""
        return Literal(children[0][1:-1], quoted=True)

    def double(self, children: Sequence[Template]) -> Template:
        """Return what stands between double quotes."""
        return (Literal("", quoted=True), *(replace(part, quoted=True) for part in children[0]))

    def named(self, children: Sequence[str]) -> Reference:
        """Return a variable."""
        return Reference(children[0].removeprefix("$") if len(children[0]) > 1 else str(children[0]))

    def operated(self, children: tuple[str, str, Template]) -> Reference:
        """Return a variable with an operator and its argument."""
        name, operator, argument = children
        return Reference(str(name), str(operator), argument, depth=_depth(argument))

    def replaced(self, children: tuple[str, str, Template, Template]) -> Reference:
        """Return a variable with a pattern and a replacement."""
        name, operator, argument, replacement = children
        depth = max(_depth(argument), _depth(replacement))
        return Reference(str(name), str(operator), argument, replacement, depth=depth)


def _depth(argument: Template) -> int:
    """Return the depth of a variable with this argument."""
    depth = 1 + max((part.depth for part in argument if isinstance(part, Reference)), default=0)
    if depth > NESTING_MOST:
        raise ValueRefusedError(f"variables are nested deeper than {NESTING_MOST}")
    return depth
