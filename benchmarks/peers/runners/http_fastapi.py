"""Server peer: a plain FastAPI service around ort_scorer, as most teams write it. Arguments: folder, port, threads."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from ort_scorer import OrtScorer
from pydantic import BaseModel


class Request(BaseModel):
    """A query and the texts to rank for it."""

    query: str
    documents: list[str]


class Result(BaseModel):
    """Place in the request, and score."""

    index: int
    relevance_score: float


class Response(BaseModel):
    """Results, best first."""

    results: list[Result]


folder, port, threads = sys.argv[1:]
scorer = OrtScorer(Path(folder), int(threads))
app = FastAPI()


@app.post("/rerank")
def rerank(request: Request) -> Response:
    """Rank; without `async`, so that FastAPI computes on its thread pool and not on the event loop."""
    scores = scorer.scores(request.query, request.documents)
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return Response(results=[Result(index=place, relevance_score=scores[place]) for place in order])


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
