"""A viewer on a page, as a person has it: to turn, drag, type at, and read."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator


class ViewerPage:
    """The first viewer under a locator."""

    def __init__(self, within: "Locator") -> None:
        self.root = within.locator(".workbench-viewer.workbench-live").first
        self.root.wait_for()
        self.page = self.root.page

    def pane(self, number: int = 0) -> "Locator":
        """Return a pane."""
        return self.root.locator("figure").nth(number)

    def canvas(self, number: int = 0) -> "Locator":
        """Return a pane's picture."""
        return self.pane(number).locator("canvas[tabindex]")

    def press(self, *keys: str, pane: int = 0) -> None:
        """Press keys, the focus on a pane; wait until what they ask for is there."""
        for key in keys:
            self.canvas(pane).press(key)
            self.settle()

    def settle(self) -> None:
        """Wait until nothing that is shown is waited for."""
        self.root.locator(".workbench-waiting").last.wait_for(state="detached")

    @property
    def number(self) -> int:
        """The slice's number."""
        return int(self.root.locator(".workbench-slice").inner_text().split()[0])

    @property
    def status(self) -> str:
        """The line below the panes."""
        return self.root.get_by_role("status").inner_text()

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column under the cursor."""
        row, column = re.search(r"row (\d+), column (\d+)", self.status).groups()
        return int(row), int(column)

    def value(self, pane: int = 0) -> float:
        """Return the value under the cursor."""
        return float(self.pane(pane).locator(".workbench-readout").inner_text().split()[0])

    def window(self, pane: int = 0) -> list[float]:
        """Return the lowest and the highest value of a pane's colour bar."""
        ends = self.pane(pane).locator(".workbench-scale span").all_inner_texts()
        return [float(text.split()[0]) for text in ends]

    def drag(self, right: float, down: float, pane: int = 0) -> None:
        """Drag from a pane's middle by some pixels."""
        box = self.canvas(pane).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right / 2, y + down / 2)
        self.page.mouse.move(x + right, y + down)
        self.page.mouse.up()

    def colour(self, across: float, down: float, pane: int = 0) -> tuple[int, int, int]:
        """Return the colour at a share of a pane's width and height."""
        return tuple(
            self.canvas(pane).evaluate(
                """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
                  Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data
                ].slice(0, 3)""",
                [across, down],
            )
        )
