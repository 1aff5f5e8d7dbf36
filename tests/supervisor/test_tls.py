"""Certificates that cannot be used are told by the names of setting and file, not by a code of OpenSSL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from luna_farm.errors import ConfigError
from luna_farm.supervisor.tls import server_context


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("cert", "key", "other key", "junk", "nothing", "folder")}
    paths["folder"].mkdir()
    paths["junk"].write_text("no PEM")
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(paths["cert"])
    issued.private_key_pem.write_to_path(paths["key"])
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(paths["other key"])
    return paths


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        ("nothing", "key", "tls_cert: {cert} cannot be read: No such file or directory."),
        ("cert", "folder", "tls_key: {key} cannot be read: "),
        (
            "cert",
            "other key",
            "certificate {cert} with the key {key} cannot be used: the key is that of another",
        ),
        ("cert", "junk", "certificate {cert} with the key {key} cannot be used: both must be PEM"),
        ("junk", "key", "certificate {cert} with the key {key} cannot be used: both must be PEM"),
    ],
)
def test_what_is_wrong_with_which_file_is_told(
    cert: str, key: str, told: str, files: dict[str, Path]
) -> None:
    assert server_context(files["cert"], files["key"]) is not None
    text = told.format(cert=files[cert], key=files[key])
    with pytest.raises(ConfigError, match=re.escape(text)):
        server_context(files[cert], files[key])
