"""Tests of service/native/build.py: libraries of these sources and no others."""

import ctypes
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from service.native import build
from service.native.build import ENCODER, WORDS, Library, cache_folder, find

X86 = sysconfig.get_platform().endswith(ENCODER.processor)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The sources alone, in a folder of their own."""
    for path in (*build.FOLDER.glob("*.c"), *build.FOLDER.glob("*.h")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find", find.__wrapped__)  # as a process does that has not asked yet
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


@needs_compiler
def test_what_is_not_built_is_compiled_into_the_cache_at_first_use(folder: Path) -> None:
    """Without a library beside its sources one is compiled into the user's cache, loads, and is found there afterwards."""
    path, reason = build.find(WORDS)
    made = path.stat().st_mtime_ns

    assert (folder / "cache" / "shelfrank", "") == (path.parent, reason)
    assert ctypes.PyDLL(str(path)).shelfrank_words_open
    assert build.find(WORDS) == (path, "")
    assert path.stat().st_mtime_ns == made
    assert not (folder / "built").exists()


@needs_compiler
def test_a_library_beside_its_sources_comes_first(folder: Path) -> None:
    """What make or the image has built is taken, and the cache is left alone."""
    built = build.build(WORDS)

    assert (built, "") == build.find(WORDS)
    assert not (folder / "cache").exists()


@needs_compiler
def test_the_cache_keeps_the_libraries_of_other_versions(folder: Path) -> None:
    """Two versions of the package that share a cache do not compile in turns."""
    first, _ = build.find(WORDS)
    header = folder / WORDS.headers[0]
    header.write_text(header.read_text() + "\n/* another */\n")
    second, _ = build.find(WORDS)

    assert first.exists()
    assert second.exists()
    assert first != second


@needs_compiler
def test_a_cache_that_others_may_write_to_is_not_used(folder: Path) -> None:
    """Nobody's code is loaded from a folder that is not the user's alone."""
    (folder / "cache" / "shelfrank").mkdir(parents=True)
    (folder / "cache" / "shelfrank").chmod(0o777)
    path, reason = build.find(WORDS)

    assert not path.exists()
    assert f"others may write to {folder / 'cache' / 'shelfrank'}" == reason


@pytest.mark.parametrize(
    ("source", "search", "told"),
    [(None, "", "there is no C compiler (cc)"), ("int broken(", os.defpath, "the compiler failed")],
)
def test_a_first_use_that_cannot_compile_says_why(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: str | None, search: str, told: str
) -> None:
    """Without a compiler, or with one that fails, there is a reason for the log and nothing is left behind."""
    if source is not None:
        if shutil.which("cc", path=search) is None:
            pytest.skip("no C compiler here")
        (folder / "words.c").write_text(source)
    monkeypatch.setenv("PATH", search)
    path, reason = build.find(WORDS)

    assert not path.exists()
    assert told in reason
    assert list((folder / "cache" / "shelfrank").iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_what_is_for_other_processors_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ARM the encoder is not compiled at first use either, and the reason is the processor."""
    monkeypatch.setattr(build.sysconfig, "get_platform", lambda: "linux-aarch64")

    assert build.find(ENCODER)[1] == "it is for x86_64 alone"


def test_the_cache_is_where_the_platform_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME if it is a whole path, else the cache of the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/shelfrank")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(build.sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "shelfrank"
    monkeypatch.setattr(build.sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "shelfrank"
