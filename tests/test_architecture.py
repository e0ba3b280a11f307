"""Draws the arrows: what each package may import, and what nothing here may use.

Knows the packages by their source alone, read as syntax trees; `make check` adds the indirect imports.
Invariant: training -> bundle <- service, and nothing that executes data is called anywhere.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from training.stages import STAGES

ROOT = Path(__file__).parent.parent
PACKAGES = ("bundle", "service", "shelfrank", "training")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
WRITTEN_IN_C = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.[ch]"))]

# What each package may import besides the standard library and itself, spelt out: a new name here is a decision.
ALLOWED = {
    "bundle": {"numpy", "pydantic", "tokenizers"},
    "service": {
        "bundle",
        "fastapi",
        "httptools",
        "lmdb",
        "msgspec",
        "numpy",
        "onnxruntime",
        "opentelemetry",
        "prometheus_client",
        "pydantic",
        "redis",  # the extra redis
        "starlette",
        "tokenizers",
        "uvicorn",
    },
    "shelfrank": set(),  # the door has to open with no extra installed
    "training": {
        "accelerate",
        "bm25s",
        "bundle",
        "huggingface_hub",
        "matplotlib",
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "optimum",
        "peft",
        "pyarrow",
        "pydantic",
        "ray",
        "safetensors",
        "scipy",
        "sklearn",
        "tokenizers",
        "torch",
        "tqdm",
        "transformers",
        "vllm",
    },
}
# Each of these can run code that came as data.
BANNED_MODULES = {"cloudpickle", "dill", "imp", "joblib", "marshal", "pickle", "runpy", "shelve", "yaml"}
BANNED_CALLS = {"compile", "eval", "exec", "os.popen", "os.system", "torch.hub.load", "torch.load"}
BANNED_TRUE_OPTIONS = {"allow_pickle", "shell", "trust_remote_code"}
LONGEST_FILE = 300
MOST_FILES = {"service": 12, "training": 15}  # in a folder, __init__.py, C sources and headers included
LONGEST_IMPORT_S = 0.3


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level name of everything a syntax tree imports, at whatever depth it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _modules(package: str) -> dict[str, Path]:
    """Return the modules of a package by their dotted names, packages among them."""
    files = {path.relative_to(ROOT).with_suffix(""): path for path in (ROOT / package).rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that a syntax tree imports; the name is empty for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds, at whatever depth; some of them may be bound in functions alone."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        for alias in getattr(node, "names", ())
        if isinstance(alias, ast.alias)
    }
    return found | {
        node.name for node in ast.walk(tree) if hasattr(node, "name") and isinstance(node.name, str)
    }


def _parts_that_import_each_other(package: str) -> set[frozenset[str]]:
    """Return the pairs of a package's parts, folders and single modules, of which each imports the other."""
    modules = _modules(package)
    arrows = set()
    for name, path in modules.items():
        for module, imported in _imported(_tree(path)):
            target = f"{module}.{imported}" if f"{module}.{imported}" in modules else module
            here, there = (each.split(".")[1:2] for each in (name, target))
            if target in modules and here and there and here != there:
                arrows.add((here[0], there[0]))
    return {frozenset(arrow) for arrow in arrows if arrow[::-1] in arrows}


def _missing_names(*packages: str) -> set[str]:
    """Return what modules of these packages import from each other and do not find there."""
    modules = {name: path for package in packages for name, path in _modules(package).items()}
    bound = {name: _bound(_tree(path)) for name, path in modules.items()}
    return {
        f"{path.relative_to(ROOT)}: {module} {name}".rstrip()
        for path in modules.values()
        for module, name in _imported(_tree(path))
        if module.partition(".")[0] in packages and f"{module}.{name}" not in modules
        if (name not in bound.get(module, ()) if name else module not in modules)
    }


def _offences(tree: ast.AST) -> list[str]:
    """Return what a syntax tree uses of the banned modules, calls and options."""
    found = [name for name in _imports(tree) if name in BANNED_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in BANNED_CALLS else []
            found += [
                f"{option.arg}="
                for option in node.keywords
                if option.arg in BANNED_TRUE_OPTIONS
                and not (isinstance(option.value, ast.Constant) and option.value.value is False)
            ]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    """A package imports the standard library, itself and the libraries named for it, and nothing else."""
    may = ALLOWED[package] | {package} | sys.stdlib_module_names
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == package
        for name in _imports(_tree(path))
        if name not in may
    }

    assert set() == wrong


@pytest.mark.parametrize("package", ["service"])
def test_no_two_parts_import_each_other(package: str) -> None:
    """Between the folders of a package imports run one way; which way, the contracts in pyproject.toml say."""
    assert set() == _parts_that_import_each_other(package)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package of which two parts import each other, and one of them a name that is not there."""
    sources = {
        "one/a.py": "def f():\n    from house.two import b",
        "two/b.py": "from house.one.a import f, g\nimport house.three",
        "three.py": "",
    }
    for name, source in sources.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    return "house"


def test_parts_that_import_each_other_are_found(house: str) -> None:
    """A pair counts once, however its imports are written and wherever they stand; one way alone is no pair."""
    assert {frozenset({"one", "two"})} == _parts_that_import_each_other(house)


def test_a_name_that_is_not_there_is_found(house: str) -> None:
    """Of two names imported by one line, the one that the module does not bind is told."""
    assert {"house/two/b.py: house.one.a g"} == _missing_names(house)


def _crowded(files: list[Path], most: int) -> dict[str, int]:
    """Return the folders that hold more of these files than that, with their number."""
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    return {folder: number for folder, number in folders.items() if number > most}


@pytest.mark.parametrize("package", MOST_FILES)
def test_folders_stay_small(package: str) -> None:
    """A folder has so few files, in Python and in C, that its listing can be read at a glance."""
    files = [path for path in SOURCES + WRITTEN_IN_C if path.relative_to(ROOT).parts[0] == package]

    assert {} == _crowded(files, MOST_FILES[package])


def test_c_counts_among_the_files_of_a_folder() -> None:
    """A source and a header are files like any other."""
    native = ROOT / "service" / "native"
    files = [path for path in SOURCES + WRITTEN_IN_C if path.parent == native]

    assert {"words.c", "kernels.h", "words.py"} <= {path.name for path in files}
    assert {"service/native": len(files)} == _crowded(files, len(files) - 1)


def test_every_import_of_ours_finds_its_name() -> None:
    """What a test or a program imports from our own packages is there: pytest skips a test file that it cannot import."""
    assert set() == _missing_names(*PACKAGES, "benchmarks", "clients", "tests")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_executes_data(path: Path) -> None:
    """No source file unpickles, evaluates, runs a shell or trusts remote code."""
    assert _offences(_tree(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "eval('1')",
        "import torch\ntorch.load('x')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "subprocess.run('x', shell=flag)",
    ],
)
def test_the_ban_sees_what_it_bans(source: str) -> None:
    """Each kind of banned use is found, wherever it stands."""
    assert len(_offences(ast.parse(source))) == 1


def test_the_ban_lets_good_code_pass() -> None:
    """Refusing an option is no offence, and a method that shares a builtin's name is none either."""
    assert _offences(ast.parse("model.eval()\nre.compile('x')\nload('x', trust_remote_code=False)")) == []


def test_only_settings_read_the_environment() -> None:
    """Bundle and service take settings as arguments; service/options.py alone reads them from the environment."""
    readers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] != "training"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node) in {"os.environ", "os.getenv", "environ"}
    }

    # service/__init__.py writes one variable, before the runtime is loaded; build.py asks for the user's cache, which is
    # no setting, and is a program of its own
    assert readers <= {"service/options.py", "service/__init__.py", "service/native/build.py"}


def _arrows(package: str, root: Path = ROOT) -> set[tuple[str, str]]:
    """Return which modules of a package import which others of it, by their dotted names."""
    files = [path.relative_to(root).with_suffix("") for path in (root / package).rglob("*.py")]
    modules = {".".join(file.parts) for file in files}
    arrows = set()
    for module in modules:
        for node in ast.walk(_tree(root / f"{module.replace('.', '/')}.py")):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                continue
            arrows |= {(module, name) for name in names & modules}
    return arrows


def _mutual(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of parts, folders or single modules below the root, that import each other."""
    parts = {tuple(".".join(name.split(".")[:2]) for name in arrow) for arrow in arrows}
    return {(one, other) for one, other in parts if one < other and (other, one) in parts}


@pytest.mark.parametrize("package", ["training"])
def test_no_two_packages_import_each_other(package: str) -> None:
    """Inside a package the arrows go one way: no two parts of it import each other."""
    assert _mutual(_arrows(package)) == set()


def test_the_count_sees_two_packages_that_import_each_other(tmp_path: Path) -> None:
    """Two folders whose modules import each other are one pair, however deep and however written."""
    sources = {"a/x": "from p.b import y", "a/z": "", "b/y": "def f():\n    import p.a.z"}
    for name, source in sources.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    assert _mutual(_arrows("p", tmp_path)) == {("p.a", "p.b")}


def test_no_stage_imports_a_later_one() -> None:
    """What a stage imports, directly or through others, holds no stage that runs after it."""
    stages = [module for module, _ in STAGES.values()]
    arrows = _arrows("training")
    for place, stage in enumerate(stages):
        seen, waiting = {stage}, [stage]
        while waiting:
            module = waiting.pop()
            found = {other for one, other in arrows if one == module} - seen
            seen |= found
            waiting += found

        assert seen & set(stages[place + 1 :]) == set()


def test_files_stay_short() -> None:
    """A source file past 300 lines holds a second idea and is split."""
    files = SOURCES + WRITTEN_IN_C
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files}

    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def _run(source: str, **variables: str) -> str:
    """Run a program in a fresh interpreter at the repository's root and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "ORT_", "XDG_"))}
    environment = kept | variables
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_import_service_is_light() -> None:
    """`import service` takes under 0.3 s and loads no training library."""
    report = "import sys, time; t = time.perf_counter(); import service; t = time.perf_counter() - t; import json; "
    told = [json.loads(_run(report + "print(json.dumps([t, sorted(sys.modules)]))")) for _ in range(3)]

    assert {"optimum", "torch", "transformers"}.isdisjoint(told[0][1])
    assert min(seconds for seconds, _ in told) < LONGEST_IMPORT_S


@pytest.mark.parametrize("package", ["service", "training"])
def test_the_runtime_reports_nothing(package: str, tmp_path: Path) -> None:
    """Through our packages the runtime loads with its usage reports off and leaves no device id behind."""
    told = _run(
        f"import {package}, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])", HOME=str(tmp_path)
    )

    assert told.strip() == "1"
    assert list(tmp_path.iterdir()) == []


# An import hook that knows only the distributions of the serving lock, then every module of bundle and service.
_SERVE_ALONE = """
import importlib, pkgutil, sys
allowed, installed = set({allowed!r}), set({installed!r})
class OnlyTheLock:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in installed - allowed:
            raise ModuleNotFoundError(f"{{name}} is not in the serving lock", name=name)
sys.meta_path.insert(0, OnlyTheLock())
for package in ("bundle", "service"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""


def test_the_serving_lock_suffices() -> None:
    """Every module of bundle and service imports with nothing installed but the serving lock."""
    lock = (ROOT / "requirements/serve.lock").read_text(encoding="utf-8")
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    owners = packages_distributions()
    allowed = {
        module
        for module, names in owners.items()
        if locked & {name.lower().replace("_", "-") for name in names}
    }
    imported = _run(_SERVE_ALONE.format(allowed=sorted(allowed), installed=sorted(owners))).split()

    assert {"bundle.text", "bundle.verify"} <= set(imported)


def test_the_two_serving_extras_differ_in_the_runtime_alone() -> None:
    """The extras serve and gpu list the same libraries, each with its own build of the runtime."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    rest = {
        name: [line for line in extras[name] if not line.startswith("onnxruntime")]
        for name in ("serve", "gpu")
    }

    assert rest["serve"] == rest["gpu"]
