"""Where the farm is and how to be let in: host, port, token, from the arguments, the environment or the state
folder.

This module must never let a token travel in the clear beyond this machine, nor to a program of another user
that took the farm's port.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luna_farm import config, config_settings, system
from luna_farm.errors import Unauthorized
from luna_farm.recommended import with_options

CONNECT_S = 5.0
CRASHED_S = 2.0
"""How long a farm that was killed is waited for, without a service manager that is known: a program may start
it again, which takes about a second."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  replaced, not listened on
"""A farm that listens on all addresses is reached by this one from its own machine."""


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
        """Fill in what was not given from LUNA_FARM_HOST, _PORT, _TOKEN, _STATE_DIR, _TLS_CERT, the settings
        file, the defaults.

        Beyond this machine it is always TLS. `tls_cert` is the certificate to trust, without one those that
        the system trusts.
        """
        settings = config.load(
            {}, _client_environment(), config.find_file(os.environ, Path.cwd()), serving=False
        )
        host = host or settings.host
        host = ANY_ADDRESS.get(host, host)
        if tls is None and (settings.tls_cert or not config.is_loopback(host)):
            tls = ssl.create_default_context(cafile=settings.tls_cert)
        return cls(
            host=host,
            port=port if port is not None else settings.port,
            given_token=token or settings.token or None,
            state_dir=settings.state_dir,
            tls=tls,
        )

    def token(self) -> str:
        """Return the token: a farm makes a new one at each start, so it is read for each connection. That of
        the state folder is for this machine only."""
        if self.given_token is not None:
            return self.given_token
        if not config.is_loopback(self.host):
            return ""
        try:
            return (self.state_dir / "token").read_text("utf-8").strip()
        except (OSError, ValueError):  # gone, or damaged
            return ""

    def gallery(self, job_id: str) -> str:
        """Return the address of a job's images in the gallery, "" where the state folder does not tell it."""
        found = self._found()
        scheme = "https" if self.tls is not None else "http"
        name = config.in_url(self.host)
        port = found.get("feed_port")
        return f"{scheme}://{name}:{int(port)}/gallery?job={job_id}" if port else ""

    def _found(self, state_dir: str = "") -> dict[str, Any]:
        """Return what a state folder, by default that of the client, tells of the farm at this address, {} if
        that is another one."""
        try:
            found = json.loads(Path(state_dir or self.state_dir, "endpoint.json").read_text("utf-8"))
            mine = config.is_loopback(self.host) and found["port"] == self.port
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(found) if mine else {}

    def ended(self, state_dir: str = "") -> tuple[str, float]:
        """Return a sentence if the farm at this address has ended and no service manager starts it again, and
        for how many seconds to wait for it all the same; ("", 0.0) if it may be restarting, or if that is not
        known. `state_dir`: the state folder of the farm that was there, as it said; one on another machine,
        or in a container, is none of here."""
        found = self._found(state_dir)
        try:
            pid, managed, stopped = int(found["pid"]), bool(found["managed"]), bool(found.get("stopped"))
        except (ValueError, KeyError, TypeError):
            return "", 0.0
        if managed or not (stopped or not system.process_exists(pid)):
            return "", 0.0
        if stopped:
            text = f"The farm at {self} was stopped. Start it with `luna-farm start`."
            return self.command(text, state_dir), 0.0
        text = (
            f"The farm at {self} is gone: its process {pid} crashed or was killed. `luna-farm start` takes up"
            " what it had accepted; `luna-farm logs` may say why."
        )
        return self.command(text, state_dir), CRASHED_S

    def command(self, text: str, state_dir: str = "") -> str:
        """Return a message in which the commands to type act on this farm. `state_dir`: as in `ended`."""
        words: list[str] = []
        place = Path(state_dir) if state_dir else self.state_dir
        if place != config.default_state_dir():
            words += ["--state-dir", str(place)]
        if not config.is_loopback(self.host):
            words += ["--host", self.host]
        if self.port != config_settings.BY_NAME["port"].default:
            words += ["--port", str(self.port)]
        return with_options(text, words)

    def refused(self, error: Unauthorized) -> Unauthorized:
        """Return the farm's refusal of a token, with the place that the token came from."""
        if not error.wrong_token:
            return error
        if self.given_token is not None:
            return Unauthorized(
                f"The farm at {self} does not accept the token that was given (LUNA_FARM_TOKEN)."
            )
        has = (
            f"the token of {self.state_dir}"
            if self.token()
            else f"this program: {self.state_dir} has no token"
        )
        return Unauthorized(
            f"The farm at {self} does not accept {has}. It uses another state folder: name that one with"
            " --state-dir or LUNA_FARM_STATE_DIR."
        )

    def check_owner(self, sock: socket.socket) -> None:
        """Raise Unauthorized when the system says that another user listens where our farm should: token,
        images and prompts are not for him.

        Not with TLS, which proves who it is, nor with a token that was given: that may be for a shared farm.
        """
        if self.tls is not None or self.given_token is not None or not hasattr(os, "getuid"):
            return
        uid = system.listener_uid(sock)
        if uid is not None and uid not in (os.getuid(), 0):
            raise Unauthorized(
                f"{self} belongs to user {uid} of this machine, not to you. Start your own farm on another"
                " port (luna-farm start --port), or give the token of a shared farm (LUNA_FARM_TOKEN)."
            )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def why_not(endpoint: Endpoint, error: Exception) -> str:
    """Return the sentence for a connection that could not be made."""
    if isinstance(error, ssl.SSLError):
        return (
            f"The farm at {endpoint} is not trusted ({error}). Name its certificate in LUNA_FARM_TLS_CERT or"
            " pass tls=; the certificate must be for the host name that is used."
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return f"There is no host {endpoint.host} ({reason}). Check the name: --host or LUNA_FARM_HOST."
    if not config.is_loopback(endpoint.host):
        return (
            f"No farm at {endpoint} ({reason}). Start one on that machine, or name another: --host, --port."
        )
    return endpoint.command(f"No farm at {endpoint} ({reason}). Start one with `luna-farm start`.")


def _client_environment() -> dict[str, str]:
    """What of the environment concerns a client; a host beyond loopback is fine here, its settings are the
    server's."""
    names = ("HOST", "PORT", "TOKEN", "STATE_DIR", "TLS_CERT")
    return {
        name: os.environ[name]
        for name in (config_settings.ENV_PREFIX + name for name in names)
        if name in os.environ
    }
