"""The smallest server that speaks OpenAI's API: its one model says what it is told. `python server.py PORT [MODEL]`"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """The two requests that a client of one model makes."""

    model = "example/echo"

    def do_GET(self) -> None:
        """The list of models."""
        self.answer({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    def do_POST(self) -> None:
        """A chat: the answer repeats the last message."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        said = asked["messages"][-1]["content"]
        self.answer(
            {
                "object": "chat.completion",
                "model": self.model,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}],
            }
        )

    def answer(self, document: dict[str, Any]) -> None:
        """Send *document* as JSON."""
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.model = sys.argv[2] if len(sys.argv) > 2 else Handler.model
    ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
