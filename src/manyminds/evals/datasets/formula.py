"""Answers of mathematics as canonical text: a value where it can be worked out, else the formula, tidied.

Formulas come from models, so they are parsed and worked out here, never evaluated by Python.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from manyminds.canonical.prose import boxes

__all__ = ["formula", "last_box", "number"]

_NUMBER: Final = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:/(\d+(?:\.\d+)?))?")
_LONG: Final = 300
"""Characters beyond which a text is no formula and no number."""
_BITS: Final = 1024
"""Of the largest power that is worked out, about what a double can hold."""

_SPELLINGS: Final = (
    (re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:left|right|displaystyle|,|;|!|:|\s|[()\[\]])|[$\s]|\\?%|\^\{?\\circ\}?|°"), ""),
    (re.compile(r"\\[dt]?frac(\d)(\d)"), r"((\1)/(\2))"),
    (re.compile(r"\\[dt]?frac"), r"\\frac"),
    (re.compile(r"\\sqrt(\d)"), r"sqrt(\1)"),
    (re.compile(r"√(\d+(?:\.\d+)?)"), r"sqrt(\1)"),
    (re.compile(r"\\cdot|\\times|×|·"), "*"),
    (re.compile(r"\\pi|π"), "pi"),
    (re.compile(r"−|–"), "-"),
    (re.compile(r"√"), "sqrt"),
    (re.compile(r"\{,\}|(?<=\d),(?=\d{3}(?!\d))"), ""),
)
_FRACTION: Final = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
_ROOT: Final = re.compile(r"\\sqrt\{([^{}]*)\}")
_POWER: Final = re.compile(r"\^\{([^{}]*)\}")
_ARITHMETIC: Final = re.compile(r"(?:[\d.+\-*/()]|sqrt|pi)+")
_PRODUCT: Final = re.compile(r"(?<=[\d)])(?=\(|sqrt|pi)|(?<=\))(?=\d)")
_STOPS: Final = re.compile(r"^\.+(?!\d)|\.+$")
_POINT: Final = re.compile(r"(\d+)\.(\d*)|\.(\d+)")
_NAMED: Final = re.compile(r"^[a-z](?:\([a-z]\))?=")

_Value = Fraction | float
"""Exact as long as no root, pi or broken exponent is met."""


def _power(base: _Value, exponent: _Value) -> _Value:
    """Raises: ArithmeticError where it is too large, ValueError where it is not real."""
    if isinstance(base, float) or exponent != int(exponent):
        return math.pow(base, exponent)
    times, bits = int(exponent), max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(times) > _BITS:
        raise OverflowError(f"A power of {bits * abs(times)} bits.")
    return base**times


_OPERATORS: Final[Mapping[type[ast.operator], Callable[[_Value, _Value], _Value]]] = MappingProxyType(
    {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
        ast.Pow: _power,
    }
)


def number(text: str) -> str | None:
    """The first number of a text, a fraction by its value; None where there is none.

    Integers are exact, others have four decimal places at most.
    """
    found = _NUMBER.search(re.sub(r"[\s$,]", "", text))
    if found is None or len(found[0]) > _LONG:
        return None
    top, _, bottom = found[0].partition("/")
    value = Fraction(top)
    if bottom and Fraction(bottom):
        value /= Fraction(bottom)
    return _decimal(value, 4)


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds; None where there is none."""
    held = [content for _, content in boxes(text)]
    return held[-1] if held else None


def formula(text: str) -> str | None:
    """The value, else the formula without spaces and LaTeX; None where nothing is left.

    Integers are exact, others have six digits and from 10,000 on two decimal places.
    """
    boxed = last_box(text)
    tidy = _tidied(text if boxed is None else boxed)
    if not tidy:
        return None
    value = _value(tidy)
    if value is None:
        return tidy
    return _decimal(value, 2) if value.denominator == 1 or abs(value) >= 10_000 else f"{float(value):g}"


def _decimal(value: Fraction, places: int) -> str:
    """Rounded to so many places, without zeros behind."""
    whole, part = divmod(abs(round(value * 10**places)), 10**places)
    digits = f"{whole}.{part:0{places}}".rstrip("0").rstrip(".")
    return digits if value >= 0 or digits == "0" else f"-{digits}"


def _tidied(text: str) -> str:
    for pattern, instead in _SPELLINGS:
        text = pattern.sub(instead, text)
    for pattern, instead in ((_ROOT, r"sqrt(\1)"), (_POWER, r"**(\1)"), (_FRACTION, r"((\1)/(\2))")) * 2:
        text = pattern.sub(instead, text)
    text = text.replace("^", "**").replace("{", "(").replace("}", ")").replace("\\", "")
    return _STOPS.sub("", _NAMED.sub("", text.lower()))


def _value(tidy: str) -> Fraction | None:
    """What it comes to, in twelve digits where it is not exact; None where it is no arithmetic."""
    if len(tidy) > _LONG or not _ARITHMETIC.fullmatch(tidy):
        return None
    try:
        exact = _POINT.sub(_as_fraction, _PRODUCT.sub("*", tidy))
        value = _worked_out(ast.parse(exact, mode="eval").body)
        near = float(value)  # which fails where there are too many digits to write
        return Fraction(f"{near:.12g}") if isinstance(value, float) else value
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _as_fraction(decimal: re.Match[str]) -> str:
    """As Python reads decimals, long ones are no longer exact."""
    before, behind = decimal[1] or "", decimal[2] or decimal[3] or ""
    return f"({int(before + behind)}/{10 ** len(behind)})"


def _worked_out(node: ast.expr) -> _Value:
    """Raises: ValueError at anything but integers, + - * / **, roots and pi; ArithmeticError."""
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return Fraction(value)
        case ast.Name(id="pi"):
            return math.pi
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_worked_out(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _worked_out(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_worked_out(left), _worked_out(right))
        case ast.Call(func=ast.Name(id="sqrt"), args=[operand], keywords=[]):
            return math.sqrt(_worked_out(operand))
        case _:
            raise ValueError(f"{type(node).__name__} is no arithmetic.")
