"""Runs the code blocks of one page in order, in one folder and one Python: python page_runner.py PAGE

`bash` blocks run in a shell that stops at the first error, `python` blocks share their names. `text` is not
run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str, str]]:
    """Return (line, language, code) of each block."""
    return [(text.count("\n", 0, found.start()) + 2, found[2], found[3]) for found in BLOCK.finditer(text)]


def main() -> None:
    """Run the page."""
    page = Path(sys.argv[1])
    names = {"__name__": "__main__"}
    for line, language, code in blocks(page.read_text(encoding="utf-8")):
        print(f"--- {page.name}:{line} ({language})", flush=True)
        if language == "python":
            # The line numbers of an error are those of the page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
        elif language == "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
        elif language != "text":
            sys.exit(f"{page.name}:{line}: a block of {language!r}; use bash, python or text.")


if __name__ == "__main__":
    main()
