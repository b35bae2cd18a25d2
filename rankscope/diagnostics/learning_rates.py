"""Learning rate and restarts: warm-ups that do not follow restarts, and steps without any rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

# A dip: the rate falls at once by more than this factor and climbs again by as much. No decay does
# the second, and the warm-up at the start not the first.
DIP = 0.8
SLACK = 1  # steps: some logs state the rate of an update, some the one after it
NO_WARMUP, FIRST = 0.9, 3  # share of the rate before, and how many updates of a cycle are looked at

MISALIGNED = Kind(
    "learning-rate-misaligned",
    "warning",
    "The learning rate dips and warms up, but not where the adapters restart: new adapters meet a "
    "high rate, and part of the cycle is wasted.",
    "Let one counter, the update step, control both: a merge comes before the first update of a "
    "warm-up.",
)
WITHOUT_WARMUP = Kind(
    "restart-without-warmup",
    "warning",
    "With empty moments, Adam's first updates are as large as the rate, whatever the gradient, so "
    "new adapters start with large random steps.",
    "Warm up after each restart, over 50 to 100 updates or a tenth of a short cycle.",
)
ZERO_RATE = Kind(
    "learning-rate-zero",
    "note",
    "The batches of these steps train nothing, while Adam's moments are still updated.",
    "Start the warm-up at 1/length instead of 0.",
)


def check_learning_rates(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the logged learning rate with the steps of the restarts."""
    rates = _rates(evidence)
    steps = list(rates)
    zero = [step for step in steps[:-1] if rates[step] == 0]
    if zero:
        text = f"the log states a learning rate of 0 at {len(zero)} of {len(steps)} steps"
        yield ZERO_RATE.at(evidence.place.of(zero), text, {"steps": len(zero)})
    if not evidence.restarts:
        return
    if len(steps) < 3:
        reason = "the log has no learning rates"
        yield Unchecked(evidence.run.name, MISALIGNED.code, reason)
        return
    yield from _dips_elsewhere(evidence, rates)
    yield from _restarts_without_warmup(evidence, rates)


def _rates(evidence: Evidence) -> dict[int, float]:
    """Logged learning rates by step, ascending."""
    known = {
        record["step"]: float(record["learning_rate"])
        for record in evidence.log
        if isinstance(record.get("learning_rate"), int | float)
        and math.isfinite(record["learning_rate"])
    }
    return dict(sorted(known.items()))


def _dips_elsewhere(evidence: Evidence, rates: dict[int, float]) -> Iterator[Finding]:
    restarts, steps = evidence.restarts, list(rates)
    elsewhere = []
    for index in range(1, len(steps) - 1):
        before, at = steps[index - 1], steps[index]
        climbs = max(rates[step] for step in steps[index + 1 : index + 4]) * DIP > rates[at]
        is_dip = climbs and rates[at] < DIP * rates[before]
        if is_dip and not any(before - SLACK <= one <= at + SLACK for one in evidence.warm_ups):
            elsewhere.append((before, at))
    if elsewhere:
        before, at = elsewhere[0]
        text = (
            f"{len(elsewhere)} dips of the learning rate are at no restart, the first between "
            f"steps {before} and {at}; the restarts are at {', '.join(map(str, restarts[:4]))}"
            f"{', …' if len(restarts) > 4 else ''}"
        )
        place = evidence.place.of(at for _, at in elsewhere)
        yield MISALIGNED.at(place, text, {"dips": len(elsewhere), "restarts": len(restarts)})


def _restarts_without_warmup(evidence: Evidence, rates: dict[int, float]) -> Iterator[Finding]:
    """Restarts at whose first updates the rate is logged, and never below that before."""
    flat = {}
    for restart in evidence.restarts:
        before = [rate for step, rate in rates.items() if step < restart]
        first = [rates[step] for step in range(restart, restart + FIRST) if step in rates]
        if before and len(first) > 1 and min(first) >= NO_WARMUP * before[-1] > 0:
            flat[restart] = min(first)
    if flat:
        text = (
            f"in the first updates after {len(flat)} of {len(evidence.restarts)} restarts the "
            f"learning rate is as high as before, {next(iter(flat.values())):.2g} after the first"
        )
        yield WITHOUT_WARMUP.at(evidence.place.of(flat), text, {"restarts": len(flat)})
