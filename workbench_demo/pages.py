"""The demo's executed notebooks: rendered to HTML, and read for their pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A picture of an executed notebook.

    Attributes:
        heading: the Markdown heading that it stands under.
        png: the image, base64.
    """

    heading: str
    png: str


def render(executed: Path) -> Path:
    """Render an executed notebook beside it as a page of HTML that needs nothing from outside."""
    page = executed.with_suffix(".html")
    if page.exists() and page.stat().st_mtime_ns > executed.stat().st_mtime_ns:
        return page
    from nbconvert import HTMLExporter

    # Empty addresses: MathJax and the like would come from a server.
    exporter = HTMLExporter(
        mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", embed_images=True
    )
    html, _ = exporter.from_filename(str(executed))
    partial = page.with_name(f".{page.name}.partial")
    partial.write_text(html, encoding="utf-8")
    return partial.replace(page)


def pictures(executed: Path) -> Iterator[Picture]:
    """Yield the pictures of an executed notebook, each with its heading."""
    import nbformat

    heading = ""
    for cell in nbformat.read(executed, as_version=4).cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = lines[-1].lstrip("# ") if lines else heading
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                yield Picture(heading, png.replace("\n", ""))
