"""Reads the settings from the environment and the command line, and describes them for people.

Knows flags and variables; does not know what a setting does.
Invariant: a value outside its range, or a name that is no setting, stops the boot and is named.
"""

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings, SettingsError

# What Kubernetes tells every pod about a Service named shelfrank or shelfrank-*, as NAME=value; none is a setting.
_SERVICE_LINK: Final = re.compile(
    r"SHELFRANK(_[A-Z0-9_]+)?_("
    r"SERVICE_HOST=[0-9A-Fa-f.:]+"
    r"|SERVICE_PORT(_[A-Z0-9_]+)?=\d+"
    r"|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\S+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=\d+|ADDR=[0-9A-Fa-f.:]+)"
    r")"
)


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as people read it, in --help and in docs/operations.md."""

    name: str
    type: str
    unit: str
    range: str
    default: str
    sentence: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its command line flag."""
        return "--" + self.name.replace("_", "-")

    def markdown(self) -> str:
        """Its row of the table in docs/operations.md."""
        cells = (
            f"`{self.variable}`",
            f"`{self.flag}`",
            self.type,
            self.unit,
            self.range,
            f"`{self.default}`",
            self.sentence,
        )
        return "| " + " | ".join(cells) + " |"


def describe_settings() -> list[SettingRow]:
    """Return one row for each setting, in the order of the model."""
    return [_describe(name, field) for name, field in Settings.model_fields.items()]


def load_settings(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Build the settings from flags, then environment, then defaults.

    `argv` and `environ` default to the process's own; what Kubernetes says there of its Services is no setting of ours,
    even under a setting's name (`SHELFRANK_PORT=tcp://...`). SettingsError names the first setting at fault.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(f"{variable}={value}"):
            name = variable.removeprefix(PREFIX).lower()
            if name not in Settings.model_fields or variable != variable.upper():
                raise SettingsError(f"{variable} is not a setting{_suggest(variable)}")
            values[name], sources[name] = value, variable
    for name, value in vars(_parser().parse_args(argv)).items():
        if value is not None:
            values[name], sources[name] = value, "--" + name.replace("_", "-")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        row = _describe(name, Settings.model_fields[name])
        raise SettingsError(
            f"{sources.get(name, name)}: {first['msg']}; expected {row.type} in {row.unit}, {row.range}"
        ) from None


def _suggest(variable: str) -> str:
    known = [row.variable for row in describe_settings()]
    close = difflib.get_close_matches(variable.upper(), known, n=1)
    return f"; did you mean {close[0]}?" if close else "; see python -m service --help"


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see python -m service --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m service",
        description="Serve a shelfrank bundle over HTTP. Flags win over environment variables.",
        allow_abbrev=False,
    )
    for row in describe_settings():
        text = f"{row.sentence} [{row.type}, {row.unit}, {row.range}, default {row.default}, {row.variable}]"
        parser.add_argument(row.flag, dest=row.name, metavar=row.type.upper(), help=text.replace("%", "%%"))
    return parser


def _describe(name: str, field: FieldInfo) -> SettingRow:
    extra = field.json_schema_extra
    unit = str(extra["unit"]) if isinstance(extra, dict) else ""
    kind, bounds = _kind(field.annotation), _bounds(field)
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default) or "empty"
    return SettingRow(name, kind, unit, bounds, default, field.description or "")


def _kind(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return "word"
    kinds = {
        str: "text",
        SecretStr: "text",
        Path: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
    }
    return kinds[annotation]  # type: ignore[index]  # every annotation above is one of these


def _bounds(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    low = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    return "any" if low is None or high is None else f"{low} to {high}"
