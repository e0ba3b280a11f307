"""Tests of service/native/build.py: libraries of these sources and no others."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from service.native import build
from service.native.build import ENCODER, WORDS, Library

X86 = sysconfig.get_platform().endswith(ENCODER.processor)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The sources alone, in a folder of their own."""
    for path in (*build.FOLDER.glob("*.c"), *build.FOLDER.glob("*.h")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    return tmp_path


@needs_compiler
@pytest.mark.parametrize("library", [WORDS, ENCODER], ids=lambda library: library.name)
def test_it_is_built_once_and_anew_for_other_sources(folder: Path, library: Library) -> None:
    """The name holds the hash of the sources; what was built of others goes."""
    if not library.is_for_this_processor:
        pytest.skip(f"the library is for {library.processor}")
    first = build.build(library)
    made = first.stat().st_mtime_ns
    assert build.build(library) == first
    assert first.stat().st_mtime_ns == made
    header = folder / library.headers[0]
    header.write_text(header.read_text() + "\n/* another */\n")
    second = build.build(library)

    assert second != first
    assert [path.name for path in (folder / "built").iterdir()] == [second.name]


@needs_compiler
def test_an_error_of_the_compiler_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that does not compile leaves nothing behind and says why; the other library is built all the same."""
    (folder / "words.c").write_text("int broken(")

    assert build.main([]) == 1
    assert "native words: not built, the compiler failed" in capsys.readouterr().err
    assert {path.name for path in (folder / "built").iterdir()} == ({ENCODER.path.name} if X86 else set())


@pytest.mark.usefixtures("folder")
def test_no_compiler_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody without a compiler learns what to do."""
    assert build.main(["no-such-compiler-here"]) == 1
    assert "name a C compiler" in capsys.readouterr().err


@needs_compiler
def test_other_processors_get_what_is_for_all(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On ARM the table of words is built and the encoder is not, and that is no failure."""
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: "linux-aarch64")

    assert build.main([]) == 0
    assert "native encoder: not built, it is for x86_64 alone" in capsys.readouterr().out
    assert [path.name for path in (folder / "built").iterdir()] == [WORDS.path.name]
