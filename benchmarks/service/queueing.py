"""PURE. How long requests stay at a single server that takes them one after another, as queueing theory has it.

Knows arrival rates and service times; does not know clocks or requests.
Invariant: times are in units of the service times that go in.

It is the yardstick of the curve over load: a service can stay below these figures only by doing less work when lists wait.
"""

import math
from collections.abc import Sequence

import numpy as np

_STEP = 1e-4


def share_waiting_at_most(wait: float, load: float) -> float:
    """Return the share of requests that wait no longer, in service times: Poisson arrivals, equal service times (M/D/1).

    P(W <= t) = (1 - rho) sum over k <= t of (rho (k - t))^k / k! e^(rho (t - k)).
    Reference: Erlang, "The Theory of Probabilities and Telephone Conversations", 1909.

    An idle server is found with probability 1 - rho, and e^rho of them wait for at most one service:

    >>> round(share_waiting_at_most(0.0, 0.3), 3), round(share_waiting_at_most(1.0, 0.3), 4)
    (0.7, 0.9449)
    """
    terms = (
        (load * (done - wait)) ** done / math.factorial(done) * math.exp(load * (wait - done))
        for done in range(math.floor(wait) + 1)
    )
    return (1 - load) * sum(terms)


def equal_times_quantile(load: float, share: float) -> float:
    """Return the time from arrival to answer, in service times, that `share` of the requests do not exceed.

    >>> round(equal_times_quantile(0.3, 0.99), 2), equal_times_quantile(0.3, 0.5)
    (2.89, 1.0)
    """
    wait = 0.0
    while share_waiting_at_most(wait, load) < share:
        wait += _STEP
    return 1.0 + wait


def highest_load(most: float, share: float) -> float:
    """Return the load up to which `share` of the requests stay no longer than `most` service times.

    >>> round(highest_load(2.0, 0.99), 3)
    0.135
    """
    low, high = 0.0, 1.0
    while high - low > _STEP:
        middle = (low + high) / 2
        if share_waiting_at_most(most - 1.0, middle) >= share:
            low = middle
        else:
            high = middle
    return low


def least_late_share(most: float, load: float) -> float:
    """Return the share of requests that stay longer than `most` service times even if nothing is spent on those.

    Requests that would be late are put aside on arrival and cost nothing: no order of work lets more of them be in time.
    (1 - rho) P(W > t) / (1 - rho P(W > t)) with t = most - 1.
    Reference: de Kok and Tijms, "A queueing system with impatient customers", 1985.

    >>> round(least_late_share(2.0, 0.3), 3)
    0.039
    """
    waiting_longer = 1 - share_waiting_at_most(most - 1.0, load)
    return (1 - load) * waiting_longer / (1 - load * waiting_longer)


def simulate(service_s: Sequence[float], rate: float, requests: int = 200_000, seed: int = 0) -> list[float]:
    """Return how long requests stay that come at random at `rate` a second and take times drawn from `service_s`.

    Each waits for the one before it: stay = service + max(0, stay of the one before - gap since it came).
    """
    rng = np.random.default_rng(seed)
    gaps_s = rng.exponential(1 / rate, requests).tolist()
    services_s = rng.choice(np.asarray(service_s), requests).tolist()
    stays, before = [], 0.0
    for gap_s, took_s in zip(gaps_s, services_s, strict=True):
        before = took_s + max(0.0, before - gap_s)
        stays.append(before)
    return stays
