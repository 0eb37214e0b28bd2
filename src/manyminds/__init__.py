"""A network of neural networks: many small models, one better answer."""

__all__: list[str] = []
