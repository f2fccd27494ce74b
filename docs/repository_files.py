"""Hook of mkdocs: the site also holds the pages of the repository's top folder.

They stay where GitHub and people look for them, and their links fit there. Here the README is the
site's first page, and links lose the way up or down between the two folders.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
OTHERS = ("CITATION.cff", "LICENSE", "Makefile")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the top folder to those of docs/."""
    for name in PAGES:
        text = re.sub(r"(?<=\]\()docs/", "", (TOP / name).read_text())
        files.append(File.generated(config, _in_site(name), content=text))
    for name in OTHERS:
        files.append(File.generated(config, name, abs_src_path=str(TOP / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to files of the top folder to where they are in the site."""
    names = "|".join(map(re.escape, PAGES + OTHERS))
    return re.sub(
        rf"(?<=\]\()(?:\.\./)?({names})(?=[)#])", lambda found: _in_site(found[1]), markdown
    )


def _in_site(name: str) -> str:
    return "index.md" if name == "README.md" else name
