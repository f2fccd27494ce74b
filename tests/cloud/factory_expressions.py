"""Data Factory's expressions, as much of them as copying needs."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.faults import ServiceError

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|([A-Za-z_]\w*)|(-?\d+)|([().,]))")


@dataclass(frozen=True)
class Scope:
    """What an expression can name.

    Attributes:
        parameters: values of the pipeline's parameters.
        dataset: values of the dataset's parameters.
        pipeline: ``RunId``, ``Pipeline`` and the like.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    pipeline: dict[str, Any] = field(default_factory=dict)


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
    if value.startswith("@@"):
        return value[1:]
    if value.startswith("@{") or "@{" in value:
        return re.sub(r"@\{([^}]*)\}", lambda m: str(_Reader(m[1], scope).whole()), value)
    if value.startswith("@"):
        return _Reader(value[1:], scope).whole()
    return value


class _Reader:
    """A recursive-descent reader of one expression."""

    def __init__(self, text: str, scope: Scope) -> None:
        self._text, self._scope, self._at = text, scope, 0

    def whole(self) -> Any:
        value = self._value()
        if self._text[self._at :].strip():
            raise self._wrong("unexpected text after it")
        return value

    def _value(self) -> Any:
        match = self._next()
        if match[1] is not None:
            return match[1].replace("''", "'")
        if match[3]:
            return int(match[3])
        if not match[2]:
            raise self._wrong(f"unexpected {match[4]!r}")
        name = match[2]
        if not self._take("("):
            raise self._wrong(f"{name!r} is no function")
        arguments = []
        while not self._take(")"):
            arguments.append(self._value())
            self._take(",")
        return self._call(name, arguments)

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name == "concat":
            return "".join(map(str, arguments))
        if name == "pipeline":
            value: Any = {"parameters": self._scope.parameters, **self._scope.pipeline}
        elif name == "dataset":
            value = self._scope.dataset
        else:
            raise self._wrong(f"the function {name!r} is not emulated")
        while self._take("."):
            key = self._next()[2]
            if not isinstance(value, dict) or key not in value:
                raise self._wrong(f"there is no {key!r}")
            value = value[key]
        return value

    def _next(self) -> re.Match[str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._wrong("it breaks off")
        self._at = match.end()
        return match

    def _take(self, sign: str) -> bool:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match[4] != sign:
            return False
        self._at = match.end()
        return True

    def _wrong(self, why: str) -> ServiceError:
        return ServiceError(
            400, "InvalidTemplate", f"Unable to process expression '@{self._text}': {why}."
        )
