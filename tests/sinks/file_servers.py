"""Runs one file server: `file_servers.py sftp|ftp|webdav PORT FOLDER`. User luna, password luna-password."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

USER, PASSWORD = "luna", "luna-password"


def sftp(port: int, root: Path) -> None:
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    (root.parent / "host_key.pub").write_bytes(key.export_public_key())

    class Login(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    async def serve() -> None:
        await asyncssh.listen(
            "127.0.0.1",
            port,
            server_host_keys=[key],
            server_factory=Login,
            sftp_factory=lambda chan: asyncssh.SFTPServer(chan, chroot=str(root)),
        )
        await asyncio.Event().wait()

    asyncio.run(serve())


def ftp(port: int, root: Path) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    class Handler(FTPHandler):
        authorizer = DummyAuthorizer()
        auth_failed_timeout = 0.1

    Handler.authorizer.add_user(USER, PASSWORD, str(root), perm="elradfmwMT")
    FTPServer(("127.0.0.1", port), Handler).serve_forever()


def webdav(port: int, root: Path) -> None:
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(root)},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    wsgi.Server(("127.0.0.1", port), app, numthreads=10).start()


if __name__ == "__main__":
    {"sftp": sftp, "ftp": ftp, "webdav": webdav}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
