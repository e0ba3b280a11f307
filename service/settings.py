"""Every setting of the service: its type, unit, range, default and one sentence about it.

Knows the environment and the command line; does not know what a setting does.
Invariant: a value outside its range, or a name that is no setting, stops the boot and is named.
"""

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

PREFIX: Final = "SHELFRANK_"


class SettingsError(Exception):
    """A setting is unknown or has a value outside its range; the message names it."""


def _setting(
    default: Any, unit: str, sentence: str, *, low: float | None = None, high: float | None = None
) -> Any:
    extra: dict[str, Any] = {"unit": unit}
    return Field(default=default, description=sentence, ge=low, le=high, json_schema_extra=extra)


class Settings(BaseModel):
    """All settings, read once at the start and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    host: str = _setting("127.0.0.1", "address", "Address to listen on.")
    port: int = _setting(
        8000, "port", "Port to listen on; 0 takes a free one and logs it.", low=0, high=65535
    )
    models_root: Path = _setting(Path("models"), "path", "Directory that holds the bundles.")
    bundle: str = _setting("default", "name", "Name of the bundle to serve.")
    precision: Literal["default", "fp32", "int8", "fp16"] = _setting(
        "default",
        "name",
        "Which graph of the bundle to run; default is the one its manifest names, on cuda fp16, else fp32, if it has it.",
    )
    device: Literal["cpu", "cuda"] = _setting(
        "cpu", "name", "Where the graph runs; cuda stops the boot if the graph does not land on a GPU."
    )
    workers: int = _setting(
        0, "threads", "Threads that run the model; 0 takes the CPU quota, or 1 on cuda.", low=0, high=256
    )
    queue_tokens: int = _setting(
        131_072,
        "tokens",
        "Predicted tokens admitted and not yet answered, above which requests get 429.",
        low=1_000,
        high=100_000_000,
    )
    max_body_bytes: int = _setting(
        1_048_576, "bytes", "Largest request body; more gets 413.", low=1_024, high=67_108_864
    )
    max_documents: int = _setting(
        1_000, "documents", "Most documents in one request; more get 422.", low=1, high=10_000
    )
    max_query_chars: int = _setting(
        2_000, "characters", "Longest query; a longer one gets 422.", low=1, high=1_000_000
    )
    max_field_chars: int = _setting(
        20_000,
        "characters",
        "Longest text field of a document; a longer one gets 422.",
        low=1,
        high=10_000_000,
    )
    receipt_timeout_s: float = _setting(
        2.0, "seconds", "Time to receive a whole request, headers and body, before 408.", low=0.1, high=300
    )
    keep_alive_s: int = _setting(
        75, "seconds", "How long an idle connection is kept; set it above the proxy's.", low=1, high=3_600
    )
    drain_delay_s: float = _setting(
        2.0, "seconds", "Time that /readyz is red before the listener closes after SIGTERM.", low=0, high=300
    )
    drain_timeout_s: int = _setting(
        10, "seconds", "Longest wait for requests in flight after the listener has closed.", low=1, high=300
    )
    docs: bool = _setting(default=True, unit="switch", sentence="Serve /docs and /openapi.json.")
    log_format: Literal["json", "plain"] = _setting("json", "name", "Shape of the log lines on stderr.")
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "name", "Least severe log line that is written; info has one line per request."
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

    `argv` and `environ` default to the process's own. SettingsError names the first setting at fault.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX):
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
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return SettingRow(name, kind, unit, bounds, default, field.description or "")


def _kind(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return "word"
    return {str: "text", int: "integer", float: "number", bool: "true or false", Path: "text"}[annotation]  # type: ignore[index]  # every annotation above is one of these


def _bounds(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    low = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    return "any" if low is None or high is None else f"{low} to {high}"
