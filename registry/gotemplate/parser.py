"""Go templates as trees. Pure; what is nested too deeply or too large is refused.

::

    body    ::= { text | action }
    control ::= ("if" | "with" | "range") pipe body { "else" ("if" | "with") pipe body }
                [ "else" body ] "end"
    pipe    ::= [ variable [ "," variable ] (":=" | "=") ] command { "|" command }
    command ::= operand { space operand }
    operand ::= term { field }
    term    ::= literal | name | "." | field | variable | "(" pipe ")" | "nil"

(Go's ``text/template/parse/parse.go``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from registry.gotemplate import literals
from registry.gotemplate.lexer import Kind, Token, tokens_of, wrong
from registry.gotemplate.nodes import (
    Action,
    Arm,
    Body,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Leave,
    Literal,
    Nil,
    Node,
    Operand,
    Pipe,
    Range,
    Template,
    Text,
    Variable,
)
from schemas import limits
from schemas.errors import UsageError

FUNCTIONS: Final = frozenset(
    """
    and eq ge gt html index le len lt ne not or print printf println slice urlquery
    currentDate json toTypeScriptType yesterdayDate
    """.split()  # noqa: SIM905
)
"""Of Go's own, all but ``call`` and ``js``; then Ollama's."""
_CLOSERS: Final = frozenset({"end", "else"})
_RANGE_NAMES: Final = 2
_TERMS: Final = frozenset(
    {
        Kind.NUMBER,
        Kind.FIELD,
        Kind.DOT,
        Kind.VARIABLE,
        Kind.NAME,
        Kind.STRING,
        Kind.RAW,
        Kind.CHARACTER,
    }
)


def parse(source: str) -> Template:
    """Read a template.

    Raises:
        UsageError: It does not follow the grammar, names a function or variable that there is not,
            or passes a limit; names the line.
    """
    return _Parser(source).template()


class _Parser:
    def __init__(self, source: str) -> None:
        self._tokens = tokens_of(source)
        self._at = 0
        self._depth = 0
        self._loops = 0
        self._variables = ["$"]
        self._defined: dict[str, Body] = {}
        self._called: list[Call] = []
        self._fields: set[str] = set()

    def template(self) -> Template:
        body, closer = self._body(top=True)
        if closer is not None:
            raise wrong(closer.line, f"unexpected {{{{{closer.text}}}}}")
        for call in self._called:
            if call.name not in self._defined:
                raise wrong(call.line, f'template "{call.name}" not defined')
        return Template(body, self._defined, frozenset(self._fields))

    # -- words ----------------------------------------------------------------------------------

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += token.kind is not Kind.END
        return token

    def _peek(self) -> Token:
        """The next word, spaces passed over."""
        while self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._peek()
        return self._next()

    def _expect(self, kind: Kind, where: str) -> Token:
        token = self._take()
        if token.kind is not kind:
            raise _unexpected(token, where)
        return token

    @contextmanager
    def _deeper(self, line: int) -> Iterator[None]:
        self._depth += 1
        if self._depth > limits.GO_TEMPLATE_DEPTH:
            raise wrong(line, "nested too deeply")
        yield
        self._depth -= 1

    # -- bodies ---------------------------------------------------------------------------------

    def _body(self, *, top: bool = False) -> tuple[Body, Token | None]:
        """All up to an ``end`` or ``else``, which is read as far as its word, or the whole."""
        nodes: list[Node] = []
        while (token := self._next()).kind is not Kind.END:
            if token.kind is Kind.TEXT:
                nodes.append(Text(token.text))
                continue
            word = self._peek()
            if word.kind is Kind.NAME and word.text in _CLOSERS:
                return tuple(nodes), self._next()
            if word.kind is Kind.NAME and word.text == "define":
                self._define(top=top)
            else:
                nodes.append(self._action(word))
        if not top:
            raise wrong(token.line, "unexpected EOF: {{end}} is missing")
        return tuple(nodes), None

    def _action(self, word: Token) -> Node:
        if word.kind is Kind.NAME:
            if word.text in ("if", "with"):
                return self._branch(word)
            if word.text == "range":
                return self._range(word)
            if word.text in ("break", "continue"):
                return self._leave()
            if word.text in ("template", "block"):
                return self._call(word)
        return Action(self._pipe("command", Kind.RIGHT))

    def _branch(self, word: Token) -> Branch:
        mark = len(self._variables)
        arms: list[Arm] = []
        otherwise: Body = ()
        with self._deeper(word.line):
            while True:
                moves = self._take().text == "with"
                pipe = self._pipe("with" if moves else "if", Kind.RIGHT)
                body, closer = self._scoped_body()
                arms.append(Arm(pipe, body, moves))
                if closer.text == "else" and self._peek().text in ("if", "with"):
                    continue
                otherwise = self._rest(closer)
                break
        del self._variables[mark:]
        return Branch(tuple(arms), otherwise)

    def _range(self, word: Token) -> Range:
        mark = len(self._variables)
        with self._deeper(word.line):
            self._take()
            pipe = self._pipe("range", Kind.RIGHT)
            self._loops += 1
            body, closer = self._scoped_body()
            self._loops -= 1
            otherwise = self._rest(closer)
        del self._variables[mark:]
        return Range(pipe, body, otherwise)

    def _scoped_body(self) -> tuple[Body, Token]:
        mark = len(self._variables)
        body, closer = self._body()
        del self._variables[mark:]
        if closer is None:  # only the top ends without one
            raise wrong(self._tokens[-1].line, "unexpected EOF")
        return body, closer

    def _rest(self, closer: Token) -> Body:
        """What follows ``else``, if that is the word, and the ``end`` of both."""
        self._expect(Kind.RIGHT, closer.text)
        if closer.text == "end":
            return ()
        body, closer = self._scoped_body()
        if closer.text != "end":
            raise wrong(closer.line, "expected end; found {{else}}")
        self._expect(Kind.RIGHT, "end")
        return body

    def _leave(self) -> Leave:
        word = self._take()
        if not self._loops:
            raise wrong(word.line, f"{{{{{word.text}}}}} outside {{{{range}}}}")
        self._expect(Kind.RIGHT, word.text)
        return Leave(word.text)

    def _define(self, *, top: bool) -> None:
        word = self._take()
        if not top:
            raise wrong(word.line, "unexpected {{define}}")
        name = self._name(word.text)
        self._expect(Kind.RIGHT, "define clause")
        self._defining(name, word)

    def _defining(self, name: str, word: Token) -> None:
        outer = self._variables, self._loops
        self._variables, self._loops = ["$"], 0
        with self._deeper(word.line):
            body, closer = self._scoped_body()
        if closer.text != "end":
            raise wrong(closer.line, f"unexpected {{{{else}}}} in {word.text} clause")
        self._expect(Kind.RIGHT, "end")
        self._variables, self._loops = outer
        if name in self._defined:
            raise wrong(word.line, f'template "{name}" is defined twice')
        self._defined[name] = body

    def _call(self, word: Token) -> Call:
        self._take()
        name = self._name(word.text)
        pipe = None
        if self._peek().kind is Kind.RIGHT and word.text == "template":
            self._next()
        else:
            pipe = self._pipe(word.text, Kind.RIGHT)
        call = Call(word.line, name, pipe)
        self._called.append(call)
        if word.text == "block":
            self._defining(name, word)
        return call

    def _name(self, where: str) -> str:
        token = self._take()
        if token.kind not in (Kind.STRING, Kind.RAW):
            raise _unexpected(token, f"{where} clause")
        return _string(token)

    # -- pipelines ------------------------------------------------------------------------------

    def _pipe(self, where: str, ends: Kind) -> Pipe:
        line = self._peek().line
        names, declares = self._declaration(where)
        commands = [self._command(where)]
        while self._peek().text == "|":
            self._next()
            commands.append(self._command(where))
        closing = self._take()
        if closing.kind is not ends or (ends is Kind.SIGN and closing.text != ")"):
            raise _unexpected(closing, where)
        for command in commands[1:]:
            if isinstance(command.words[0], Dot | Nil | Literal):
                raise wrong(line, "non executable command in pipeline")
        if declares:
            self._variables.extend(names)
        return Pipe(line, tuple(commands), names, declares)

    def _declaration(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Variables that are to be set, and whether they are new; none if it does not begin so."""
        start = self._at
        names: list[str] = []
        while self._peek().kind is Kind.VARIABLE:
            names.append(self._next().text)
            sign = self._peek()
            if sign.text == "," and where == "range" and len(names) < _RANGE_NAMES:
                self._next()
                continue
            if sign.text in (":=", "=") and sign.kind is Kind.SIGN:
                self._next()
                if sign.text == "=":
                    for name in names:
                        self._demand(name, sign.line)
                return tuple(names), sign.text == ":="
            break
        if len(names) > 1:
            raise _unexpected(self._peek(), "range")
        self._at = start
        return (), False

    def _command(self, where: str) -> Command:
        words: list[Operand] = []
        while True:
            token = self._peek()
            if token.kind not in _TERMS and token.text != "(":
                break
            words.append(self._operand())
            following = self._tokens[self._at]
            if following.kind not in (Kind.SPACE, Kind.RIGHT) and following.text not in ("|", ")"):
                raise _unexpected(following, "operand")
        if not words:
            if token.kind is Kind.RIGHT or token.text in ("|", ")"):
                raise wrong(token.line, f"missing value for {where}")
            raise _unexpected(token, where)
        return Command(tuple(words))

    def _operand(self) -> Operand:
        token = self._next()
        term = self._term(token)
        names: list[str] = []
        while self._tokens[self._at].kind is Kind.FIELD:
            names.append(self._next().text[1:])
        self._fields.update(names)
        if not names:
            return term
        if isinstance(term, Field):
            return Field((*term.names, *names))
        if isinstance(term, Variable):
            return Variable(term.name, tuple(names))
        if isinstance(term, Dot | Nil | Literal):
            raise wrong(token.line, f"unexpected . after term {token.text!r}")
        return Chain(term, tuple(names))

    def _term(self, token: Token) -> Operand:
        match token.kind:
            case Kind.DOT:
                return Dot()
            case Kind.FIELD:
                self._fields.add(token.text[1:])
                return Field((token.text[1:],))
            case Kind.VARIABLE:
                self._demand(token.text, token.line)
                return Variable(token.text)
            case Kind.STRING | Kind.RAW:
                return Literal(_string(token))
            case Kind.NUMBER | Kind.CHARACTER:
                return Literal(_number(token))
            case Kind.NAME:
                return _named(token)
        with self._deeper(token.line):
            return self._pipe("parenthesized pipeline", Kind.SIGN)

    def _demand(self, name: str, line: int) -> None:
        if name not in self._variables:
            raise wrong(line, f'undefined variable "{name}"')


def _named(token: Token) -> Operand:
    if token.text in ("true", "false"):
        return Literal(token.text == "true")
    if token.text == "nil":
        return Nil()
    if token.text not in FUNCTIONS:
        raise wrong(token.line, f'function "{token.text[:80]}" not defined')
    return Function(token.text)


def _string(token: Token) -> str:
    if token.kind is Kind.RAW:
        return token.text[1:-1].replace("\r", "")
    value = literals.unquoted(token.text)
    if value is None:
        raise wrong(token.line, f"invalid syntax in {token.text[:80]}")
    return value


def _number(token: Token) -> int | float:
    read = literals.character if token.kind is Kind.CHARACTER else literals.number
    value = read(token.text)
    if value is None:
        raise wrong(token.line, f"bad number syntax: {token.text[:80]}")
    return value


def _unexpected(token: Token, where: str) -> UsageError:
    shown = "EOF" if token.kind is Kind.END else repr(token.text[:80])
    return wrong(token.line, f"unexpected {shown} in {where}")
