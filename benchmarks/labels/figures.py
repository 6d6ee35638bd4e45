"""The figures of `shortlist` that go into `results/labels-quick.json`."""

from collections.abc import Sequence

from benchmarks.labels.comparison import Arm
from benchmarks.report import Figure

_OWN = "shortlist"
_JUNK_POOL, _JUNK_BUDGET = "junk", 1_000


def figures(compared: dict[str, list[Arm]], budgets: Sequence[int]) -> dict[str, Figure]:
    """Areas under the curve in percentage points. Where random's curve is too short to tell, the efficiency is the
    bound, and its name stands in `label_efficiency_at_least` or `_at_most`.
    """
    found: dict[str, Figure] = {}
    bounds: dict[str, list[str]] = {">": [], "<": []}
    for pool, arms in compared.items():
        by_name = {arm.strategy: arm for arm in arms}
        own, name = by_name[_OWN], pool.replace("-", "_")
        for budget in budgets:
            efficiency = own.efficiency[budget]
            found[f"label_efficiency_{name}_{budget}"] = round(efficiency.value, 3)
            if efficiency.bound:
                bounds[efficiency.bound].append(f"{name}_{budget}")
        gain = own.aulc_minus_random
        for suffix, value in (("", gain.value), ("_low", gain.low), ("_high", gain.high)):
            found[f"aulc_minus_random_{name}{suffix}"] = round(100 * value, 3)
        peers = [arm for arm in arms if arm.strategy not in (_OWN, "random")]
        if peers:
            best = max(peers, key=lambda arm: arm.aulc.value)
            found[f"best_peer_{name}"] = best.strategy
            found[f"aulc_minus_best_peer_{name}"] = round(100 * (own.aulc.value - best.aulc.value), 3)
        if pool == _JUNK_POOL and _JUNK_BUDGET in own.junk:
            random = by_name["random"]
            found["junk_in_1000"], found["duplicates_in_1000"] = (
                own.junk[_JUNK_BUDGET],
                own.duplicates[_JUNK_BUDGET],
            )
            found["junk_in_1000_random"] = random.junk[_JUNK_BUDGET]
            found["duplicates_in_1000_random"] = random.duplicates[_JUNK_BUDGET]
    found["label_efficiency_at_least"] = ", ".join(bounds[">"])
    found["label_efficiency_at_most"] = ", ".join(bounds["<"])
    return found
