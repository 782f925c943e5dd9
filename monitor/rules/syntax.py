"""The syntax tree of a CEL condition, and the parser that builds it. Knows no names, types or frames.

Grammar (loosest first), a subset of https://github.com/google/cel-spec: ``? :``, ``||``, ``&&``, comparisons and
``in``, ``+ -``, ``* / %``, unary ``!`` and ``-``, then literals, lists, names, calls and methods. Comparisons do not
chain: ``a < b < c`` compares a truth value with a number in C, and is an error in CEL.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tokens import CelError, Token, tokenize

MAX_DEPTH = 64
"""Deepest nesting: parentheses, signs, conditionals and operators alike. Rules of ours nest 6 deep."""

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in")
_BINARY: tuple[tuple[str, ...], ...] = (("+", "-"), ("*", "/", "%"))


@dataclass(frozen=True, slots=True)
class Literal:
    """A number (always a double), a string or a truth value."""

    value: float | str | bool
    position: int


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """``[a, b]``; what may stand in it is for the checker to say."""

    items: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Name:
    """``requests_24h`` or ``params.limit``: ``space`` is empty, ``params``, ``lists`` or ``macros``."""

    space: str
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Unary:
    """``!x`` or ``-x``."""

    op: str
    operand: Node
    position: int


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison, ``in``, or arithmetic on two operands."""

    op: str
    left: Node
    right: Node
    position: int


@dataclass(frozen=True, slots=True)
class Logic:
    """``a && b && c`` or ``a || b || c``: flat, so that a long run of terms is not a deep tree."""

    op: str
    terms: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Conditional:
    """``test ? yes : no``."""

    test: Node
    yes: Node
    no: Node
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    """``has(x)``, or ``x.startsWith("a")`` with ``target`` x."""

    function: str
    target: Node | None
    args: tuple[Node, ...]
    position: int


Node = Literal | ListLiteral | Name | Unary | Binary | Logic | Conditional | Call


def children(node: Node) -> tuple[Node, ...]:
    """The operands of a node, in reading order."""
    match node:
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Logic():
            return node.terms
        case Conditional():
            return (node.test, node.yes, node.no)
        case Call():
            return node.args if node.target is None else (node.target, *node.args)
        case ListLiteral():
            return node.items
    return ()


def parse(source: str) -> Node:
    """The tree of ``source``. Raises :class:`CelError` where it isn't a condition, or nests over MAX_DEPTH."""
    parser = _Parser(tokenize(source))
    try:
        node = parser.conditional()
    except RecursionError:  # 64 levels take 700 frames: a caller that is deep itself may leave fewer
        raise CelError(f"nests deeper than {MAX_DEPTH} levels: move parts into macros", 0) from None
    parser.expect_end()
    return node


class _Parser:
    def __init__(self, tokens: list[Token]):
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _is(self, *ops: str) -> bool:
        token = self._next
        return token.value in ops and (token.kind == "op" or (token.kind == "name" and token.value == "in"))

    def _expect(self, op: str, what: str) -> Token:
        if not self._is(op):
            raise CelError(f"expected {op!r} {what}, found {_shown(self._next)}", self._next.position)
        return self._take()

    def expect_end(self) -> None:
        token = self._next
        if token.kind == "end":
            return
        if token.kind == "name" and token.value in ("and", "or", "not"):
            raise CelError(f"write {dict(zip(('and', 'or', 'not'), ('&&', '||', '!'), strict=True))[str(token.value)]} "
                           f"instead of {token.value}", token.position)  # fmt: skip
        raise CelError(f"expected an operator, found {_shown(token)}", token.position)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CelError(f"nests deeper than {MAX_DEPTH} levels: move parts into macros", self._next.position)

    def conditional(self) -> Node:
        self._deeper()
        node = self._logic("||")
        if self._is("?"):
            position = self._take().position
            yes = self._logic("||")
            self._expect(":", "in the conditional")
            node = Conditional(node, yes, self.conditional(), position)
        self._depth -= 1
        return node

    def _logic(self, op: str) -> Node:
        terms = [self._logic("&&") if op == "||" else self._comparison()]
        position = self._next.position
        while self._is(op):
            self._take()
            terms.append(self._logic("&&") if op == "||" else self._comparison())
        return terms[0] if len(terms) == 1 else Logic(op, tuple(terms), position)

    def _comparison(self) -> Node:
        left = self._arithmetic(0)
        if not self._is(*COMPARISONS):
            return left
        token = self._take()
        right = self._arithmetic(0)
        if self._is(*COMPARISONS):
            raise CelError("comparisons do not chain: write a < b && b < c", self._next.position)
        return Binary(str(token.value), left, right, token.position)

    def _arithmetic(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        node = self._arithmetic(level + 1)
        depth = 0
        while self._is(*_BINARY[level]):
            depth += 1
            if self._depth + depth > MAX_DEPTH:
                raise CelError(f"nests deeper than {MAX_DEPTH} levels: shorten the sum", self._next.position)
            token = self._take()
            node = Binary(str(token.value), node, self._arithmetic(level + 1), token.position)
        return node

    def _unary(self) -> Node:
        if not self._is("!", "-"):
            return self._postfix()
        token = self._take()
        if token.value == "-" and self._next.kind == "number":
            number = self._take()
            return Literal(-float(number.value), token.position)
        self._deeper()
        node = Unary(str(token.value), self._unary(), token.position)
        self._depth -= 1
        return node

    def _postfix(self) -> Node:
        node = self._primary()
        outer = self._depth
        while self._is("."):
            self._take()
            member = self._take()
            if member.kind != "name":
                raise CelError(f"expected a name after '.', found {_shown(member)}", member.position)
            if self._is("("):
                self._deeper()
                node = Call(str(member.value), node, self._items("(", ")"), member.position)
            elif isinstance(node, Name) and not node.space:
                node = Name(node.name, str(member.value), node.position)
            else:
                raise CelError(f"nothing has a field {member.value!r}", member.position)
        self._depth = outer
        if self._is("["):
            raise CelError("nothing can be indexed: write x in [a, b]", self._next.position)
        return node

    def _items(self, opening: str, closing: str) -> tuple[Node, ...]:
        self._expect(opening, "to open it")
        items: list[Node] = []
        while not self._is(closing):
            items.append(self.conditional())
            if not self._is(closing):
                self._expect(",", f"or {closing!r}")
        self._take()
        return tuple(items)

    def _primary(self) -> Node:
        token = self._next
        if self._is("("):
            self._take()
            node = self.conditional()
            self._expect(")", "to close the parenthesis")
            return node
        if self._is("["):
            return ListLiteral(self._items("[", "]"), token.position)
        self._take()
        if token.kind in ("number", "string"):
            return Literal(token.value, token.position)
        if token.kind != "name" or token.value == "in":
            raise CelError(f"expected a value, found {_shown(token)}", token.position)
        if token.value in ("true", "false"):
            return Literal(token.value == "true", token.position)
        if token.value == "null":
            raise CelError("there is no null literal: write has(x) or !has(x)", token.position)
        if token.value == "not":
            raise CelError("write ! instead of not", token.position)
        if self._is("("):
            return Call(str(token.value), None, self._items("(", ")"), token.position)
        return Name("", str(token.value), token.position)


def _shown(token: Token) -> str:
    return "the end" if token.kind == "end" else repr(token.value)
