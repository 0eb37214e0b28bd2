"""Which number a text ends up with. Knows no unit: `%`, currency and units are dropped."""

import re
from fractions import Fraction

from manyminds.canonical.prose import NOT, boxes, clause

__all__ = ["number"]

_DIGITS = 40  # longer numbers are not compared
_NUMBER = re.compile(
    r"""(?ix) (?<!\^\{) (?<![A-Za-z)][-+*/])
    (?: (?<![\w)\]}^]) (?P<minus>[-−]) [$€£¥]? | (?<![\w.^]) (?<![0-9][:/]) )
    (?: (?P<mixed>[0-9]++) \x20 (?=[0-9]+/[0-9]) )?
    (?: (?P<whole> [0-9]{1,3}(?:,[0-9]{3})++(?![0-9]) | [0-9]++ ) (?P<point>\.[0-9]++)?+
      | (?P<bare>\.[0-9]++) )
    (?: \s? / \s? (?P<under>[0-9]++) )?+
    (?: e (?P<exponent>[-+]?[0-9]{1,3}+)
      | \s? (?:×|x|\*|\\times|\\cdot) \s? 10 \s? \^ \s? \{? (?P<power>[-−]?[0-9]{1,3}+) \}? )?+
    (?: \s (?P<scale>thousand|million|billion|trillion) \b )?+
    (?! [0-9] | [.:/][0-9] | (?:st|nd|rd|th)\b )               # 1.2.3, 3:30, 9/11/2001, 5th
    (?! \s? (?: \\(?:sqrt|pi) | [√π^²³] ) | [bdeiknopqrtuxyz]\b | \( | _[0-9a-z{] )  # 3x, 2π, 10^2, 11_3
    (?! \s? [+*/] \s? (?: [a-z]\b | [a-z]+\( | [(\\] ) )       # 2 + x, 2/sin(x)
    """
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LATEX = (
    (re.compile(r"(?<=[0-9])\s*\\[dt]?frac"), r" \\frac"),
    (re.compile(r"\\[dt]?frac\{(-?[0-9]{1,40})\}\{([0-9]{1,40})\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[!,;]|\\(?:left|right|displaystyle)\b"), ""),
    (re.compile(r"\\(?=[$%])|\\[()\[\]]|\^\{?\\circ\}?"), " "),
    (re.compile(r"(?i)\b(?:equals|is equal to|equal to)\b|≈|≃|\\approx\b"), "="),
)
_SAID = re.compile(
    r"(?i)\banswer\b[*_\"']{0,3}(?: (?:to|for) [^.:\n]{0,80}?)?\s*"
    r"(?:is|are|was|would be|should be|must be|[:=])[\s*_:]*"
)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_STEP = re.compile(r"(?i)\bstep [0-9]{1,3}\b[.:]?")
_FIRST_ITEM = re.compile(r"(?m)^[ \t*_#>-]*1[.)][ \t*]")
_ITEM = re.compile(r"(?m)^[ \t*_#>-]*[0-9]{1,2}[.)](?=[ \t*]+[^\s*])")
_EITHER = re.compile(r"\b(?:or|and)\b[^=]{0,20}$")
_UNIT = re.compile(r"\s*(?:%|°)?[\s$]*(?:[A-Za-zµ€£¥][A-Za-z /²³.]*)?[\s$]*")
_START = re.compile(
    r"(?i)[\s$*_(`\"'\\:]*(?:(?:about|approximately|exactly|only|just|around) )?[\s$€£¥*_(`\"'\\:]*"
)
_MORE = re.compile(r"\s*(?:\bor\b|\bto\b|\band\b|[,;–+*/^×÷-])\s*[$€£¥]?[0-9]")
_IS = re.compile(
    r"(?i)(?:\b(?:is|are|be|makes?|gives?|totals?|yields?|leaves|costs?)|[=→:])"
    r"[\s$*_]*(?:(?:about|exactly|only) )?[$€£¥*_]*$"
)


def number(text: str) -> str | None:
    """The number that is marked as the answer, is in bold, or is said last; as an exact decimal."""
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    if boxed := [content for _, content in boxes(text)]:
        return _exact(boxed[-1])
    if hashes := _HASHES.findall(text):
        return _exact(hashes[-1])
    if said := list(_SAID.finditer(text)):
        value = _in_clause(clause(text, said[-1].end()))
        if value is not None:
            return value
    bold = {value for content in _BOLD.findall(text) if (value := _exact(content))}
    return bold.pop() if len(bold) == 1 else _said_last(text)


def _said_last(text: str) -> str | None:
    """The number of the last sentence with one, else what the last `=` gives. Questions do not count."""
    text = _STEP.sub("", text)
    if _FIRST_ITEM.search(text):
        text = _ITEM.sub("", text)
    for sentence in reversed(re.split(r"(?<=[.!?])\s+|\n+", text)):
        if _NUMBER.search(sentence) and not sentence.rstrip("*_ ").endswith("?"):
            value = _in_sentence(sentence)
            if value is not None:
                return value
            break
    before, equals, after = text.rpartition("=")
    return _in_clause(before[-80:] + equals + clause(after)) if equals else None


def _in_sentence(sentence: str) -> str | None:
    if "=" in sentence:
        return _in_clause(sentence)
    numbers = list(_NUMBER.finditer(sentence))
    if NOT.search(sentence, 0, numbers[0].start()):
        return None
    if len({_value(m) for m in numbers}) == 1:
        return _value(numbers[0])
    return _value(numbers[-1]) if _IS.search(sentence[: numbers[-1].start()]) else None


def _in_clause(text: str) -> str | None:
    """The only number after the last `=`, or the one it begins with."""
    before, _, text = text.rpartition("=")
    numbers = list(_NUMBER.finditer(text))
    if not numbers or ("=" in before and _EITHER.search(before)) or NOT.search(text, 0, numbers[0].start()):
        return None
    first = numbers[0]
    if len({_value(m) for m in numbers}) == 1:
        return _value(first)
    begins = _START.fullmatch(text, 0, first.start())
    return _value(first) if begins and not _MORE.match(text, first.end()) else None


def _exact(text: str) -> str | None:
    """A number that, with its unit, is all there is; `x = 5` is 5."""
    text = text.rpartition("=")[2].strip(" \t$€£¥*_`:()")
    text = text.removesuffix(".")
    match = _NUMBER.match(text)
    return _value(match) if match and _UNIT.fullmatch(text, match.end()) else None


def _value(match: re.Match[str]) -> str | None:
    """A matched number in canonical form; None when it is too long or divides by zero."""
    part = match.groupdict()
    if match.end() - match.start() > _DIGITS:
        return None
    value = Fraction((part["whole"] or "0").replace(",", "") + (part["point"] or part["bare"] or ""))
    if part["under"]:
        if int(part["under"]) == 0:
            return None
        value /= int(part["under"])
    value += int(part["mixed"] or 0)
    power = int((part["exponent"] or part["power"] or "0").replace("−", "-"))
    if abs(power) > _DIGITS:
        return None
    value *= Fraction(10) ** power * _SCALES.get((part["scale"] or "").lower(), 1)
    found = _decimal(-value if part["minus"] else value)
    return found if len(found) <= _DIGITS else None


def _decimal(value: Fraction) -> str:
    """`value` as the shortest exact decimal; as a reduced fraction where there is none."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > _DIGITS:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
