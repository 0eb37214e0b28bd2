"""The edge: HTTP in, types inside."""

__all__: list[str] = []
