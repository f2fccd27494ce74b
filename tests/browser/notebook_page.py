"""A notebook in a browser's tab, as a person has it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import nbformat

from tests.programs import find_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

    from tests.browser.jupyterlab import JupyterLab

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_MINUTE = 60_000
_IDLE = "| Idle"
_WAITING = ".jp-Notebook .jp-InputPrompt:text-is('[*]:')"
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def find_chromium() -> str:
    """Return the path of the system's Chromium.

    Raises:
        FileNotFoundError: there is none; the message is the command that installs it.
    """
    return find_program("chromium", *CHROMIUM)


class NotebookPage:
    """A notebook that is open in JupyterLab, in a tab and with a kernel of its own.

    Attributes:
        page: Playwright's page, for whatever is not offered here.
        path: the notebook's file.
        complaints: errors that the page wrote to its console or did not catch, and addresses
            outside this machine that it asked for.
    """

    def __init__(
        self, lab: "JupyterLab", browser: "Browser", path: Path, *, dark: bool = False
    ) -> None:
        self.lab, self.path = lab, path
        self.complaints: list[str] = []
        self._context = browser.new_context(viewport={"width": 1400, "height": 1000})
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(_MINUTE)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("request", self._asked)
        self._open()
        if dark:
            self.theme("JupyterLab Dark")

    def _open(self) -> None:
        self.page.goto(self.lab.address(self.path))
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.wait_until_idle()

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until the kernel is connected, no cell waits, and nothing runs."""
        idle = self.page.locator("#jp-main-statusbar").get_by_text(_IDLE)
        idle.wait_for(timeout=1000 * seconds)
        self.page.locator(_WAITING).last.wait_for(state="detached", timeout=1000 * seconds)
        idle.wait_for(timeout=1000 * seconds)

    def run_all(self, seconds: float = 120) -> None:
        """Run all cells from the menu and wait for the last.

        Raises:
            AssertionError: a cell failed; with its traceback.
        """
        self.start_all()
        self.wait_until_idle(seconds)
        for cell in self.content()["cells"]:
            for output in cell.get("outputs", ()):
                if output["output_type"] == "error":
                    raise AssertionError(_COLOURS.sub("", "\n".join(output["traceback"])))

    def start_all(self) -> None:
        """Choose "Run All Cells" from the menu, and wait until the first cell is on its way."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        started = re.compile(r"^\[(\*|\d+)\]:$")
        self.page.locator(".jp-CodeCell .jp-InputPrompt", has_text=started).first.wait_for()

    def cell(self, source: str) -> "Locator":
        """Return the code cell whose source holds a text."""
        return self.page.locator(".jp-CodeCell").filter(
            has=self.page.locator(".jp-InputArea-editor", has_text=source)
        )

    def output(self, source: str) -> "Locator":
        """Return the output of the code cell whose source holds a text."""
        return self.cell(source).locator(".jp-OutputArea-output")

    def content(self) -> Any:
        """Return the notebook as the page holds it, saved or not, in nbformat's JSON."""
        return self.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON()")

    def save(self) -> Any:
        """Save the notebook; return what its file then holds."""
        self.command("docmanager:save")
        return nbformat.read(self.path, as_version=4)

    def reopen(self, *, fresh_kernel: bool = False) -> None:
        """Close the saved notebook's tab and open it again, as on another day.

        Args:
            fresh_kernel: whether the old kernel has ended meanwhile.
        """
        self.page.goto("about:blank")
        if fresh_kernel:
            self.lab.end_kernels()
        self._open()

    def theme(self, name: str) -> None:
        """Change the theme: "JupyterLab Light" or "JupyterLab Dark"."""
        self.command("apputils:change-theme", {"theme": name})
        light = str("Light" in name).lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def command(self, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Run one of JupyterLab's commands and wait for its end."""
        self.page.evaluate(
            "async ([name, given]) => { await window.jupyterapp.commands.execute(name, given); }",
            [name, dict(arguments or {})],
        )

    def close(self) -> None:
        """Close the tab and end the kernels."""
        self._context.close()
        self.lab.end_kernels()

    def _heard(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            place = message.location.get("url", "")
            self.complaints.append(f"{message.text} ({place.partition('?')[0]})")

    def _asked(self, request: "Request") -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
            self.complaints.append(f"asked for {request.url}")
