"""Tables as notebooks and reports show them: one function, in which no name can become markup."""

from collections.abc import Callable, Mapping
from html import escape
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame
    from pandas.io.formats.style import Styler

_WRAPPED = [
    {
        "selector": "th, td",
        "props": "white-space: normal; overflow-wrap: break-word; max-width: 40em",
    }
]
# MathJax, which typesets "$" in HTML, leaves elements of these classes alone.
AS_TEXT = 'class="tex2jax_ignore mathjax_ignore"'


def styled_table(
    frame: "DataFrame",
    formats: Mapping[Any, str | Callable[[Any], str]] | None = None,
    *,
    index: bool = True,
    left: bool = False,
) -> "Styler":
    """Return a table to display, or to write with ``to_html``; every text in it is escaped.

    File names, acquisitions, run names and attributes come from outside: cells, headers and index
    show them as they are, never as HTML or as a formula, and whole: long ones wrap. ``formats`` are
    of columns' numbers, such as ``{:.4f}``; ``left`` aligns cells as texts are, not as numbers.
    """
    style = frame.map(_plain).style.format(formats, escape="html")
    for axis in ("index", "columns"):
        style = style.format_index(_escaped, axis=axis).format_index_names(_escaped, axis=axis)
    style = style if index else style.hide(axis="index")
    style = style.set_properties(**{"text-align": "left"}) if left else style
    return style.set_table_styles(_WRAPPED).set_table_attributes(AS_TEXT)


def _escaped(value: Any) -> str:
    return escape(str(value))


def _plain(value: Any) -> Any:
    """Return what pandas escapes: a text in place of lists, bytes, paths and the like."""
    return value if value is None or isinstance(value, str | Number) else str(value)
