"""Learns a shop's lists several times, each time without some of them, and says what those then look like.

Knows folds, epochs and shares; does not know files of judgments, graphs or bundles.
Invariant: a fold that was finished before a kill is not learnt again, and the model is the base's when a fold begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.folders import part_of
from training.tune.choose import crossed
from training.tune.learn import Settings, learn
from training.tune.lessons import Material, deal
from training.tune.top import Top

SHARES = (0.5, 1.0)  # of the way from the base model to the trained one

Floats = NDArray[np.float32]
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model on the way: after so many epochs, and this share of the way there from the base."""

    epoch: int
    share: float


@dataclass(frozen=True, slots=True)
class Held:
    """Logits of each held-out list under the candidate that was chosen without it, and the candidate for all."""

    places: tuple[int, ...]  # of the lists that were held out
    logits: tuple[Floats, ...]
    best: Candidate


def hold_out(
    top: Top,
    base: State,
    material: Sequence[Material],
    folds: NDArray[np.int64],
    settings: Settings,
    *,
    scratch: Path,
    seed: int,
) -> Held:
    """Learn once without each fold, and score that fold's lists after every epoch at every share."""
    candidates = [Candidate(epoch, share) for epoch in range(1, settings.epochs + 1) for share in SHARES]
    places = [place for place in range(len(material)) if folds[place] >= 0]
    scored: dict[int, list[Floats]] = {}
    for fold in sorted(set(folds[places].tolist())):
        held_out = [place for place in places if folds[place] == fold]
        learnt = [each for place, each in enumerate(material) if folds[place] != fold]
        folder = scratch / f"fold-{fold}"
        print(f"learning {len(learnt)} lists, {len(held_out)} held out", file=sys.stderr)
        without = Fold(top, base, [material[place] for place in held_out], folder)
        without.run(learnt, settings, seed)
        scored |= dict(zip(held_out, without.logits(settings.epochs), strict=True))
    figures = np.array(
        [[material[place].ndcg(scored[place][at]) for place in places] for at in range(len(candidates))]
    )
    chosen, best = crossed(figures, folds[places])
    logits = tuple(scored[place][at] for place, at in zip(places, chosen, strict=True))
    return Held(tuple(places), logits, candidates[best])


@dataclass(frozen=True, slots=True)
class Fold:
    """One training without the lists `held_out`, whose logits are kept in `folder` after each epoch."""

    top: Top
    base: State
    held_out: Sequence[Material]
    folder: Path

    def run(self, learnt: Sequence[Material], settings: Settings, seed: int) -> None:
        """Train from the base model on, unless it was done before."""
        if self._file(settings.epochs).is_file():
            return
        self.top.load_state_dict(self.base)
        learn(
            self.top,
            deal(learnt, seed),
            settings,
            scratch=self.folder / "checkpoints",
            seed=seed,
            after_epoch=self._score,
        )

    def logits(self, epochs: int) -> list[list[Floats]]:
        """Return for each held-out list its logits [n] under every candidate, epoch by epoch and share by share."""
        found: list[list[Floats]] = [[] for _ in self.held_out]
        ends = np.cumsum([len(each.judged) for each in self.held_out])[:-1]
        for epoch in range(1, epochs + 1):
            for logits in np.load(self._file(epoch)):
                for own, part in zip(found, np.split(logits, ends), strict=True):
                    own.append(part)
        return found

    def _file(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}.npy"

    def _score(self, epoch: int) -> bool:
        states = [state for each in self.held_out for state in each.graded]
        rows = []
        for share in SHARES:
            with self.top.between(self.base, share):
                rows.append(self.top.score(states))
        part = part_of(self._file(epoch))
        with open(part, "wb") as file:
            np.save(file, np.stack(rows))
        part.replace(self._file(epoch))
        return True


def learn_all(
    top: Top,
    base: State,
    material: Sequence[Material],
    settings: Settings,
    best: Candidate,
    *,
    scratch: Path,
    seed: int,
) -> None:
    """Give the top the weights of a candidate that learnt from every list."""
    done = scratch / "all.safetensors"
    if not done.is_file():
        top.load_state_dict(base)

        def keep(epoch: int) -> bool:
            if epoch < best.epoch:
                return True
            with top.between(base, best.share):
                save_file(top.copied(), part_of(done))
            os.replace(part_of(done), done)
            return False

        learn(top, deal(material, seed), settings, scratch=scratch / "all", seed=seed, after_epoch=keep)
    top.load_state_dict(load_file(done))
    top.eval()
