"""Times one engine on one model, on lists of real products: the child process of gpu.py, in the environment it made.

Knows the engines that are compared and how each is asked; does not know tables, environments or other engines' figures.
Invariant: every engine gets the same texts and gives logits, and what is timed begins with the texts.

The last line is one JSON document: a list of figures. Half precision throughout, but for the logits that all are held against.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.percentile import percentile
from benchmarks.shared.products import read_products
from bundle import Product

Lists = list[tuple[str, list[str]]]
Logits = NDArray[np.float32]
Engine = Callable[[Lists], Logits]
REFERENCE: Final = "expected.npy"
CHECKED: Final = {"size": 50, "count": 4, "seed": 1}
_PATIENCE_S: Final = 60.0
_POLL_MS: Final = 100
_PEER_BATCH: Final = 256  # pairs; sentence-transformers' own default of 32 leaves a GPU idle


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table; None where the machine does not tell."""

    model: str
    engine: str
    products: int
    lists: int
    p50_ms: float
    p95_ms: float
    pairs_per_s: float
    gpu_percent: float | None
    gpu_mib: float | None
    worst: float


def make_lists(size: int, count: int, seed: int) -> Lists:
    """Return lists of `size` titles of real products with a query each."""
    rng = random.Random(seed)  # noqa: S311 - load, not secrets
    products = read_products()
    titles = [product["title"] for product in products]
    return [(rng.choice(products)["query"], rng.choices(titles, k=size)) for _ in range(count)]


@contextmanager
def shelfrank(folder: Path, device: str) -> Iterator[Engine]:
    """Start the service's scorer on the bundle: queue, workers and engine, all but HTTP and the cache."""
    from service.boot import build_scorer, load_model  # noqa: PLC0415 - each engine's process loads that engine alone
    from service.domain.budget import Terms  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415
    from service.telemetry.metrics import Metrics  # noqa: PLC0415

    settings = Settings(models_root=folder, bundle="measured", device=device, queue_tokens=100_000_000)
    model, scorer = load_model("measured", settings), build_scorer(settings, Metrics())

    async def ranked(lists: Lists) -> Logits:
        terms = Terms(time.monotonic() + _PATIENCE_S, "search", "error", "default")
        rankings = await asyncio.gather(
            *(
                scorer.rank(model, [(query, [Product(text=title) for title in titles])], terms)
                for query, titles in lists
            )
        )
        return np.concatenate([ranking.logits for ranking in rankings])

    scorer.pool.start()
    try:
        with asyncio.Runner() as runner:
            yield lambda lists: runner.run(ranked(lists))
    finally:
        scorer.pool.stop(_PATIENCE_S)


@contextmanager
def plain_torch(folder: Path, device: str, *, half: bool = True) -> Iterator[Engine]:
    """Run the checkpoint in torch: all pairs as one batch, padded to the longest."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    checkpoint, dtype = folder / "checkpoint", torch.float16 if half else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=dtype).to(device).eval()

    def ranked(lists: Lists) -> Logits:
        queries = [query for query, titles in lists for _ in titles]
        titles = [title for _, titles in lists for title in titles]
        with torch.inference_mode():
            feeds = tokenizer(queries, titles, padding=True, truncation=True, return_tensors="pt").to(device)
            logits: Logits = model(**feeds).logits[:, 0].float().cpu().numpy()
        return logits

    yield ranked


@contextmanager
def sentence_transformers(folder: Path, device: str) -> Iterator[Engine]:
    """Ask CrossEncoder.predict, in half precision and without its sigmoid."""
    import torch  # noqa: PLC0415
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    told = {"dtype": torch.float16}
    model = CrossEncoder(str(folder / "checkpoint"), device=device, model_kwargs=told)

    def ranked(lists: Lists) -> Logits:
        pairs = [(query, title) for query, titles in lists for title in titles]
        logits: Logits = model.predict(
            pairs, batch_size=_PEER_BATCH, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return logits.astype(np.float32)

    yield ranked


ENGINES: Final = {
    "shelfrank": shelfrank,
    "shelfrank, TensorRT": lambda folder, _: shelfrank(folder, "tensorrt"),
    "torch": plain_torch,
    "sentence-transformers": sentence_transformers,
}


@contextmanager
def watched() -> Iterator[list[tuple[float, float]]]:
    """Note the GPU's utilisation in percent and its used memory in MiB while the block runs; nothing without one."""
    seen: list[tuple[float, float]] = []
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield seen
        return
    query = [
        "--query-gpu=utilization.gpu,memory.used",
        "--format=csv,noheader,nounits",
        f"--loop-ms={_POLL_MS}",
    ]
    process = subprocess.Popen([tool, *query], stdout=subprocess.PIPE, text=True)  # noqa: S603 - the driver's own tool
    try:
        yield seen
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=10)
        seen += read_samples(output)


def read_samples(output: str) -> list[tuple[float, float]]:
    r"""Return what the tool wrote, a line a sample; a last line that was cut off is left out.

    >>> read_samples("87, 1024\n91, 1024\n93, 10")
    [(87.0, 1024.0), (91.0, 1024.0)]
    """
    pairs = [line.split(",") for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return [(float(percent), float(used)) for percent, used in pairs]


def measure(
    engine: Engine, lists: Lists, *, at_once: int, seconds: float
) -> tuple[list[float], list[tuple[float, float]]]:
    """Return the milliseconds of each call of `at_once` lists, and what the GPU did meanwhile."""
    groups = [lists[start : start + at_once] for start in range(0, len(lists) - at_once + 1, at_once)]
    for group in groups[:3]:
        engine(group)
    times_ms: list[float] = []
    with watched() as seen:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s or len(times_ms) < 3:
            began_s = time.perf_counter()
            engine(groups[len(times_ms) % len(groups)])
            times_ms.append((time.perf_counter() - began_s) * 1_000)
    return times_ms, seen


def figures_of(  # noqa: PLR0913 - each is a column
    model: str,
    engine: str,
    *,
    products: int,
    lists: int,
    times_ms: Sequence[float],
    seen: Sequence[tuple[float, float]],
    worst: float,
) -> Figures:
    """Reduce one measurement to its line."""
    return Figures(
        model=model,
        engine=engine,
        products=products,
        lists=lists,
        p50_ms=statistics.median(times_ms),
        p95_ms=percentile(times_ms, 0.95) or 0.0,
        pairs_per_s=products * lists * len(times_ms) * 1_000 / sum(times_ms),
        gpu_percent=statistics.fmean(each for each, _ in seen) if seen else None,
        gpu_mib=max(each for _, each in seen) if seen else None,
        worst=worst,
    )


def write_reference(folder: Path) -> None:
    """Write what torch computes in fp32, on the CPU, for the lists that every engine is checked on."""
    with plain_torch(folder, "cpu", half=False) as engine:
        np.save(folder / REFERENCE, engine(make_lists(**CHECKED)))


def run(options: argparse.Namespace) -> list[Figures]:
    """Return the figures of one engine for every size of list and number of lists at once."""
    found = []
    checked, expected = make_lists(**CHECKED), np.load(options.folder / REFERENCE)
    with ENGINES[options.engine](options.folder, options.device) as engine:
        worst = float(np.abs(engine(checked) - expected).max())
        for products in options.products:
            for at_once in options.at_once:
                lists = make_lists(products, max(64, 4 * at_once), seed=products)
                times_ms, seen = measure(engine, lists, at_once=at_once, seconds=options.seconds)
                line = figures_of(
                    options.model, options.engine, products=products, lists=at_once,
                    times_ms=times_ms, seen=seen, worst=worst,
                )  # fmt: skip
                found.append(line)
    return found


def main() -> None:
    """Measure one engine and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="what gpu_models.make_model wrote")
    parser.add_argument("--model", required=True, help="name of the model in the table")
    parser.add_argument("--engine", choices=list(ENGINES), required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--products", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=10.0)
    print(json.dumps([asdict(line) for line in run(parser.parse_args())]))


if __name__ == "__main__":
    main()
