#!/usr/bin/env python3
"""Build the documentation site: python3 scripts/docs.py [FOLDER]

Writes to build/site unless FOLDER is given; `--check` builds into a folder that is removed afterwards. Any
warning fails the build: a link or an anchor that leads nowhere, a page without a place in the navigation, a
name that the reference does not find. Needs no network. MkDocs loads this file as a hook, too: pages that lie
in the root of the repository become part of the site, and links to its other files lead to GitHub. The
page on the command line is made from the help of every command.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages of the site that lie in the root, where GitHub and readers of the code look for them."""
BLOB = "https://github.com/luna-farm/luna-farm/blob/main/"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """MkDocs hook: add the pages of the root."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """MkDocs hook: turn links between files of the repository into links of the site, or to GitHub."""
    at = page.file.src_uri
    folder = ROOT if at in ROOT_PAGES else (ROOT / "docs" / at).parent

    def replaced(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[1]))
        if not target.exists():
            return link[0]  # MkDocs warns of it, and a warning fails the build
        name = target.relative_to(ROOT).as_posix()
        if name not in ROOT_PAGES and not (name.startswith("docs/") and target.is_file()):
            return BLOB + name + (link[2] or "")
        return os.path.relpath(name.removeprefix("docs/"), os.path.dirname(at) or ".") + (link[2] or "")

    if at == "reference/cli.md":
        markdown += commands()
    return _LINK.sub(replaced, markdown)


def commands() -> str:
    """Return the help of every command as Markdown."""
    from luna_farm.cli import entry

    os.environ.update(COLUMNS="100", NO_COLOR="1", PYTHON_COLORS="0")
    text = ""
    for command in entry.COMMANDS:
        (choices,) = (each.choices for each in entry.parser_for([command])._actions if each.choices)
        assert isinstance(choices, dict)
        text += f"\n## luna-farm {command}\n\n```text\n{choices[command].format_help().rstrip()}\n```\n"
    return text


def build(folder: Path) -> int:
    """Build the site into `folder`. Returns the exit code."""
    # Not --quiet: it hides warnings from --strict as well.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environ = {**os.environ, "DISABLE_MKDOCS_2_WARNING": "true", "NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode


def main() -> int:
    """Build or check. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--check", action="store_true", help="keep nothing")
    given = parser.parse_args()
    if given.check:
        with tempfile.TemporaryDirectory(prefix="luna-docs-") as folder:
            return build(Path(folder))
    code = build(given.folder.resolve())
    if code == 0:
        print(f"The site is in {given.folder}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
