"""Forms for JupyterLab. Nothing here is used where nobody sits at the notebook."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.settings import Secret

if TYPE_CHECKING:
    import ipywidgets

Plan = TypeVar("Plan")


def links_form(
    show: Callable[[Secret], Plan],
    go: Callable[[Plan], Any],
    read: Callable[[bytes], str],
    *,
    text: Secret | None = None,
    connect: Callable[[Secret], str] | None = None,
) -> "ipywidgets.VBox":
    """Make a form that takes the email's text, shows the plan, and starts at a button.

    What is typed or uploaded leaves its field at once: a widget's value is saved with the notebook.

    Args:
        show: shows what there is to do for the text, and returns it.
        go: does it.
        read: decodes an uploaded file.
        text: the email's text, where it is known already.
        connect: takes a storage account's connection string and returns what to show of it; with
            it the form has a field for that, which comes first.
    """
    import ipywidgets

    field = secret_field("paste the whole email here, then press Enter")
    upload = ipywidgets.FileUpload(description="or a file with it", multiple=False)
    button = ipywidgets.Button(description="Ingest", button_style="primary", disabled=True)
    output = ipywidgets.Output()
    plans: list[Plan] = []
    texts = [text] if text else []
    waits = [connect] if connect else []

    def take(text: Secret) -> None:
        texts[:] = [text]
        plans.clear()
        button.disabled = True
        output.clear_output()
        if waits:
            return
        with output:
            plans.append(show(text))
        button.disabled = not plans

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

    on_secret(field, take)
    upload.observe(uploaded, "value")
    button.on_click(start)
    rows = [ipywidgets.HBox([field, upload, button]), output]
    if connect is None:
        return ipywidgets.VBox(rows)
    account = secret_field("the storage account's connection string, then press Enter")
    label = ipywidgets.Label()

    def connected(connection: Secret) -> None:
        with output:
            label.value = connect(connection)
            waits.clear()
            if texts:
                take(texts[0])

    on_secret(account, connected)
    return ipywidgets.VBox([ipywidgets.HBox([account, label]), *rows])


def connection_form(connect: Callable[[Secret], str], go: Callable[[], Any]) -> "ipywidgets.VBox":
    """Make a form that takes a storage account's connection string and then goes on.

    Args:
        connect: takes it and returns what to show of it.
        go: what follows.
    """
    import ipywidgets

    account = secret_field("the storage account's connection string, then press Enter")
    label, output = ipywidgets.Label(), ipywidgets.Output()

    def connected(connection: Secret) -> None:
        output.clear_output()
        with output:
            label.value = connect(connection)
            go()

    on_secret(account, connected)
    return ipywidgets.VBox([ipywidgets.HBox([account, label]), output])


def secret_field(placeholder: str) -> "ipywidgets.Password":
    """Make a field for a secret; see ``on_secret``."""
    import ipywidgets

    return ipywidgets.Password(
        placeholder=placeholder,
        continuous_update=False,
        layout=ipywidgets.Layout(width="32em"),
    )


def on_secret(field: "ipywidgets.Password", take: Callable[[Secret], Any]) -> None:
    """Hand on what is typed into a field, after it has left the field."""

    def typed(change: dict[str, Any]) -> None:
        if change["new"]:
            secret = Secret(change["new"])
            field.value = ""
            take(secret)

    field.observe(typed, "value")
