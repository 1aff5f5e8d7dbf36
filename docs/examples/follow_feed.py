"""Follow a running farm: print what it saves, go on without a hole after a break, and retry what failed.

    python docs/examples/follow_feed.py            # watch
    python docs/examples/follow_feed.py --retry    # and retry every failed job, with the farm's token

Needs only the websockets package. The messages are described in docs/feed.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


class Follower:
    """Remembers how far it has read, across connections and across starts of the farm."""

    def __init__(self, url: str, token: str, retry: bool) -> None:
        self.url = url
        self.token = token
        self.retry = retry
        self.epoch = ""
        self.seq: int | None = None  # None: begin with what comes now

    async def run(self) -> None:
        """Follow until interrupted; a farm that stops is waited for."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        while True:
            query = "" if self.seq is None else f"?after={self.seq}&epoch={self.epoch}"
            try:
                async with connect(f"{self.url}/{query}", additional_headers=headers, max_size=2**24) as feed:
                    async for text in feed:
                        await self.hear(feed, json.loads(text))
            except InvalidStatus as refused:
                raise SystemExit(f"Refused: {refused.response.body.decode().strip()}") from None
            except (OSError, ConnectionClosed):
                pass
            print("The farm is away; trying again in a second.")
            await asyncio.sleep(1)

    async def hear(self, feed: ClientConnection, message: dict[str, Any]) -> None:
        """Take one message: a status, an event, or the answer to what was asked."""
        kind = message.get("type")
        if kind == "status":
            if message["epoch"] != self.epoch:  # another start of the farm counts its events anew
                self.epoch, self.seq = message["epoch"], message["seq"] if self.seq is None else 0
        elif kind == "resumed" and not message["complete"]:
            print(f"Some events before number {message['first']} are no longer held.")
        elif kind in ("answer", "error"):
            print("  ->", message.get("error") or "queued again")
        elif "event" in message and message["seq"] > (self.seq or 0):
            self.seq = message["seq"]
            self.tell(message)
            if self.retry and message["event"] == "image_failed":
                action = {"type": "action", "name": "retry", "job_id": message["job_id"], "token": self.token}
                await feed.send(json.dumps(action))

    def tell(self, event: dict[str, Any]) -> None:
        """Print one line for what a person may want to know."""
        if event["event"] == "image_saved":
            size, ms = event["bytes"] / 1e6, event["ms"]
            print(f"{event['job_id']}  saved {event['path']}  {size:.1f} MB in {ms:.0f} ms")
        elif event["event"] in ("image_failed", "job_lost", "folder_failing"):
            print(f"{event['job_id']}  {event['event']}: {event['error']}")


def main() -> None:
    """Read the command line and follow."""
    parser = argparse.ArgumentParser(description="Follow a running farm.")
    parser.add_argument("--url", default="ws://127.0.0.1:19284")
    parser.add_argument("--retry", action="store_true", help="retry failed jobs; needs LUNA_FARM_TOKEN")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Follower(given.url, os.environ.get("LUNA_FARM_TOKEN", ""), given.retry).run())


if __name__ == "__main__":
    main()
