"""Private answers: who is polled, what each pays, and the one thing that is told. See docs/privacy.md."""

from manyminds.private.asking import Asking, Bank, Spend
from manyminds.private.poll import PRIVATE, Account, Poll, poll

__all__ = ["PRIVATE", "Account", "Asking", "Bank", "Poll", "Spend", "poll"]
