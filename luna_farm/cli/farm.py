"""Where the farm is that a command speaks to, and the client for it. It must never start one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from luna_farm.config import Config
from luna_farm.config_settings import BY_NAME
from luna_farm.errors import FarmUnavailable, Unauthorized

if TYPE_CHECKING:
    from luna_farm_client import FarmClient


def place(config: Config) -> tuple[str, int]:
    """Return host and port: those that were set, also to what the default is, else those where the farm of
    the state folder listens."""
    from luna_farm.supervisor.state_dir import read_endpoint

    if "port" in config.given and config.port:
        return config.host, config.port
    endpoint = read_endpoint(config.state_dir)
    if "host" in config.given and endpoint.get("host") != config.host:
        return config.host, config.port
    return str(endpoint.get("host", config.host)), int(endpoint.get("port", config.port))


def connect(config: Config, timeout_s: float = 30.0) -> FarmClient:
    """Return a client of a farm that answers. Raises Unauthorized, FarmUnavailable."""
    from luna_farm.supervisor.state_dir import unreadable
    from luna_farm_client import FarmClient

    # Where the client finds the token, and finds it again when the farm was restarted.
    os.environ[BY_NAME["state_dir"].env] = str(config.state_dir)
    host, port = place(config)
    if config.tls_cert:
        os.environ[BY_NAME["tls_cert"].env] = str(config.tls_cert)
    client = FarmClient(host, port, config.token or None, timeout_s)
    try:
        client.ping()
    except BaseException as error:
        client.close()
        why = unreadable(config.state_dir) if isinstance(error, FarmUnavailable | Unauthorized) else ""
        if why:
            raise type(error)(f"{error} {why}") from error
        raise
    return client
