"""Several processes that serve one address together, and the one that looks after them."""

__all__: list[str] = []
