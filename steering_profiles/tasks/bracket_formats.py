"""Formats of prompts whose answer closes brackets: names, nesting, arguments, operators, languages and brackets.

They are in three lists: *fitting formats* move scales, *choosing formats* decide which scales and which condition are
kept, and *held-out formats* are measured in reports and never used in a fit. What is written inside of the outermost
bracket of a held-out format is in neither of the other lists, but for ``str(`` around numbers of other lengths or after
other code, and for single brackets.
"""

from dataclasses import dataclass

MOST_BRACKETS = 4


@dataclass(frozen=True)
class BracketFormat:
    """A prompt format: ``MOST_BRACKETS`` openings around a number, of which a prompt has the first so many."""

    openings: tuple[str, str, str, str]
    """What is written for each bracket, from the outermost on; each has one opening bracket."""
    before: str = ""
    """Text before the brackets, in which ``{number}`` is the number."""
    closing: str = ")"
    digits: int = 3
    value: str = "{number}"
    """What stands inside of all brackets."""
    least: int = 1
    """Smallest number of brackets: with fewer, the prompt would be one of another format."""

    def answers(self) -> dict[str, str]:
        """Return the text of the answer by group; groups are named by parentheses, whatever the bracket."""
        return {")" * n: self.closing * n for n in range(1, MOST_BRACKETS + 1)}

    def prompt(self, depth: int, number: str) -> str:
        """Return the prompt whose answer is ``depth`` closing brackets."""
        return (self.before + "".join(self.openings[:depth]) + self.value).replace("{number}", number)


_PRINT = "#print the string {number}\n"


def _calls(name: str, before: str = _PRINT, digits: int = 3) -> BracketFormat:
    """Return the paper's format with another function; with one bracket no function is called."""
    least = 1 if name == "str(" else 2
    return BracketFormat(("print(", name, name, name), before, digits=digits, least=least)


def _nested(outer: str, inner: str, before: str) -> BracketFormat:
    return BracketFormat((outer, inner, inner, inner), before)


def _brackets(pair: str) -> BracketFormat:
    before = "#nest the number {number}\nx = "
    return BracketFormat((pair[0], pair[0], pair[0], pair[0]), before, closing=pair[1])


AS_IN_THE_PAPER = _calls("str(")

_SUM = "total = 0\nfor value in (3, 4, 5):\n    total += value ** 2\n\n\n"
_AREA = '''def area(width, height):
    """Return the area of a rectangle."""
    if width < 0 or height < 0:
        raise ValueError("negative length")
    return width * height


'''

FITTING_FORMATS: dict[str, BracketFormat] = {
    **{f"{digits} digits": _calls("str(", digits=digits) for digits in (2, 7)},
    **{name: _calls(name) for name in ("int(", "float(", "set(", "tuple(", "abs(", "bar(")},
    "a sum before": _calls("str(", before=_SUM + _PRINT),
    "a value of f": _nested("tuple(", "tuple(", "def f(x):\n    return "),
    "Lisp write": _nested("(write ", "(exp ", "; write {number}\n"),
    "Lisp define": _nested("(define x ", "(exp ", "; write {number}\n"),
}

CHOOSING_FORMATS: dict[str, BracketFormat] = {
    **{name: _calls(name) for name in ("round(", "bytes(", "min(", "reversed(", "any(", "run(")},
    "8 digits": _calls("str(", digits=8),
    "mixed names": BracketFormat(("print(", "int(", "abs(", "float("), _PRINT, least=3),
    "assigned calls": BracketFormat(("set(", "tuple(", "set(", "tuple("), "values = "),
    "two arguments": BracketFormat(("add(", "1, add(", "2, add(", "3, add("), "total = ", value="4, {number}"),
    "products": BracketFormat(("(", "2 * (", "3 * (", "4 * ("), "y = ", value="5 + {number}"),
    "JavaScript parseInt": _nested("alert(", "parseInt(", "// show {number}\n"),
    "C abs": _nested("put(", "abs(", "/* print {number} */\n"),
    "logged names": BracketFormat(("log(", "min(", "bytes(", "round("), "# log {number}\n"),
    "keywords": BracketFormat(
        ("make(", "value=make(", "value=make(", "value=make("), "item = ", value="value={number}"
    ),
    "sums": BracketFormat(("(", "7 + (", "6 - (", "5 + ("), "result = ", value="8 * {number}"),
    "JavaScript Number": _nested("console.error(", "Number(", "// error {number}\n"),
    "Ruby Integer": _nested("p(", "Integer(", "# show {number}\n"),
    "brackets [ in a call": BracketFormat(("[", "[", "[", "["), "rows = ", closing="]"),
    "yielded": _nested("reversed(", "reversed(", "def g():\n    yield "),
    "awaited": _nested("reversed(", "reversed(", "async def g():\n    await "),
    "a function's value": _nested("reversed(", "reversed(", "def g(n):\n    return "),
    "raised": _nested("Fault(", "run(", "def h(x):\n    raise "),
    "asserted": _nested("any(", "min(", "assert "),
    "a lambda": _nested("round(", "round(", "half = lambda: "),
    "a loop": BracketFormat(("for x in reversed(", "bytes(", "reversed(", "bytes("), "", value="{number}"),
    "a conditional expression": _nested("make(", "round(", "x = 0 if n else "),
    "a decorator": BracketFormat(("@cache(", "size=make(", "size=make(", "size=make("), value="size={number}"),
    "C# Convert": _nested("Console.Write(", "Convert(", "// write {number}\n"),
    "Swift": _nested("debugPrint(", "Int8(", "// write {number}\n"),
    "SQL": _nested("SELECT ceil(", "round(", "-- the number {number}\n"),
    "Scheme": _nested("(display ", "(sqrt ", "; show {number}\n"),
    "Common Lisp": _nested("(princ ", "(not ", "; show {number}\n"),
    "Emacs Lisp": _nested("(message ", "(1+ ", "; show {number}\n"),
    "Clojure": _nested("(println ", "(list ", "; show {number}\n"),
    "assigned in Lisp": _nested("(setq x ", "(floor ", "; show {number}\n"),
}

HELD_OUT_FORMATS: dict[str, BracketFormat] = {
    **{f"{digits} digits": _calls("str(", digits=digits) for digits in (4, 5, 6)},
    **{name: _calls(name) for name in ("len(", "repr(", "list(", "max(", "sorted(", "foo(")},
    **{f"brackets {pair[0]}": _brackets(pair) for pair in ("[]", "{}")},
    "code before": _calls("str(", before=_AREA + _PRINT),
    **{name: _calls(name) for name in ("sum(", "next(", "iter(", "hash(", "bool(", "dict(", "wrap(", "self.get(")},
    "unlike names": BracketFormat(("print(", "len(", "list(", "repr("), _PRINT, least=3),
    "returned": _nested("foo(", "foo(", "def f():\n    return "),
    "no line before": _nested("print(", "str(", ""),
    "a list's items": BracketFormat(("pair(", "9, pair(", "8, pair(", "7, pair("), "z = ", value="6, {number}"),
    "named arguments": BracketFormat(
        ("Node(", "next=Node(", "next=Node(", "next=Node("), "head = ", value="data={number}"
    ),
    "differences": BracketFormat(("(", "9 - (", "8 - (", "7 - ("), "d = ", value="6 - {number}"),
    "comparisons": BracketFormat(("if (", "x < (", "y + (", "z * ("), "", value="a - {number}"),
    "JavaScript String": _nested("console.log(", "String(", "// print {number}\n"),
    "Java": _nested("System.out.println(", "foo(", "// print {number}\n"),
    "C": _nested("print(", "labs(", "/* show {number} */\n"),
    "Go": _nested("fmt.Println(", "len(", "// print {number}\n"),
    "Rust": _nested("show(", "Some(", "// show {number}\n"),
    "PHP": _nested("echo(", "strval(", "<?php\n// print {number}\n"),
    "Lisp": BracketFormat(("(print ", "(abs ", "(abs ", "(abs "), "; print {number}\n"),
}
