"""What a person entered, as values, and what is wrong with them, field by field."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.forms.fields import Field

_MOST_ERRORS = 8


def entries_of(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, str | bool]:
    """Return how values stand in the form."""
    return {field.name: field.entry(values[field.name]) for field in fields}


def values_of(
    fields: Sequence[Field], entries: Mapping[str, str | bool], before: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read what was entered.

    Args:
        fields: the form's.
        entries: name -> what stands in the field.
        before: name -> value, which stands for an entry that cannot be read.

    Returns:
        The values, and name -> what is wrong with an entry.
    """
    values, errors = dict(before), {}
    for field in fields:
        try:
            values[field.name] = field.read(entries[field.name])
        except ValueError as error:
            errors[field.name] = str(error)
    return values, errors


def errors_in(
    check: Callable[[Mapping[str, Any]], Any],
    values: Mapping[str, Any],
    fields: Sequence[Field],
    passed_over: set[str],
) -> dict[str, str]:
    """Find every value that a check refuses, not only the first.

    A check raises at the first wrong value, and its message starts with the parameter's name. That
    one is put back to its default and the check asked again.

    Returns:
        Name -> what is wrong; under "" what concerns no one field.
    """
    trial = dict(values)
    defaults = {field.name: field.default for field in fields}
    trial |= {name: defaults[name] for name in passed_over}
    errors: dict[str, str] = {}
    for _ in range(_MOST_ERRORS):
        try:
            check(trial)
        except (ValueError, OSError) as error:
            named = re.match(r"(\w+)=", str(error))
            name = named.group(1) if named and named.group(1) in defaults else ""
            if name in errors or name in passed_over:
                break  # what stands in for it does not do either
            errors[name] = str(error)
            if not name:
                break
            trial[name] = defaults[name]
        else:
            break
    return errors
