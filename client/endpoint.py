"""Where the farm is and how to be let in: host, port, token, from the arguments, the environment or the state
folder."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from luna_farm import config

CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of one farm. `token` None: read anew from the state folder at each
    connection."""

    host: str
    port: int
    given_token: str | None
    state_dir: Path
    tls: ssl.SSLContext | None = None

    @classmethod
    def find(
        cls, host: str | None, port: int | None, token: str | None, tls: ssl.SSLContext | None
    ) -> Endpoint:
        """Fill in what was not given from LUNA_FARM_HOST, _PORT, _TOKEN, _STATE_DIR, the settings file, the
        defaults."""
        settings = config.load(
            {"host": None}, _client_environment(), config.find_file(os.environ, Path.cwd())
        )
        return cls(
            host=host or settings.host,
            port=port if port is not None else settings.port,
            given_token=token or settings.token or None,
            state_dir=settings.state_dir,
            tls=tls,
        )

    def token(self) -> str:
        """Return the token: a farm makes a new one at each start, so it is read for each connection."""
        if self.given_token is not None:
            return self.given_token
        try:
            return (self.state_dir / "token").read_text("utf-8").strip()
        except OSError:
            return ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _client_environment() -> dict[str, str]:
    """What of the environment concerns a client; a host beyond loopback is fine here, its settings are the
    server's."""
    names = ("LUNA_FARM_PORT", "LUNA_FARM_TOKEN", "LUNA_FARM_STATE_DIR")
    return {name: os.environ[name] for name in names if name in os.environ}
