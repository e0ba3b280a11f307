"""Tests of service/http/keys.py."""

import asyncio
import os
import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import KeyFileError
from service.http.keys import (
    MAX_FILE_BYTES,
    MAX_KEYS,
    TENANT,
    ApiKey,
    ApiKeys,
    find_tenant,
    parse_keys,
    shown_key,
)
from service.telemetry.metrics import Metrics
from tests.service.support import (
    JSON,
    WAIT_S,
    Answer,
    FakeSession,
    Served,
    exchange,
    fake_app,
    is_documented_error,
    start,
)

GOOD = {"query": "red shoes", "documents": ["red shoes"]}
RAW = b'{"query": "red shoes", "documents": ["red shoes"]}'
SECRET = "s3cret-of-shop"


def _line(tenant: str, key: str) -> str:
    return f"{tenant} {sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with two keys of one tenant and one of another."""
    path = tmp_path / "keys"
    path.write_text(
        "# who may ask\n\n" + _line("shop", SECRET) + _line("shop", "second") + _line("batch", "b")
    )
    return path


def _replace(path: Path, text: str) -> None:
    """Change a file as an operator should: by a rename."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found 0"),
        ("# nobody\n", "found 0"),
        ("shop\n", "line 1"),
        ("shop hunter2\n", "line 1"),
        ("\nShop " + "0" * 64, "line 2"),
        ("shop " + "A" * 64, "line 1"),
        ("shop " + "0" * 64 + " more", "line 1"),
        ("../shop " + "0" * 64, "line 1"),
        ("a " + "0" * 64 + "\nb " + "0" * 64, "line 2"),
        ("".join(_line("shop", str(number)) for number in range(MAX_KEYS + 1)), "1001"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, told: str) -> None:
    """The error names the line or the count, and repeats nothing of the file."""
    with pytest.raises(KeyFileError, match=told) as caught:
        parse_keys(text)
    assert "hunter2" not in str(caught.value)


def test_every_key_finds_its_tenant(key_file: Path) -> None:
    """Several keys may belong to one tenant; another key belongs to nobody."""
    keys = parse_keys(key_file.read_text())

    assert ["shop", "shop", "batch", None, None] == [
        find_tenant(keys, shown) for shown in (SECRET.encode(), b"second", b"b", b"", b"S3cret-of-shop")
    ]


def test_all_keys_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key of a hundred takes as many comparisons as the last one."""
    counted = 0

    def compare(left: bytes, right: bytes) -> bool:
        nonlocal counted
        counted += 1
        return left == right

    monkeypatch.setattr("service.http.keys.hmac.compare_digest", compare)
    keys = [ApiKey("shop", sha256(str(number).encode()).digest()) for number in range(100)]
    counts = []
    for shown in (b"0", b"99", b"none"):
        counted = 0
        find_tenant(keys, shown)
        counts.append(counted)

    assert [100, 100, 100] == counts


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([], None),
        ([(b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"bearer  k ")], b"k"),
        ([(b"x-api-key", b"k")], b"k"),
        ([(b"api-key", b"k")], b"k"),
        ([(b"authorization", b"Basic azpr"), (b"api-key", b"k")], b"k"),
        ([(b"authorization", b"Bearer k"), (b"x-api-key", b"k")], b"k"),
        ([(b"authorization", b"Bearer k"), (b"authorization", b"Bearer l")], None),
        ([(b"authorization", b"Bearer k"), (b"x-api-key", b"l")], None),
        ([(b"authorization", b"k")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer k l")], None),
        ([(b"authorization", b"Bearer \xe9")], None),
        ([(b"x-api-key", b"\xe9\xff")], b"\xe9\xff"),
    ],
)
def test_one_key_is_shown_or_none(headers: list[tuple[bytes, bytes]], shown: bytes | None) -> None:
    """A key comes in one of three headers; two that differ are none."""
    assert shown == shown_key(headers)


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"api-key"]), st.binary(max_size=80)))
)
def test_no_header_breaks_the_lock(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever bytes the headers hold, the outcome is a tenant or nobody."""
    shown = shown_key(headers)

    assert shown is None or find_tenant(parse_keys(_line("shop", SECRET)), shown) is None


def _ask(served: Served, path: str, headers: dict[str, str], method: str = "POST") -> Answer:
    return served.run(exchange(served.app, method, path, RAW, {**JSON, **headers}))


def test_nobody_passes_without_a_key(tiny_bundle: Path, key_file: Path) -> None:
    """Without a valid key every path but health gets 401 and a challenge; with one it is answered."""
    with Served(fake_app(tiny_bundle, FakeSession(), api_keys_file=str(key_file))) as served:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": SECRET},
            {"authorization": "Bearer \xe9"},
            {"x-api-key": "x" * 1_000_000},
            {"authorization": f"Bearer {SECRET}", "api-key": "wrong"},
        ):
            answer = _ask(served, "/v1/rerank", headers)
            assert (401, "unauthenticated") == (answer.status, answer.json["error"])
            assert answer.headers["www-authenticate"] == "Bearer"
            assert is_documented_error(answer)
        for path in ("/", "/v1/models", "/docs", "/openapi.json", "/nowhere", "/v2", "/livez/x"):
            assert _ask(served, path, {}, "GET").status == 401
        for path in ("/livez", "/livez/", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"):
            assert _ask(served, path, {}, "GET").status == 200
        for headers in (
            {"authorization": f"Bearer {SECRET}"},
            {"x-api-key": "second"},
            {"api-key": "b"},
        ):
            assert _ask(served, "/v1/rerank", headers).status == 200
        assert served.metric("shelfrank_rejected_total", reason="unauthenticated") == 13


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v2/rerank", "message"),
        ("/jina/v1/rerank", "detail"),
        ("/voyage/v1/rerank", "detail"),
        ("/rerank", "error_type"),
        ("/score", "error"),
        ("/v2/models/tiny/infer", "error"),
    ],
)
def test_a_dialect_is_refused_in_its_own_shape(
    tiny_bundle: Path, key_file: Path, path: str, field: str
) -> None:
    """A client without a key finds the error where its own API has it."""
    with Served(fake_app(tiny_bundle, FakeSession(), api_keys_file=str(key_file))) as served:
        answer = _ask(served, path, {})

    assert answer.status == 401
    assert field in answer.json
    assert b"API key is needed" in answer.body


def test_the_tenant_is_in_the_scope(key_file: Path) -> None:
    """What stands behind the lock learns whose key it was."""
    from service.http.keys import ApiKeyMiddleware  # noqa: PLC0415 - the only test that builds one

    seen: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None:  # noqa: ARG001 - as ASGI calls it
        seen.append(scope[TENANT])  # type: ignore[index]

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    locked = ApiKeyMiddleware(app, ApiKeys(key_file, Metrics()), lambda _: pytest.fail("refused"))
    scope = {"type": "http", "path": "/v1/rerank", "headers": [(b"api-key", b"b")]}
    asyncio.run(locked(scope, nothing, nothing))  # type: ignore[arg-type]

    assert ["batch"] == seen


def test_keys_change_without_a_restart(key_file: Path) -> None:
    """A changed file is read; one that makes no sense, or is gone, leaves the keys as they were and is counted once."""
    metrics = Metrics()
    ring = ApiKeys(key_file, metrics)

    def tenant(key: bytes) -> str | None:
        return find_tenant(ring.keys, key)

    def errors() -> float | None:
        return metrics.registry.get_sample_value("shelfrank_key_file_errors_total")

    _replace(key_file, _line("shop", "new"))
    ring.refresh()
    assert (None, "shop") == (tenant(SECRET.encode()), tenant(b"new"))
    _replace(key_file, "shop hunter2")
    for _ in range(3):
        ring.refresh()
    assert ("shop", 1) == (tenant(b"new"), errors())
    key_file.unlink()
    for _ in range(3):
        ring.refresh()
    assert ("shop", 2) == (tenant(b"new"), errors())
    _replace(key_file, _line("shop", "newer"))
    ring.refresh()
    assert (None, "shop", 2) == (tenant(b"new"), tenant(b"newer"), errors())


def test_a_file_changed_in_place_is_seen(key_file: Path) -> None:
    """A change of the time of writing alone is enough."""
    ring = ApiKeys(key_file, Metrics())
    key_file.write_text(_line("shop", "other"))
    os.utime(key_file, ns=(1, 1))
    ring.refresh()

    assert len(ring.keys) == 1


def test_a_mounted_secret_is_followed(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder; the file behind it is what counts."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(_line("shop", name))
    data, link = tmp_path / "data", tmp_path / "next"
    data.symlink_to("one")
    ring = ApiKeys(data / "keys", Metrics())
    link.symlink_to("two")
    link.replace(data)
    ring.refresh()

    assert find_tenant(ring.keys, b"two") == "shop"


def test_the_service_follows_the_file(
    tiny_bundle: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running application takes new keys by itself, soon."""
    monkeypatch.setattr("service.http.keys.CHECK_EVERY_S", 0.01)

    async def wait(served: Served) -> int:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            answer = await exchange(served.app, "POST", "/v1/rerank", RAW, {**JSON, "api-key": "new"})
            if answer.status == 200:
                return 200
            await asyncio.sleep(0.01)
        return 401

    with Served(fake_app(tiny_bundle, FakeSession(), api_keys_file=str(key_file))) as served:
        assert _ask(served, "/v1/rerank", {"api-key": "new"}).status == 401
        _replace(key_file, _line("shop", "new"))
        assert served.run(wait(served)) == 200


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        (b"shop hunter2", "line 1"),
        (b"shop \xff", "ASCII"),
        (b"#" * (MAX_FILE_BYTES + 1), "at most"),
    ],
)
def test_a_start_with_a_bad_key_file_is_refused(
    tiny_bundle: Path, tmp_path: Path, content: bytes | None, told: str
) -> None:
    """A file of keys that cannot be used stops the start with exit code 3; the service never starts open."""
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    popen = start(tiny_bundle, "--api-keys-file", str(path), "--log-level", "error")
    _, err = popen.communicate(timeout=WAIT_S)

    assert popen.returncode == 3
    assert err.startswith("shelfrank: SHELFRANK_API_KEYS_FILE: ")
    assert told in err
    assert err.count("\n") == 1
    assert "hunter2" not in err
