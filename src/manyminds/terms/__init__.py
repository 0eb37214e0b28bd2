"""What sources and callers want of each other for one answer, and what they agreed."""

from manyminds.terms.owners import allows, forbidden, granted
from manyminds.terms.pact import Pact, agree
from manyminds.terms.wishes import check_named, requiring

__all__ = ["Pact", "agree", "allows", "check_named", "forbidden", "granted", "requiring"]
