"""The grammars, as lark reads them: an instruction, its words, here-documents, mounts, durations, variables.

Each start rule is a language of its own over one piece of text. There is one parser per escape character,
since ``# escape`` changes what quotes an end of line, a quote and a dollar sign. The parsers are LALR(1): no
backtracking and no recursion, so time and stack are bounded by the length of the text.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

BLANKS = " \t\v\f\r"

# @ stands for the escape character. Flags and here-documents are always escaped by a backslash, as in
# BuildKit.
PIECES = r"""
directive: _HASH KEY _EQUALS VALUE
_HASH: /[ \t\v\f\r]*#[ \t\v\f\r]*/
KEY: /[A-Za-z][A-Za-z0-9]*/
_EQUALS: /[ \t\v\f\r]*=[ \t\v\f\r]*/
VALUE: /[^ \t\v\f\r].*/s

instruction: NAME (_BLANK _flag)* (_BLANK END_OF_FLAGS)? (_BLANK TEXT)?
bare: NAME (_BLANK TEXT)?
_flag: FLAG (FLAG_PLAIN | FLAG_ESCAPED | FLAG_QUOTED)*
NAME: /[^ \t\v\f\r]+/
END_OF_FLAGS.3: /--(?=[ \t\v\f\r]|$)/
FLAG.2: "--"
FLAG_PLAIN: /[^ \t\v\f\r"'\\]+/
FLAG_ESCAPED: /\\.?/s
FLAG_QUOTED: /"(?:[^"\\]|\\.)*(?:"|\\?$)|'(?:[^'\\]|\\.)*(?:'|\\?$)/s
TEXT.1: /[^ \t\v\f\r].*/s
_BLANK: /[ \t\v\f\r]+/

words: WORD (_BLANK WORD)*
WORD: /[^ \t\v\f\r]+/

quoted_words: QUOTED_WORD (_BLANK QUOTED_WORD)*
QUOTED_WORD: /(?:[^ \t\v\f\r"'@]|@.|@$|"(?:[^"@]|@.)*(?:"|@?$)|'[^']*(?:'|$))+/s

shell: _BLANK? (_shell_word (_BLANK _shell_word)*)? _BLANK?
_shell_word: HEREDOC | SHELL_WORD
HEREDOC.3: /[0-9]*<<-?[ \t]*(?:[^ \t\v\f\r"'\\<]|\\[^<]|'[^'<]*'|"(?:[^"\\<]|\\[^<])*")+(?=[ \t\v\f\r]|$)/s
SHELL_WORD: /(?:\$?\(\((?:[^)]|\)(?!\)))*\)\)|[^ \t\v\f\r"'\\]|\\.|\\$|'[^']*'|"(?:[^"\\]|\\.)*")+/s

heredoc: FILE_NUMBER TABS? _BLANK? (END_PLAIN | END_ESCAPED | END_QUOTED)+
FILE_NUMBER: /[0-9]*<</
TABS.2: "-"
END_PLAIN: /[^ \t\v\f\r"'\\][^"'\\]*/
END_ESCAPED: /\\./s
END_QUOTED: /'[^']*'|"(?:[^"\\]|\\.)*"/s

mount: _option (_COMMA _option)*
_option: OPTION | OPTION_QUOTED
_COMMA: ","
OPTION: /[^,"][^,]*/s
OPTION_QUOTED: /"(?:[^"]|"")*"/s

duration: SIGN? (AMOUNT UNIT)+
SIGN: /[+-]/
AMOUNT: /[0-9]+(?:\.[0-9]*)?|\.[0-9]+/
UNIT: /ns|us|µs|μs|ms|s|m|h/
"""

# A template is text with variables in it. What ends a piece of text depends on where it stands, so the rules
# come once for each place, x: the top, double quotes, braces, and the pattern and the new text of
# ${x/pattern/new}; the latter keeps its backslashes, as it does in BuildKit.
PLACE = r"""
x_text: x_piece*                                                     -> text
?x_piece: X_PLAIN -> plain | LONE_DOLLAR -> plain | X_ESCAPED -> escaped | x_variable
x_variable: DOLLAR_NAME                                              -> named
    | _BRACE INSIDE _CLOSE                                           -> named
    | _BRACE INSIDE OPERATOR braces_text _CLOSE                      -> operated
    | _BRACE INSIDE REPLACE pattern_text _SLASH new_text _CLOSE      -> replaced
"""

# Where single and double quotes mean something, and what else a backslash is between double ones.
QUOTES = r"""
%extend x_piece: SINGLE -> single | _DOUBLE double_text _DOUBLE -> double
"""
KEPT = r"""
%extend double_piece: DOUBLE_KEPT -> plain
"""

# Name, ending characters, whether there are quotes. The first one is where to start. In the bodies of
# here-documents there are no quotes anywhere.
PLACES = (
    ("top", "", True),
    ("double", '"', False),
    ("braces", "}", True),
    ("pattern", "/", True),
    ("new", "}", True),
)
BODY_PLACES = (("body", "", False), ("braces", "}", False), ("pattern", "/", False), ("new", "}", False))

TERMINALS = r"""
DOLLAR_NAME: /\$(?:[^\W\d]\w*|[0-9]+|[@*#?\-$!])/
LONE_DOLLAR: /\$(?![{\w@*#?\-$!])/
_BRACE: "${"
INSIDE: /[^\W\d]\w*|[0-9]+|[@*#?\-$!]/
OPERATOR: /:?[-+?]|##?|%%?/
REPLACE: /\/\/?/
_CLOSE: "}"
_SLASH: "/"
"""

QUOTE_TERMINALS = r"""
SINGLE: /'[^']*'/
_DOUBLE: "\""
"""

# How lark is to read grammars.
OPTIONS: dict[str, Any] = {"parser": "lalr", "maybe_placeholders": False}


class UnreadableError(Exception):
    """A text is not of its language.

    offset: of the first character that does not fit; the length at the end.
    """

    def __init__(self, offset: int) -> None:
        """Keep the place."""
        super().__init__(offset)
        self.offset = offset


@dataclass(frozen=True)
class Piece:
    """A piece of a text. kind: its terminal. offset: in the text."""

    kind: str
    text: str
    offset: int


def tokens(start: str, text: str, escape: str = "\\") -> list[Piece]:
    """Return the pieces that text has by the rule start.

    Raises:
        UnreadableError: text is not of that rule.

    """
    tree = _parsed(_pieces_parser(escape), start, text)
    return [Piece(token.type, str(token), token.start_pos) for token in tree.children]


def template(text: str, escape: str, maker: Callable[[], Any], *, body: bool) -> Any:  # noqa: ANN401
    """Return what the methods of a maker, which have the names of rules, make of a template.

    body: of a here-document, where quotes mean nothing.

    Raises:
        UnreadableError: text is not of that rule.

    """
    # ANN401 above: what a maker makes is its own affair.
    parser = _template_parser("\\" if body else escape, maker, BODY_PLACES if body else PLACES)
    return _parsed(parser, "text", text)


def _parsed(parser: Any, start: str, text: str) -> Any:  # noqa: ANN401  a parser of lark, which is not imported yet
    """Return the tree of text."""
    from lark import UnexpectedInput, UnexpectedToken  # noqa: PLC0415  80 ms; most commands never need it

    try:
        return parser.parse(text, start=start)
    except UnexpectedInput as error:
        at = error.pos_in_stream
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        raise UnreadableError(len(text) if ended or at is None else at) from None


@functools.cache
def _pieces_parser(escape: str) -> Any:  # noqa: ANN401  likewise
    """Return the parser of all but templates."""
    return _parser(*pieces_grammar(escape))


@functools.cache
def _template_parser(escape: str, maker: Callable[[], Any], places: tuple[tuple[str, str, bool], ...]) -> Any:  # noqa: ANN401
    """Return the parser of templates, which has a maker's methods called on its way."""
    return _parser(template_grammar(escape, places), ("text",), transformer=maker())


def pieces_grammar(escape: str) -> tuple[str, tuple[str, ...]]:
    """Return the grammar of all but templates, and its start rules."""
    starts = tuple(line.partition(":")[0] for line in PIECES.splitlines() if line[:1].islower())
    return PIECES.replace("@", "\\" + escape), starts


def template_grammar(escape: str, places: tuple[tuple[str, str, bool], ...]) -> str:
    """Return the grammar of templates; it starts with text."""
    quoted = "\\" + escape
    grammar = [f"text: {places[0][0]}_text", TERMINALS, QUOTE_TERMINALS if places is PLACES else ""]
    for name, ends, quotes in places:
        rules = PLACE + (QUOTES if quotes else "") + (KEPT if name == "double" else "")
        if name == "new":
            rules = rules.replace("X_ESCAPED -> escaped", "X_ESCAPED -> plain")
        grammar.append(rules.replace("x_", f"{name}_").replace("X_", f"{name.upper()}_"))
        # The backslash comes last: lark takes \\" in a regular expression for \".
        stops = ("'\"" if quotes else "") + ends.replace("/", "\\/") + "$" + quoted
        grammar.append(f"{name.upper()}_PLAIN: /[^{stops}]+/s")
        escaped = f'["${quoted}]' if name == "double" else ".?"
        grammar.append(f"{name.upper()}_ESCAPED.2: /{quoted}{escaped}/s")
    if places is PLACES:
        grammar.append(f"DOUBLE_KEPT: /{quoted}/")
    return "\n".join(grammar)


def digest(grammar: str, starts: Sequence[str]) -> str:
    """Return what a parser's tables are known by: its grammar, and the release of lark that made them."""
    import lark  # noqa: PLC0415  as above

    said = "\0".join([lark.__version__, *starts, grammar])
    return hashlib.sha256(said.encode()).hexdigest()


def _parser(grammar: str, starts: Sequence[str], **options: object) -> Any:  # noqa: ANN401  a parser of lark
    """Return a parser, from the tables that were made beforehand if there are any: 4 ms instead of 50."""
    from lark import Lark  # noqa: PLC0415  as above

    from chlaunch.image.dockerfile import tables  # noqa: PLC0415  likewise

    made = tables.TABLES.get(digest(grammar, starts))
    if made is not None:
        load: Any = Lark._load_from_dict  # noqa: SLF001  its public load() takes pickles alone
        return load(*made, **options)
    return Lark(grammar, start=list(starts), **OPTIONS, **options)
