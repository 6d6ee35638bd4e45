"""The figures of `shortlist` that go into the report: `results/labels.json`, or `labels-quick.json`."""

from benchmarks.labels.comparison import Compared
from benchmarks.labels.simulation import OWN
from benchmarks.labels.summary import summarise
from benchmarks.report import Figure

_OWN = "shortlist"
_JUNK_POOL, _JUNK_BUDGET = "junk", 1_000


def figures(compared: Compared) -> dict[str, Figure]:
    """Areas under the curve in percentage points. Where random's curve is too short to tell, the efficiency is the
    bound, and its name stands in `label_efficiency_at_least` or `_at_most`.
    """
    found: dict[str, Figure] = {}
    for role in ("development", "confirmation", None):
        for one in summarise(compared, role):
            if one.strategy == _OWN:
                name = role or "all_pools"
                found[f"aulc_minus_random_mean_{name}"] = round(100 * one.mean, 3)
                found[f"pairs_{name}"] = one.pairs
                found[f"pairs_below_random_{name}"] = len(one.below)
    bounds: dict[str, list[str]] = {">": [], "<": []}
    for pool, by_judge in compared.items():
        for judge, arms in by_judge.items():
            by_name = {arm.strategy: arm for arm in arms}
            own, name = by_name[_OWN], f"{judge}_{pool.replace('-', '_')}"
            for budget, efficiency in own.efficiency.items():
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
            if (pool, judge) == (_JUNK_POOL, OWN) and _JUNK_BUDGET in own.junk:
                for arm, suffix in ((own, ""), (by_name["random"], "_random")):
                    found[f"junk_in_1000{suffix}"] = arm.junk[_JUNK_BUDGET]
                    found[f"duplicates_in_1000{suffix}"] = arm.duplicates[_JUNK_BUDGET]
    found["label_efficiency_at_least"] = ", ".join(bounds[">"])
    found["label_efficiency_at_most"] = ", ".join(bounds["<"])
    return found
