"""Which models are served, in which roles, and which of them a request is answered by.

Knows models by name and version, and shares of requests; does not know HTTP or how a model is loaded.
Invariant: a request keeps the model that it was given, whatever is served a moment later; a model has one role, and
one that has lost it is not referred to from here. All of it happens on the event loop, so no request sees half a change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.engine.model import LoadedModel
from service.rollout.models import Model, ModelList, Role, describe_model, to_json
from service.rollout.trial import Trial, is_sampled
from service.telemetry.drift import Drift
from service.telemetry.metrics import Metrics
from service.telemetry.model_stats import ModelStats
from service.telemetry.served import Served

CandidateRole = Literal["canary", "shadow"]


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A model that is served, its published facts, the drift of its scores, and its statistics.

    `directory` is the bundle's below the models' root, which may have another name than the model.
    """

    model: LoadedModel
    directory: str = ""
    facts: Model = field(init=False)
    drift: Drift = field(init=False)
    stats: ModelStats = field(init=False, default_factory=ModelStats)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", describe_model(self.model.bundle, self.model.precision))
        object.__setattr__(self, "drift", Drift(self.model.bundle.manifest))


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model beside the stable one: the share of requests that it takes part in, and how it does."""

    version: Version
    share: float
    trial: Trial = field(default_factory=Trial)


class Versions:
    """The stable model, which answers those that name none, candidates beside it, and others that are asked for by name.

    A canary answers a share of those that name none, a shadow nobody.
    """

    def __init__(
        self, stable: Version, others: Sequence[Version] = (), aliases: Mapping[str, str] | None = None
    ) -> None:
        """Serve these models; `aliases` are more names, each for that of a model."""
        self.stable = stable
        self._aliases = aliases or {}
        self.candidates: Mapping[CandidateRole, Candidate] = {}
        self._others = tuple(others)
        self._metrics: Metrics | None = None
        self._index()

    def by_name(self, name: str | None) -> Version | None:
        """Return the model of a name, of name@version or of an alias, or the stable one for None."""
        if name is None:
            return self.stable
        return self._named.get(name) or self._named.get(self._aliases.get(name, ""))

    def choose(self, name: str | None, query: str) -> Version | None:
        """Return the model for a request: of those that name none the canary has its share, always the same queries."""
        canary = self.candidates.get("canary")
        if name is None and canary is not None and is_sampled(query, canary.share, "canary"):
            return canary.version
        return self.by_name(name)

    def roles(self) -> Mapping[Version, Role]:
        """Return every model with its role, the stable one first."""
        return self._roles

    def facts(self, version: Version) -> Model:
        """Return the facts of a model, its role among them."""
        return version.facts.model_copy(update={"role": self._roles[version]})

    def list_json(self) -> bytes:
        """Return the facts of all models as JSON."""
        return to_json(ModelList(data=tuple(map(self.facts, self._roles))))

    def report_to(self, metrics: Metrics) -> None:
        """Report to the metrics what is served, now and after each change."""
        self._metrics = metrics
        self._index()

    def is_taken(self, model: LoadedModel, role: Role) -> bool:
        """Whether a model of this name and version is served in another role."""
        return any(version.facts.id == model.id and other != role for version, other in self._roles.items())

    def replace(self, stable: Version) -> None:
        """Have another model answer; candidates stay and are compared with this one from now on."""
        self.stable = stable
        self.candidates = {
            role: Candidate(candidate.version, candidate.share) for role, candidate in self.candidates.items()
        }
        self._index()

    def admit(self, role: CandidateRole, candidate: Candidate) -> None:
        """Put a model beside the stable one, in the place of another in this role."""
        self.candidates = {**self.candidates, role: candidate}
        self._index()

    def dismiss(self, role: CandidateRole) -> Candidate | None:
        """Take the model of a role out and return it, None if there was none."""
        left = self.candidates.get(role)
        self.candidates = {other: kept for other, kept in self.candidates.items() if other != role}
        self._index()
        return left

    def _index(self) -> None:
        """Work out names and roles; a bare name is that of the first model that has it."""
        ranked: list[tuple[Version, Role]] = [(self.stable, "stable")]
        ranked += [(candidate.version, role) for role, candidate in self.candidates.items()]
        ranked += [(version, "named") for version in self._others]
        self._named: dict[str, Version] = {}
        self._roles: dict[Version, Role] = {}
        for version, role in ranked:
            if version.facts.id not in self._named:
                self._roles[version] = role
                self._named[version.facts.id] = version
                self._named.setdefault(version.facts.name, version)
        if self._metrics is not None:
            self._metrics.served.show(
                Served(role, each.model.bundle, each.model.precision, each.model.device, each.drift)
                for each, role in self._roles.items()
            )
