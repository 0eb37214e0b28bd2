"""Kinds of combiner. Each keeps the contract of `types.Combiner`; none knows another."""

__all__: list[str] = []
