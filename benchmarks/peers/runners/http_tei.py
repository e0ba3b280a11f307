"""Server peer: an emulation of text-embeddings-inference, see tei_rules. Arguments: folder, port, threads, graph.

Every pair is tokenized by itself on tokenizer threads and queued; one thread takes batches off the queue, while at most one
batch more is held ready; one session has all cores inside a run. It is Python where the original is Rust, so what it spends
beside computing is more than the original's; what it computes, and in which batches, is the same.
"""

import asyncio
import queue
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI
from ort_scorer import OrtScorer
from pydantic import BaseModel
from tei_rules import next_batch
from tokenizers import Encoding, Tokenizer


class Request(BaseModel):
    """The body of /rerank."""

    query: str
    texts: list[str]


class Rank(BaseModel):
    """Place in the request, and score."""

    index: int
    score: float


@dataclass(slots=True)
class Entry:
    """One pair that waits."""

    encoding: Encoding
    future: "asyncio.Future[float]"


class Backend:
    """The queue, and the thread that empties it in batches."""

    def __init__(self, scorer: OrtScorer) -> None:
        self._scorer = scorer
        self._waiting: deque[Entry] = deque()
        self._changed = threading.Condition()  # guards `_waiting`
        self._ready: queue.Queue[list[Entry]] = queue.Queue(1)  # one batch is prefetched
        for target in (self._batch, self._compute):
            threading.Thread(target=target, daemon=True).start()

    def add(self, entry: Entry) -> None:
        """Put a pair at the end of the queue."""
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify()

    def _batch(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = next_batch(
                    self._waiting,
                    lambda entry: len(entry.encoding.ids),
                    lambda entry: entry.future.cancelled(),
                )
            if batch:
                self._ready.put(batch)

    def _compute(self) -> None:
        while True:
            batch = self._ready.get()
            encodings = [entry.encoding for entry in batch]
            width = max(len(each.ids) for each in encodings)
            fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            feeds = {name: np.zeros((len(batch), width), np.int64) for name in fields}
            for row, encoding in enumerate(encodings):
                for name, field in fields.items():
                    feeds[name][row, : len(encoding.ids)] = getattr(encoding, field)
            scores = self._scorer.compute(feeds)
            loop = batch[0].future.get_loop()
            loop.call_soon_threadsafe(_settle, batch, scores)


def _settle(batch: list[Entry], scores: list[float]) -> None:
    for entry, score in zip(batch, scores, strict=True):
        if not entry.future.done():
            entry.future.set_result(score)


folder, port, threads, graph = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()
tokenizers = ThreadPoolExecutor(max(1, int(threads) - 1))
backend = Backend(OrtScorer(Path(folder), int(threads), graph))
app = FastAPI()


@app.post("/rerank")
async def rerank(request: Request) -> list[Rank]:
    """Queue each text as an entry of its own, and answer when the last is scored."""
    loop = asyncio.get_running_loop()

    async def score(text: str) -> float:
        encoding = await loop.run_in_executor(tokenizers, tokenizer.encode, request.query, text)
        entry = Entry(encoding, loop.create_future())
        backend.add(entry)
        return await entry.future

    scores = await asyncio.gather(*map(score, request.texts))
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return [Rank(index=place, score=scores[place]) for place in order]


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
