"""A model or benchmark as an experiment chooses it: by name, or by {kind: NAME, ...} with the part's own settings."""

from __future__ import annotations

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from mcit_core.registry import Part, Registry, near

#: the name of a model or benchmark, or {kind: NAME, ...} with the settings that the part declares
Choice = str | dict[str, JsonValue]


def kind_of(choice: Choice) -> str:
    return choice if isinstance(choice, str) else str(choice["kind"])


def options_of(choice: Choice) -> dict[str, JsonValue]:
    """What is set of a model or benchmark, by the name of the setting."""
    return {} if isinstance(choice, str) else {name: value for name, value in choice.items() if name != "kind"}


def part_settings(registry: Registry[Part], choice: Choice) -> dict[str, BaseModel]:
    """{"settings": a part's settings} where any is set or must be, else {}: the part is then made without. Raises
    KeyError for an unknown name and pydantic's ValidationError where a setting is missing."""
    declared: type[BaseModel] | None = registry.settings(kind_of(choice))
    needed = declared is not None and any(field.is_required() for field in declared.model_fields.values())
    if declared is None or not (needed or options_of(choice)):
        return {}
    return {"settings": declared.model_validate(options_of(choice))}


def shown_choice(choice: Choice) -> str:
    """A choice in a line: "mini", "mini (path DIR)"."""
    options = ", ".join(f"{name} {value}" for name, value in options_of(choice).items())
    return f"{kind_of(choice)} ({options})" if options else kind_of(choice)


def checked_choice(registry: Registry[Part], choice: Choice) -> Choice:
    """A choice in its one form: with the settings that differ from their defaults, or the name alone. Raises pydantic's
    ValidationError where a setting is none of those that the part declares."""
    if isinstance(choice, dict) and not isinstance(choice.get("kind"), str):
        raise fault_at(("kind",), f"expected the name of one of {', '.join(registry.names())}", choice.get("kind"))
    name, options = kind_of(choice), options_of(choice)
    if not options or name not in registry.names():  # whoever reads a file checks names, and says where they stand
        return choice if options else name
    declared: type[BaseModel] | None = registry.settings(name)
    fields = [] if declared is None else [field.alias or name for name, field in declared.model_fields.items()]
    for field in options:
        if field not in fields:
            what = f"expected one of {', '.join(fields)}{near(field, fields)}" if fields else "it has none"
            raise fault_at((field,), f"{name} has no setting {field!r}; {what}", options[field])
    assert declared is not None
    values = declared.model_validate(options).model_dump(mode="json", exclude_defaults=True, by_alias=True)
    return {"kind": name, **dict(sorted(values.items()))} if values else name


def fault_at(place: tuple[str, ...], message: str, given: object) -> ValidationError:
    """A fault at a place inside what is being read."""
    kind = PydanticCustomError("value_error", "{message}", {"message": message})
    return ValidationError.from_exception_data("section", [InitErrorDetails(type=kind, loc=place, input=given)])
