"""Reading one frozen model from environment variables, with errors that say what to do.

A model's field names are the variables' names in lower case; each field's description is the
remedy that an operator is shown when its value is refused. An empty variable counts as unset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from bridge.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], environ: Mapping[str, str]) -> Model:
    """The model from its variables. Raises ConfigurationError with a line for each bad one."""
    _refuse_no_text(model, environ)
    values: dict[str, Any] = {
        name: environ[name.upper()]
        for name in model.model_fields
        if environ.get(name.upper(), "") != ""
    }
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, detail, environ) for detail in error.errors()]
        raise ConfigurationError("\n".join(lines)) from None


def refusal(name: str, problem: str) -> PydanticCustomError:
    """What a validator of the whole model raises about one of its fields."""
    return PydanticCustomError("variable", "{problem}", {"problem": problem, "variable": name})


def _refuse_no_text(model: type[BaseModel], environ: Mapping[str, str]) -> None:
    # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
    lines = [
        f"{name.upper()}{_shown(model, name, environ)}: is not UTF-8. Remedy: {info.description}."
        for name, info in model.model_fields.items()
        if re.search("[\ud800-\udfff]", environ.get(name.upper(), ""))
    ]
    if lines:
        raise ConfigurationError("\n".join(lines))


def _explain(model: type[BaseModel], detail: ErrorDetails, environ: Mapping[str, str]) -> str:
    context = detail.get("ctx", {})
    name = str(detail["loc"][0] if detail["loc"] else context["variable"])
    remedy = model.model_fields[name].description
    return f"{name.upper()}{_shown(model, name, environ)}: {_problem(detail)}. Remedy: {remedy}."


def _shown(model: type[BaseModel], name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name.upper(), "")
    if value == "":
        return " (unset)"
    if SecretStr in getattr(model.model_fields[name].annotation, "__args__", ()):
        return "=<hidden>"
    return f"={value!r}" if len(value) <= 200 else f"={value[:200]!r}..."


def _problem(detail: ErrorDetails) -> str:
    message = detail["msg"]
    return message[0].lower() + message[1:]


# --- forms that values have -----------------------------------------------------------------------


def matching(pattern: str, form: str) -> AfterValidator:
    """Refuses what does not match as a whole: "is not <form>"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise PydanticCustomError("form", "is not {form}", {"form": form})
        return value

    return AfterValidator(check)


def _readable_file(value: Path) -> Path:
    if not value.is_file() or not os.access(value, os.R_OK):
        raise PydanticCustomError("file", "is not a readable file")
    return value


def _text_file(value: Path) -> Path:
    try:
        _readable_file(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise PydanticCustomError("file", "is not a readable file of UTF-8 text") from None
    return value


SecretVersion = Annotated[
    str, matching(r"projects/[^/\s]+/secrets/[^/\s]+/versions/[^/\s]+", "a secret's version name")
]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
TextFile = Annotated[Path, AfterValidator(_text_file)]
Port = Annotated[int, Field(ge=1, le=65535)]
