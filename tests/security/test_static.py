"""What bandit's rules let pass stands with its reason; what must not occur at all does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("luna_farm", "client", "comfy_nodes", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
EXCEPTION = re.compile(r"#\s*noqa:\s*S\d+(?:,\s*\w+)*(?P<reason>.*)$")


def test_every_exception_from_bandits_rules_has_its_reason() -> None:
    """On the line behind it, or in a comment or docstring that stands directly above or below."""
    without = []
    for path in SOURCES:
        lines = path.read_text("utf-8").splitlines()
        for at, line in enumerate(lines):
            found = EXCEPTION.search(line)
            around = [*lines[max(0, at - 3) : at], *lines[at + 1 : at + 2]]
            explained = any(other.lstrip().startswith(("#", '"""')) for other in around)
            if found and len(found["reason"].strip(" -")) < 10 and not explained:
                without.append(f"{path.relative_to(ROOT)}:{at + 1}: {line.strip()}")
    assert without == []


FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "telnetlib", "ftplib", "xmlrpc"}
ALLOWED = {"luna_farm/storage/sinks/ftp.py": {"ftplib"}}
"""FTP in the clear is what an ftp:// destination asks for, and only there."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_unpickles_or_evaluates(path: Path) -> None:
    forbidden = FORBIDDEN - ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & forbidden
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in forbidden
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            assert name not in ("eval", "exec", "__import__", "input")
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                assert (keyword.arg, value) not in (
                    ("shell", True),
                    ("allow_pickle", True),
                    ("verify", False),
                )
