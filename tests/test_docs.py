"""The docs hold: links lead somewhere, quoted messages and commands exist, the site builds."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in TOP)])


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(page.read_text()))
    missing = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    assert missing == []


def test_the_site_builds_without_a_warning_and_asks_no_other_server(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = r'<(?:script|img|iframe)[^>]*src="?(https?:[^" >]+)|<link[^>]*href="?(https?:[^" >]+)'
    for page in tmp_path.rglob("*.html"):
        assert re.findall(loaded, page.read_text()) == [], page.name


def text_of(node):
    """Return the text of a string in the code, with an ellipsis for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def said_in_the_code():
    modules = [ast.parse(path.read_text()) for path in (ROOT / "workbench").rglob("*.py")]
    return [
        (ROOT / "Makefile").read_text(),
        *(text_of(node) for module in modules for node in ast.walk(module)),
    ]


def test_every_message_that_troubleshooting_quotes_is_one_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    tables = re.findall(r"^\| message \|.*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    quoted = [
        match[2]
        for table in tables
        for match in re.finditer(r"^\| (`+)(.*?)\1(?= \|)", table, re.MULTILINE)
    ]
    rows = sum(table.count("\n") for table in tables)
    assert len(quoted) == rows > 50
    texts = said_in_the_code()
    patterns = {
        message: ".*".join(re.escape(part) for part in message.split("…")) for message in quoted
    }
    gone = [
        message
        for message, pattern in patterns.items()
        if not any(re.search(pattern, text) for text in texts)
    ]
    assert gone == []
