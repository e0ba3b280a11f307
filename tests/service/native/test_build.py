"""Tests of service/native/build.py: libraries of these sources and no others."""

import platform
import shutil
from pathlib import Path

import pytest

from service.native import build

HERE = shutil.which("cc") is not None and platform.machine() == "x86_64"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The sources alone, in a folder of their own."""
    for library in (build.ENCODER, build.WORDS):
        for name in library.sources:
            shutil.copy(build.FOLDER / name, tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: "linux-x86_64")
    return tmp_path


@pytest.mark.skipif(not HERE, reason="no C compiler for x86-64 here")
def test_it_is_built_once_and_anew_for_other_sources(folder: Path) -> None:
    """The name holds the hash of the sources; what was built of others goes."""
    words = build.WORDS.build()
    first = build.ENCODER.build()
    made = first.stat().st_mtime_ns
    assert build.ENCODER.build() == first
    assert first.stat().st_mtime_ns == made
    (folder / "encoder.c").write_text((folder / "encoder.c").read_text() + "\n/* another */\n")
    second = build.ENCODER.build()

    assert second != first
    assert {path.name for path in (folder / "built").iterdir()} == {second.name, words.name}


@pytest.mark.skipif(not HERE, reason="no C compiler for x86-64 here")
def test_an_error_of_the_compiler_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sources that do not compile leave nothing behind and say why."""
    (folder / "encoder.c").write_text("int broken(")

    assert build.main([]) == 1
    assert "the compiler failed" in capsys.readouterr().err
    assert list((folder / "built").iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_no_compiler_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody without a compiler learns what to do."""
    assert build.main(["no-such-compiler-here"]) == 1
    assert "name a C compiler" in capsys.readouterr().err


def test_other_processors_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a Mac with Apple silicon there is nothing to build, and that is no failure; Linux on ARM has the words."""
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: "linux-aarch64")
    assert build.libraries_here() == (build.WORDS,)
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: "macosx-14.0-arm64")

    assert build.main([]) == 0
    assert "not built" in capsys.readouterr().out
    assert not (folder / "built").exists()


@pytest.mark.skipif(not HERE, reason="no C compiler for x86-64 here")
@pytest.mark.usefixtures("folder")
def test_main_builds(capsys: pytest.CaptureFixture[str]) -> None:
    """The program says what it has built."""
    assert build.main(["cc"]) == 0
    told = capsys.readouterr().out
    for library in (build.ENCODER, build.WORDS):
        assert library.path.name in told
        assert library.path.exists()
