"""Drives a started service with the clients of other rerankers, and keeps the record of which are served.

Knows where each program runs and what the service itself answers; does not know how a client is asked.
Invariant: what was started is ended by its process id, and the record loses no row that held.

    make clients                    set up, ask all, write docs/clients.md
    make clients ARGS=--check       the same, and write nothing

Exit codes: 0 no row is lost, 1 a row that held before does not, or the service did not start.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clients.table import HELD, PLACE, Line, lost, merged, read, rows, write

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RECORD: Final = REPOSITORY / "docs" / "clients.md"
QUERY: Final = "wireless mouse"
DOCUMENTS: Final = (
    "USB-C charging cable, 2 m",
    "Silent wireless mouse, 2.4 GHz, black",
    "Mouse pad with wrist rest",
    "Wired optical mouse with three buttons",
    "Mechanical keyboard, brown switches",
    "Wireless keyboard and mouse set",
    "Coffee mug with a mouse on it, 330 ml",
    "AA batteries, pack of 12",
)
ROUNDING: Final = 5e-6
"""Scores have six decimals, but some clients carry them in 32 bits, or as probabilities that make them."""

START_TIMEOUT_S: Final = 60
INSTALL_TIMEOUT_S: Final = 900
ASK_TIMEOUT_S: Final = 120
LONGEST_REASON: Final = 160
SPOKEN: Final = ("POST", "Base url")
"""What is no option of a program, but what a request does, or a field of a page."""

QUIET: Final = {  # nothing is asked or told on the network but the service
    "ANONYMIZED_TELEMETRY": "False",
    "AGNO_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "CRITICAL",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class Home:
    """Where programs run: what has to be there, what sets it up, what calls a program, and which there are."""

    name: str
    needs: str
    set_up: Sequence[str]
    call: Sequence[str]
    programs: Sequence[str]


def _python(name: str, *programs: str) -> Home:
    folder = f".venv-clients-{name}"
    lock = f"requirements/clients-{name}.lock"
    return Home(
        f"clients-{name}",
        "bash",
        ["requirements/install", folder, lock],
        [f"{folder}/bin/python"],
        programs,
    )


HOMES: Final = (
    _python(
        "makers",
        *("cohere.py", "voyageai.py", "rerankers.py", "huggingface_hub.py", "openai.py", "tritonclient.py"),
        *("xinference.py", "haystack.py", "agno.py", "dify.py"),
    ),
    _python("frameworks", "langchain.py", "llama_index.py"),
    _python("litellm", "litellm.py"),
    Home(
        "node",
        "npm",
        ["npm", "ci", "--prefix", "clients/node", "--ignore-scripts", "--no-audit", "--no-fund"],
        ["node"],
        [f"node/{stem}.mjs" for stem in ("cohere", "voyageai", "langchain", "ai_sdk", "huggingface")],
    ),
    Home("java", "java", ["java", "-version"], ["java"], ["java/Probe.java"]),
    Home("plain", sys.executable, [], [sys.executable], ["plain.py"]),
)


class NotThere(Exception):
    """A home cannot be set up on this machine; the message says why in one line."""


def set_up(home: Home) -> None:
    """Make a home ready; NotThere with the reason if this machine cannot."""
    if shutil.which(home.needs) is None:
        raise NotThere(f"there is no {home.needs} here")
    if not home.set_up:
        return
    environment = os.environ | {"PIP_NO_COMPILE": "1"}  # most of what is installed is never imported
    try:
        done = subprocess.run(  # noqa: S603  our own roster
            home.set_up,
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotThere(f"it was not set up within {INSTALL_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise NotThere(said[0] if said else _last_line(done.stderr))


@contextmanager
def serving() -> Iterator[str]:
    """Start the service with the default bundle on free ports, and give its address."""
    service = subprocess.Popen(
        [sys.executable, "-m", "service", "--port", "0", "--admin-port", "0"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("SHELFRANK_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    address: Future[str] = Future()

    def listen() -> None:
        last = "it said nothing"
        for last in service.stderr or ():
            event = json.loads(last) if last.startswith("{") else {}
            if event.get("event") == "listening" and not address.done():
                address.set_result(event["url"])
        if not address.done():
            address.set_exception(NotThere(f"the service did not start: {last.strip()}"))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with service:  # which closes its pipe and waits for it
        try:
            yield address.result(START_TIMEOUT_S)
        finally:
            service.terminate()
            listener.join(START_TIMEOUT_S)
            service.kill()  # nothing, if it has ended as it was told


def expected(url: str) -> list[tuple[int, float]]:
    """Return what our own API answers: positions with their scores, best first."""
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS}).encode()
    request = urllib.request.Request(  # noqa: S310  our own process
        f"{url}/v1/rerank", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as answer:  # noqa: S310  as above
        return _results(json.load(answer))


def ask(home: Home, program: str, url: str, right: Sequence[tuple[int, float]]) -> list[Line]:
    """Run a program and judge every row that it prints; one that prints none is a row by itself."""
    print(f"asking {program}", file=sys.stderr, flush=True)
    target = ["-m", f"clients.{Path(program).stem}"] if program.endswith(".py") else [f"clients/{program}"]
    try:
        done = subprocess.run(  # noqa: S603  our own roster
            [*home.call, *target, url, QUERY, *DOCUMENTS],
            cwd=REPOSITORY,
            env=os.environ | QUIET,
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Line(program, program, "", "", f"no: it took longer than {ASK_TIMEOUT_S} s")]
    told = [line for line in done.stdout.splitlines() if line.startswith('{"client":')]
    if done.returncode != 0 or not told:
        return [Line(program, program, "", "", _no(_last_line(done.stderr), url))]
    return [_judged(json.loads(each), program, url, right) for each in told]


def _judged(told: dict[str, Any], program: str, url: str, right: Sequence[tuple[int, float]]) -> Line:
    place = told["value"].format(url=PLACE, host=PLACE.removeprefix("http://"))
    setting = f"{told['name']} {place}" if told["name"] in SPOKEN else f'{told["name"]}="{place}"'
    verdict = HELD
    if "error" in told or "error" in told.get("answer", {}):
        verdict = _no(told.get("error") or told["answer"]["message"], url)
    elif not agree(told.get("ranking") or _results(told["answer"]), right):
        verdict = "no: another order or other scores"
    return Line(told["client"], program, told["version"], setting, verdict)


def agree(ranking: Sequence[Sequence[Any]], right: Sequence[tuple[int, float]]) -> bool:
    """Say whether a ranking is the right one; where a client gives no score of ours, its order counts."""
    return [index for index, _ in ranking] == [index for index, _ in right] and all(
        score is None or abs(score - known) <= ROUNDING
        for (_, score), (_, known) in zip(ranking, right, strict=True)
    )


def _results(answer: dict[str, Any]) -> list[tuple[int, float]]:
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


def _no(reason: str, url: str) -> str:
    """Return a verdict that says why, on one line and without what differs from run to run."""
    words = " ".join(reason.replace(url, PLACE).replace("|", "/").split())
    return f"no: {words[:LONGEST_REASON]}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def ask_all(homes: Sequence[Home]) -> tuple[list[Line], list[str]]:
    """Return the rows of all clients, and the programs that could not be asked here."""
    unasked: list[str] = []

    def visit(home: Home) -> list[Line]:
        try:
            set_up(home)
        except NotThere as reason:
            print(f"{home.name}: not asked here, {reason}", file=sys.stderr, flush=True)
            unasked.extend(home.programs)
            return []
        return [line for program in home.programs for line in ask(home, program, url, right)]

    with serving() as url, ThreadPoolExecutor(len(homes)) as pool:
        right = expected(url)
        lines = [line for found in pool.map(visit, homes) for line in found]
    return lines, unasked


def main(argv: Sequence[str] | None = None) -> int:
    """Ask all clients, print the table, write the record unless a row is lost; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clients.run", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--only", help="homes to ask, with commas between; the others' rows stay as they are")
    options = parser.parse_args(argv)
    wanted = [home for home in HOMES if not options.only or home.name in options.only.split(",")]
    try:
        now, unasked = ask_all(wanted)
    except (NotThere, TimeoutError) as reason:
        print(f"FAILED: {reason or 'the service did not start in time'}", file=sys.stderr)
        return 1
    unasked += [program for home in HOMES if home not in wanted for program in home.programs]
    before = read(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    print(rows(now), end="")
    print(f"{sum(line.held for line in now)} of {len(now)} rows rank as expected")
    if unasked:
        print(f"not asked here, and not counted: {', '.join(unasked)}")
    gone = lost(before, now, unasked)
    if gone:
        print(f"FAILED, these held before:\n{rows(gone)}", end="")
        return 1
    if not options.check:
        RECORD.write_text(write(merged(before, now, unasked)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
