"""Answers of mathematics as canonical text: a value where it can be worked out, else the formula, tidied.

Formulas come from models, so they are parsed and worked out here, never evaluated by Python.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["formula", "number"]

_NUMBER: Final = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:/(\d+(?:\.\d+)?))?")
_LONG: Final = 300
"""Characters beyond which a text is no formula."""

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
_BOX: Final = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_FRACTION: Final = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
_ROOT: Final = re.compile(r"\\sqrt\{([^{}]*)\}")
_POWER: Final = re.compile(r"\^\{([^{}]*)\}")
_ARITHMETIC: Final = re.compile(r"(?:[\d.+\-*/()]|sqrt|pi)+")
_PRODUCT: Final = re.compile(r"(?<=[\d)])(?=\(|sqrt|pi)|(?<=\))(?=\d)")
_NAMED: Final = re.compile(r"^[a-z](?:\([a-z]\))?=")

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = MappingProxyType(
    {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
        ast.Pow: lambda a, b: math.pow(a, b),
    }
)


def number(text: str) -> str | None:
    """The first number of a text, a fraction by its value; None where there is none."""
    found = _NUMBER.search(re.sub(r"[\s$,]", "", text))
    if found is None:
        return None
    top, _, bottom = found[0].partition("/")
    value = float(top)
    if bottom and float(bottom):
        value /= float(bottom)
    if not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else f"{value:.4f}".rstrip("0").rstrip(".")


def formula(text: str) -> str | None:
    """Six digits of the value, else the formula without spaces and LaTeX; None where nothing is left."""
    boxed = _BOX.findall(text)
    tidy = _tidied(boxed[-1] if boxed else text)
    if not tidy:
        return None
    value = _value(tidy)
    return tidy if value is None else f"{value:g}"


def _tidied(text: str) -> str:
    for pattern, instead in _SPELLINGS:
        text = pattern.sub(instead, text)
    for pattern, instead in ((_ROOT, r"sqrt(\1)"), (_POWER, r"**(\1)"), (_FRACTION, r"((\1)/(\2))")) * 2:
        text = pattern.sub(instead, text)
    text = text.replace("^", "**").replace("{", "(").replace("}", ")").replace("\\", "")
    return _NAMED.sub("", text.lower()).strip(".")


def _value(tidy: str) -> float | None:
    """What it comes to; None where it is no arithmetic."""
    if len(tidy) > _LONG or not _ARITHMETIC.fullmatch(tidy):
        return None
    try:
        value = _worked_out(ast.parse(_PRODUCT.sub("*", tidy), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _worked_out(node: ast.expr) -> float:
    """Raises: ValueError at anything but numbers, + - * / **, roots and pi; ArithmeticError."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
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
