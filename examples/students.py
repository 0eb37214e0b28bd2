"""Models that play a part, for own_questions.py: each knows some of the answers, more of some categories."""

import json
import random
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

__all__ = ["serve"]


def serve(rows: Sequence[Mapping[str, Any]], students: Mapping[str, Mapping[str, float]]) -> str:
    """The URL of an OpenAI-compatible server of these students, as long as this process.

    Args:
        rows: questions, with their options in A, B and C, `answer` and `category`.
        students: of each, the share of a category's answers that it knows; else it says a wrong one.
    """

    class Student(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            letter = _letter(rows, asked["model"], students[asked["model"]], json.dumps(asked["messages"]))
            usage = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
            delta = {"index": 0, "delta": {"content": letter}, "finish_reason": "stop"}
            body = f"data: {json.dumps({'choices': [delta], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Student)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


def _letter(rows: Sequence[Mapping[str, Any]], name: str, knows: Mapping[str, float], asked: str) -> str:
    """What a student says, the same whenever it is asked."""
    row = next(row for row in rows if row["question"] in asked)
    right = next(letter for letter in "ABC" if row[letter] == row["answer"])
    draw = random.Random(f"{name} {row['question']}")  # noqa: S311
    return right if draw.random() < knows[row["category"]] else draw.choice("ABC".replace(right, ""))
