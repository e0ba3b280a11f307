"""Tests of service/settings.py."""

from pathlib import Path

import pytest

from service.options import SettingRow, describe_settings, load_settings
from service.settings import Settings, SettingsError
from tests.service.support import ROOT

ROWS = describe_settings()


def test_defaults_need_nothing() -> None:
    """Without flags and environment, every setting has its default."""
    assert load_settings([], {}) == Settings()


def test_flags_win_over_the_environment() -> None:
    """The environment overrides a default, a flag overrides both."""
    environ = {"SHELFRANK_PORT": "1", "SHELFRANK_HOST": "0.0.0.0", "HOME": "/"}  # noqa: S104 - a value to read
    settings = load_settings(["--port", "2"], environ)

    assert (2, "0.0.0.0") == (settings.port, settings.host)  # noqa: S104 - as above


def test_values_have_their_types() -> None:
    """Texts from outside become numbers, switches and paths."""
    settings = load_settings(["--docs", "false", "--drain-delay-s", "0.5", "--models-root", "m"], {})

    assert (False, 0.5, Path("m")) == (settings.docs, settings.drain_delay_s, settings.models_root)


@pytest.mark.parametrize("name", ["SHELFRANK_PROT", "SHELFRANK_", "SHELFRANK_port", "SHELFRANK_X-Y"])
def test_a_misspelt_variable_is_refused(name: str) -> None:
    """A variable with our prefix that is no setting is named, whatever its value."""
    with pytest.raises(SettingsError, match=name):
        load_settings([], {name: "8000"})


def test_a_misspelt_variable_gets_a_suggestion() -> None:
    """The message offers the nearest setting."""
    with pytest.raises(SettingsError, match=r"did you mean SHELFRANK_PORT\?"):
        load_settings([], {"SHELFRANK_PROT": "8000"})


@pytest.mark.parametrize("argv", [["--prot", "1"], ["--por", "1"], ["8000"], ["--port"]])
def test_a_misspelt_flag_is_refused(argv: list[str]) -> None:
    """An unknown, shortened or empty flag raises; it does not end the interpreter."""
    with pytest.raises(SettingsError, match="--help"):
        load_settings(argv, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "10.0.0.1:8000"),
        ("port", ""),
        ("workers", "-1"),
        ("workers", "1.5"),
        ("device", "gpu"),
        ("docs", "maybe"),
        ("receipt_timeout_s", "nan"),
        ("drain_delay_s", "inf"),
        ("max_documents", "0"),
        ("log_level", "INFO"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    """A value outside its type or range raises one line that names where it came from and what is expected."""
    row = next(row for row in ROWS if row.name == name)

    for argv, environ, source in (
        ([], {row.variable: value}, row.variable),
        ([row.flag, value], {}, row.flag),
    ):
        with pytest.raises(SettingsError) as caught:
            load_settings(argv, environ)
        assert str(caught.value).startswith(source + ":")
        assert row.range in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_is_described(row: SettingRow) -> None:
    """A setting has a type, a unit, a range and one sentence."""
    assert all((row.type, row.unit, row.range, row.default))
    assert row.sentence.endswith(".")
    assert ". " not in row.sentence


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_is_documented(row: SettingRow) -> None:
    """docs/operations.md has the row of every setting, with its present default and range."""
    assert row.markdown() in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").splitlines()


def test_no_other_setting_is_documented() -> None:
    """docs/operations.md does not describe settings that no longer exist."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `SHELFRANK_")}

    assert {row.variable for row in ROWS} == documented


def test_help_tells_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists each flag with its variable."""
    with pytest.raises(SystemExit) as caught:
        load_settings(["--help"], {})
    shown = capsys.readouterr().out

    assert caught.value.code == 0
    assert all(row.flag in shown and row.variable in shown for row in ROWS)


SERVICE_LINKS = {
    "SHELFRANK_SERVICE_HOST": "10.0.0.11",
    "SHELFRANK_SERVICE_PORT": "8000",
    "SHELFRANK_SERVICE_PORT_HTTP": "8000",
    "SHELFRANK_PORT": "tcp://10.0.0.11:8000",
    "SHELFRANK_PORT_8000_TCP": "tcp://10.0.0.11:8000",
    "SHELFRANK_PORT_8000_TCP_PROTO": "tcp",
    "SHELFRANK_PORT_8000_TCP_PORT": "8000",
    "SHELFRANK_PORT_8000_TCP_ADDR": "10.0.0.11",
}


@pytest.mark.parametrize("service", ["SHELFRANK", "SHELFRANK_ADMIN", "SHELFRANK_SEARCH_EU_1"])
def test_what_kubernetes_says_of_a_service_is_ignored(service: str) -> None:
    """A Service named shelfrank or shelfrank-* puts variables into every pod, and none of them is a setting."""
    environ = {name.replace("SHELFRANK", service, 1): value for name, value in SERVICE_LINKS.items()}

    assert load_settings([], environ) == load_settings([], {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHELFRANK_PORT", "tcp:/10.0.0.11"),
        ("SHELFRANK_SERVICE_PORT", "http"),
        ("SHELFRANK_SERVICE_HOSTS", "10.0.0.11"),
        ("SHELFRANK_PORTS", "tcp://10.0.0.11:8000"),
        ("SHELFRANK_PORT_8000_TCP_NAME", "tcp"),
    ],
)
def test_what_only_looks_like_kubernetes_is_refused(name: str, value: str) -> None:
    """A variable that differs from those forms in its name or value still stops the boot."""
    with pytest.raises(SettingsError, match=name):
        load_settings([], {name: value})
