"""Claims as commands: each module measures one thing and returns plain numbers."""

__all__: list[str] = []
