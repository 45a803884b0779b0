"""The grammars, as lark reads them: an instruction, its words, here-documents, mounts, durations, variables.

Each start rule is a language of its own over one piece of text. There is one parser per escape character,
since ``# escape`` changes what quotes an end of line, a quote and a dollar sign. The parsers are LALR(1): no
backtracking and no recursion, so time and stack are bounded by the length of the text.
"""

import functools
from collections.abc import Callable
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
HEREDOC.3: /[0-9]*<<-?[ \t]*(?:[^ \t\v\f\r"'\\<]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+(?=[ \t\v\f\r]|$)/s
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
# come once for each place, X: the top, double quotes, braces, the pattern of ${x/pattern/; and, for the
# bodies of here-documents, where quotes are plain characters, the last three of them again without quotes.
PLACE = r"""
X_variable: DOLLAR_NAME                                              -> named
    | _BRACE INSIDE _CLOSE                                           -> named
    | _BRACE INSIDE OPERATOR BRACES_text _CLOSE                      -> operated
    | _BRACE INSIDE REPLACE PATTERN_text _SLASH BRACES_text _CLOSE   -> replaced
X_text: X_piece*                                                     -> text
?X_piece: X_PLAIN -> plain | LONE_DOLLAR -> plain | X_ESCAPED -> escaped | X_variable | QUOTES
"""

QUOTES = r"""SINGLE -> single | _DOUBLE double_text _DOUBLE -> double"""

PLACES = (  # name, ending characters, the same as braces and pattern within, has quotes
    ("top", "", "braces", "pattern", True),
    ("double", '"', "braces", "pattern", False),
    ("braces", "}", "braces", "pattern", True),
    ("pattern", "/", "braces", "pattern", True),
    ("body", "", "bodybraces", "bodypattern", False),
    ("bodybraces", "}", "bodybraces", "bodypattern", False),
    ("bodypattern", "/", "bodybraces", "bodypattern", False),
)

TERMINALS = r"""
DOLLAR_NAME: /\$(?:[^\W\d]\w*|[0-9]+|[@*#?\-$!])/
LONE_DOLLAR: /\$(?![{\w@*#?\-$!])/
_BRACE: "${"
INSIDE: /[^\W\d]\w*|[0-9]+|[@*#?\-$!]/
OPERATOR: /:?[-+?]|##?|%%?/
REPLACE: /\/\/?/
_CLOSE: "}"
_SLASH: "/"
SINGLE: /'[^']*'/
_DOUBLE: "\""
"""


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
    return _parsed(
        _template_parser("\\" if body else escape, maker), "body_text" if body else "top_text", text
    )


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
    from lark import Lark  # noqa: PLC0415  likewise

    starts = [
        "directive",
        "instruction",
        "bare",
        "words",
        "quoted_words",
        "shell",
        "heredoc",
        "mount",
        "duration",
    ]
    grammar = PIECES.replace("@", "\\" + escape)
    return Lark(grammar, parser="lalr", start=starts, maybe_placeholders=False)


@functools.cache
def _template_parser(escape: str, maker: Callable[[], Any]) -> Any:  # noqa: ANN401  likewise
    """Return the parser of templates, which has a maker's methods called on its way."""
    from lark import Lark  # noqa: PLC0415  likewise

    grammar = [TERMINALS]
    quoted = "\\" + escape
    for name, ends, braces, pattern, quotes in PLACES:
        rules = PLACE.replace("BRACES", braces).replace("PATTERN", pattern).replace("X_text", f"{name}_text")
        rules = rules.replace("X_variable", f"{name}_variable").replace("?X_piece", f"?{name}_piece")
        rules = rules.replace("X_piece", f"{name}_piece").replace("X_", f"{name.upper()}_")
        grammar.append(rules.replace("| QUOTES", f"| {QUOTES}" if quotes else ""))
        # The backslash comes last: lark takes \\" in a regular expression for \".
        stops = ("'\"" if quotes else "") + ends.replace("/", "\\/") + "$" + quoted
        grammar.append(f"{name.upper()}_PLAIN: /[^{stops}]+/s")
        escaped = f'["${quoted}]' if name == "double" else ".?"
        grammar.append(f"{name.upper()}_ESCAPED.2: /{quoted}{escaped}/s")
    grammar.append(f"DOUBLE_KEPT: /{quoted}/")
    text = "\n".join(grammar).replace(
        "DOUBLE_ESCAPED -> escaped", "DOUBLE_ESCAPED -> escaped | DOUBLE_KEPT -> plain"
    )
    starts = ["top_text", "body_text"]
    return Lark(text, parser="lalr", start=starts, transformer=maker(), maybe_placeholders=False)
