"""Library peer: shelfrank's own scorer with its workers, which is the service without HTTP. Argument: bundle.

It is the only runner that imports this repository; it runs in the interpreter of the benchmark.
"""

import asyncio
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import pipe

from bundle import Product
from service.boot import build_scorer, load_model
from service.domain.budget import DEFAULT_TENANT, Terms
from service.settings import Settings
from service.telemetry.metrics import Metrics

PATIENCE_S = 60.0

settings = Settings(bundle=sys.argv[1])
model = load_model(settings.bundle, settings)
scorer = build_scorer(settings, Metrics())


async def rank(query: str, documents: list[dict[str, str] | str]) -> list[float]:
    """Have the products of a list scored by the workers."""
    products = [Product(text=each) if isinstance(each, str) else Product(**each) for each in documents]
    terms = Terms(time.monotonic() + PATIENCE_S, "search", "error", DEFAULT_TENANT)
    ranking = await scorer.rank(model, [(query, products)], terms)
    return [1 / (1 + math.exp(-logit)) for logit in ranking.logits.tolist()]


scorer.pool.start()
try:
    with asyncio.Runner() as runner:
        pipe.serve(lambda query, documents: runner.run(rank(query, documents)))
finally:
    scorer.pool.stop(PATIENCE_S)
