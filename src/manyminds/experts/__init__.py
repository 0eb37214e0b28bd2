"""Kinds of expert. Each keeps the contract of `types.Expert`; none knows another."""

__all__: list[str] = []
