"""The image and the Compose file keep their promises, as far as they can be read without an engine."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from service.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]["shelfrank"]


def _last_stage() -> str:
    return DOCKERFILE.split("\nFROM ")[-1]


def test_the_dockerfile_needs_no_frontend() -> None:
    """No line asks the builder to fetch a frontend of its own."""
    assert "# syntax" not in DOCKERFILE


def test_the_image_runs_as_nobody_and_takes_signals() -> None:
    """The last stage names a numeric user that is not root, and starts the service without a shell."""
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", _last_stage(), re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["/opt/venv/bin/python", "-m", "service"\]$', _last_stage(), re.MULTILINE)


def test_the_health_check_asks_the_service_where_it_listens() -> None:
    """The image's check names no port of its own: it reads what process 1 was told."""
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n  CMD (.*)$", _last_stage(), re.MULTILINE)

    assert check == '["/opt/venv/bin/python", "-m", "service.health"]'


def test_both_devices_are_built_from_their_locks() -> None:
    """Unless told otherwise the image is for CPUs; each lock that may be named is there and let into the build."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")

    assert re.findall(r"^ARG (\w+)=(\w+)$", DOCKERFILE, re.MULTILINE) == [
        ("LOCK", "serve"),
        ("DEVICE", "cpu"),
    ]
    assert all((ROOT / f"requirements/{lock}.lock").exists() for lock in ("serve", "gpu"))
    assert all(f"!requirements/{lock}.lock" in ignored for lock in ("serve", "gpu"))


def test_the_last_stage_installs_nothing() -> None:
    """The last stage copies what the first one installed: it runs no installer of any kind."""
    assert re.findall(r"(?:pip|apt-get|apk|conda|uv) (?:install|sync|add)", _last_stage()) == []


def test_what_the_image_sets_are_settings() -> None:
    """Each SHELFRANK_ variable of the image and of the Compose file is a setting of the service."""
    named = set(re.findall(r"SHELFRANK_(\w+)=", DOCKERFILE)) | {
        name.removeprefix("SHELFRANK_") for name in SERVICE.get("environment", {})
    }

    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_compose_takes_every_privilege_away() -> None:
    """The Compose file runs the service read-only, without capabilities, within limits, for this machine alone."""
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "mem_limit", "pids_limit"} <= set(SERVICE)
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])


def test_compose_waits_for_the_drain() -> None:
    """The time between SIGTERM and SIGKILL is longer than the service may take to drain."""
    settings = Settings()
    grace_s = int(SERVICE["stop_grace_period"].removesuffix("s"))

    assert grace_s > settings.drain_delay_s + settings.drain_timeout_s
