"""What an expert says in a choice of a chat completion, or in a piece of one, for formats that rewrite it."""

import msgspec

__all__ = ["Function", "Said", "ToolCall"]


class Function(msgspec.Struct):
    """Of a tool call: arguments come as text, which may be cut anywhere."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """A message, or the delta of an event."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        return (self.content or "") + (self.refusal or "")
