"""A page's parameters as words of a command line, ``nodes=8``: read, checked and explained."""

from collections.abc import Iterator, Sequence

from workbench.forms.parameters import FormField, Parameters, ParametersError


def read_words(model: type[Parameters], words: Sequence[str]) -> Parameters:
    """Check words such as ``nodes=8``; a parameter may have its name of 2021.

    Raises:
        ParametersError: names every word that is not valid, and what it takes.
    """
    known = model.names()
    given: dict[str, str] = {}
    errors: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        plain = name.lstrip("-").replace("-", "_")
        if name in known and equals and name not in given:
            given[name] = value
        elif name in given:
            errors[name] = f"{name}: give it once"
        elif plain in known:
            errors[name] = f"{name}: give it as one word, such as {plain}={_example(model, plain)}"
        elif plain.isidentifier():
            errors[name] = model.unknown(plain)
        else:  # it may hold a secret, so it is not repeated
            errors[name] = (
                "parameters are words such as nodes=8, without spaces or quotes around the ="
            )
    if errors:
        raise ParametersError(errors)
    optional = {name for name, each in model.fields.items() if each.optional}
    values = model.given({name: each.default for name, each in model.fields.items()} | given)
    nothing = {name: None for name in optional if values[name] == "None"}
    return model.of(values | nothing, typed=False)


def _example(model: type[Parameters], name: str) -> str:
    field = model.fields.get(name)
    return str(field.default) if field and field.default not in (None, "") else "VALUE"


def explained(model: type[Parameters]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each section's title, and names with what stands beside them in the help."""
    title = "Parameters"
    rows: list[tuple[str, str]] = []
    for name, field in model.fields.items():
        if field.section:
            yield title, rows
            title, rows = field.section, []
        rows.append((name, _explanation(field)))
    yield title, rows


def _explanation(field: FormField) -> str:
    text = field.help.replace("(None)", "(default)").replace("None:", "by default:")
    plain = field.kind is str and not field.only
    facts = ["" if plain else field.expected, field.unit and f"in {field.unit}"]
    if field.default not in (None, ""):
        facts.append(f"default {field.default}")
    if field.aliases:
        facts.append(f"also {', '.join(field.aliases)}")
    told = "; ".join(filter(None, facts))
    return f"{text}  [{told}]" if told else text
