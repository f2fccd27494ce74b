"""Data Factory's expressions, as much of them as copying needs."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.faults import ServiceError

_EXPRESSION = re.compile(r"(dataset|pipeline)\(\)((?:\.\w+)+)")


@dataclass(frozen=True)
class Scope:
    """What an expression can name.

    Attributes:
        parameters: values of the pipeline's parameters.
        dataset: values of the dataset's parameters.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)


def evaluate(value: Any, scope: Scope) -> Any:
    """Return a JSON value with all expressions and secure strings in it replaced by what they are.

    Raises:
        ServiceError: 400, where an expression names what does not exist or is not understood.
    """
    if isinstance(value, dict):
        if value.get("type") in ("Expression", "SecureString") and "value" in value:
            return evaluate(value["value"], scope)
        return {key: evaluate(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [evaluate(item, scope) for item in value]
    if not isinstance(value, str):
        return value
    if "@{" in value:
        return re.sub(r"@\{([^}]*)\}", lambda m: str(_value(m[1], scope)), value)
    return _value(value[1:], scope) if value.startswith("@") else value


def _value(text: str, scope: Scope) -> Any:
    found = _EXPRESSION.fullmatch(text.strip())
    if found is None:
        raise _wrong(text, "it is not emulated")
    value: Any = scope.dataset if found[1] == "dataset" else {"parameters": scope.parameters}
    for key in found[2][1:].split("."):
        if not isinstance(value, dict) or key not in value:
            raise _wrong(text, f"there is no {key!r}")
        value = value[key]
    return value


def _wrong(text: str, why: str) -> ServiceError:
    message = f"Unable to process expression '@{text}': {why}."
    return ServiceError(400, "InvalidTemplate", message)
