"""A mailer that delivers nothing: what is sent stays in its outbox."""

from __future__ import annotations

from callgate.demo.servers.protocol import DemoTool, Offer


class Mailer:
    def __init__(self) -> None:
        self._sent: list[dict[str, str]] = []

    def offer(self) -> Offer:
        tools = [
            DemoTool("send", "Send a mail.", {"to": str, "text": str}, self.send),
            DemoTool("outbox", "What was sent.", {}, self.outbox, reads=True),
        ]
        return Offer("mailer", tools, modern=True)

    def send(self, to: str, text: str) -> dict[str, str]:
        self._sent.append({"to": to, "text": text})
        return {"sent": to}

    def outbox(self) -> dict[str, list[dict[str, str]]]:
        return {"mails": self._sent}
