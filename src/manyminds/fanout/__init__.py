"""Asking experts: a panel at once, or one alone. Knows no wire format and no combiner."""

from manyminds.fanout.calls import Fanout
from manyminds.fanout.patience import Patience
from manyminds.fanout.single import Single

__all__ = ["Fanout", "Patience", "Single"]
