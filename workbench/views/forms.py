"""Forms for JupyterLab. Nothing here is used where nobody sits at the notebook."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.settings import Secret

if TYPE_CHECKING:
    import ipywidgets

Plan = TypeVar("Plan")


def links_form(
    show: Callable[[Secret], Plan], go: Callable[[Plan], Any], read: Callable[[bytes], str]
) -> "ipywidgets.VBox":
    """Make a form that takes the email's text, shows the plan, and starts at a button.

    What is typed or uploaded leaves its field at once: a widget's value is saved with the notebook.

    Args:
        show: shows what there is to do for the text, and returns it.
        go: does it.
        read: decodes an uploaded file.
    """
    import ipywidgets

    field = ipywidgets.Password(
        placeholder="paste the whole email here, then press Enter",
        continuous_update=False,
        layout=ipywidgets.Layout(width="32em"),
    )
    upload = ipywidgets.FileUpload(description="or a file with it", multiple=False)
    button = ipywidgets.Button(description="Ingest", button_style="primary", disabled=True)
    output = ipywidgets.Output()
    plans: list[Plan] = []

    def take(text: Secret) -> None:
        plans.clear()
        button.disabled = True
        output.clear_output()
        with output:
            plans.append(show(text))
        button.disabled = not plans

    def pasted(change: dict[str, Any]) -> None:
        if change["new"]:
            text = Secret(change["new"])
            field.value = ""
            take(text)

    def uploaded(change: dict[str, Any]) -> None:
        if change["new"]:
            text = Secret(read(bytes(change["new"][0]["content"])))
            upload.value = ()
            take(text)

    def start(_: object) -> None:
        button.disabled = True
        with output:
            go(plans[0])
        button.disabled = False

    field.observe(pasted, "value")
    upload.observe(uploaded, "value")
    button.on_click(start)
    return ipywidgets.VBox([ipywidgets.HBox([field, upload, button]), output])
