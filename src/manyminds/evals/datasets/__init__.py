"""Public recorded sets, built from their own repositories: pinned, verified, converted to one schema.

`load` and `find` say which there are, `fetch` builds one. Reading a set is `manyminds.experts.recorded`.
"""

from manyminds.evals.datasets.sources import Dataset, Upstream, find, load
from manyminds.evals.datasets.store import Fetched, fetch, is_here

__all__ = ["Dataset", "Fetched", "Upstream", "fetch", "find", "is_here", "load"]
