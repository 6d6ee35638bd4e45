"""The gate: right where the answer is known, silent where labels cannot tell."""

import numpy as np
import pytest

from worker.arrays import Bools, Floats, Ints
from worker.evaluation.gate import (
    _PENALTIES,
    credit,
    enough,
    is_due,
    judge,
    judged_classes,
    linear_probe,
    nearest_neighbours,
    too_few,
    too_few_unbiased,
)


def clusters(n: int, signal: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Three classes; with a signal of 0 the features know nothing of them."""
    rng = np.random.default_rng(seed)
    classes = np.random.default_rng(9).integers(3, size=n)
    centers = rng.normal(size=(3, 8)) * signal
    return (centers[classes] + rng.normal(size=(n, 8))).astype(np.float32), classes


def all_of(n: int) -> Bools:
    return np.ones(n, np.bool_)


def test_leave_one_out_is_what_it_says() -> None:
    """The closed form against a plain loop that leaves each item out and solves anew."""
    features, classes = clusters(30, signal=0.7)
    inputs = ((features - features.mean(0)) / features.std(0)).astype(np.float64)
    kernel = inputs @ inputs.T + 1
    targets = np.eye(3)[classes]
    best = 0
    for penalty in _PENALTIES * np.linalg.eigvalsh(kernel).mean():
        right = 0
        for left_out in range(30):
            seen = np.arange(30) != left_out
            inner = kernel[np.ix_(seen, seen)] + penalty * np.eye(29)
            answer = kernel[left_out, seen] @ np.linalg.solve(inner, targets[seen])
            right += int(answer.argmax() == classes[left_out])
        best = max(best, right)

    assert linear_probe(features, classes, all_of(30)).sum() == best


def test_probes_know_signal_from_noise() -> None:
    for probe in (linear_probe, nearest_neighbours):
        assert probe(*clusters(200, signal=3), all_of(200)).mean() > 0.9
        assert probe(*clusters(200, signal=0), all_of(200)).mean() < 0.5


def test_what_is_not_taught_changes_nothing_for_the_rest() -> None:
    """Items that only judge: not even their spread is used."""
    features, classes = clusters(100, signal=1)
    taught = np.arange(100) < 60
    others = features + np.where(taught, 0, 100)[:, None].astype(np.float32)
    for probe in (linear_probe, nearest_neighbours):
        alone = probe(features[:60], classes[:60], all_of(60))

        assert (probe(others, classes, taught)[:60] == alone).all()
        assert probe(features, classes, taught)[60:].mean() > 0.5


@pytest.mark.parametrize(
    ("trained", "untrained", "raw", "n", "verdict", "better"),
    [
        (3.0, 0.5, 0.5, 200, "go", None),
        (0.3, 2.0, 0.3, 200, "no-go", "untrained"),
        (0.3, 0.0, 2.0, 200, "no-go", None),
        (0.6, 0.8, 0.6, 40, "not enough labels", None),
    ],
)
def test_verdicts(
    trained: float, untrained: float, raw: float, n: int, verdict: str, better: str | None
) -> None:
    features = [clusters(n, signal, seed)[0] for seed, signal in enumerate((trained, untrained, raw))]

    gate = judge(
        features[0],
        {"untrained": features[1], "raw": features[2]},
        clusters(n, 0)[1],
        taught=all_of(n),
        judged=all_of(n),
        judged_on="random",
        labels=n,
    )

    assert (gate.verdict, gate.better) == (verdict, better)
    assert set(gate.linear) == set(gate.knn) == {"trained", "untrained", "raw"}
    assert f"On {n} labeled items" in gate.reason


def test_the_luck_of_few_labels_is_no_verdict() -> None:
    """Two features that know equally much, 50 labels that teach, 500 items that judge, 100 draws."""
    centers = np.random.default_rng(0).normal(size=(3, 8)) * 0.5
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        classes = rng.integers(3, size=550)
        trained, pixels = (
            (centers[classes] + rng.normal(size=(550, 8))).astype(np.float32) for _ in range(2)
        )
        taught = np.arange(550) < 50
        found.append(judge(trained, {"raw": pixels}, classes, taught, ~taught, "test", 50).verdict)

    assert found.count("no-go") <= 5  # a 95 % interval allows 2.5 on that side


def test_few_labels_are_not_enough() -> None:
    assert not enough(np.arange(39) % 2)
    assert not enough(np.zeros(500, np.int64))
    assert not enough(np.empty(0, np.int64))
    assert enough(np.arange(40) % 2)
    assert too_few(12, 11).verdict == "not enough labels"
    assert "there are 11" in too_few(12, 11).reason


def test_it_says_how_unbiased_labels_come() -> None:
    control, none = too_few_unbiased(300, 31, 0.1), too_few_unbiased(300, 0, 0.0)

    assert control.verdict == none.verdict == "not enough labels"
    assert (control.labels, control.items) == (300, 31)
    assert "among the 300 labeled items so far there are 31" in control.reason
    assert "with about 400 labels" in control.reason
    assert "control_fraction is 0" in none.reason


def test_it_judges_again_when_labels_have_grown_by_a_quarter() -> None:
    assert [is_due(None, labels) for labels in (39, 40)] == [False, True]
    assert [is_due({"labels": 100}, labels) for labels in (100, 124, 125)] == [False, False, True]


def test_a_single_constant_feature_does_no_harm() -> None:
    classes = np.arange(40) % 2
    constant = np.zeros((40, 1), np.float32)

    gate = judge(constant, {"raw": constant}, classes, all_of(40), all_of(40), "random", 40)

    assert gate.verdict in {"go", "not enough labels"}


def doubtful(features: Floats, classes: Ints, n: int) -> Ints:
    """(n,) the rows that lie halfway between two classes: what a strategy that looks at the features asks for."""
    centers = np.stack([features[classes == one].mean(axis=0) for one in range(3)])
    distances = np.sort(((features[:, None] - centers) ** 2).sum(axis=2), axis=1)
    return np.argsort(distances[:, 1] - distances[:, 0])[:n]


@pytest.mark.parametrize(("signal", "verdict"), [(1.0, "go"), (0.0, "no-go")])
def test_labels_that_a_strategy_asked_for_do_not_judge(signal: float, verdict: str) -> None:
    """Embeddings that know the classes better than the pixels do, and embeddings that know nothing: 450 labels by a
    strategy that looks at them, 80 by chance. The strategy's speak against both.
    """
    (trained, classes), (pixels, _) = clusters(2_000, signal), clusters(2_000, 0.9, seed=1)
    control = np.arange(1_920, 2_000)
    rows = np.concatenate([doubtful(trained[:1_920], classes[:1_920], 450), control])
    of_control, n = np.isin(rows, control), len(rows)

    by_all, by_control = (
        judge(trained[rows], {"raw": pixels[rows]}, classes[rows], all_of(n), judged, "control", n)
        for judged in (all_of(n), of_control)
    )

    assert by_all.verdict == "no-go"
    assert by_control.verdict == verdict
    assert by_control.items == 80
    assert "On 80 control items" in by_control.reason


def test_another_space_takes_the_place_only_where_it_is_surely_better() -> None:
    """The verdict stays about what costs nothing."""
    served, classes = clusters(300, signal=0.6)
    noise, _ = clusters(300, signal=0, seed=1)
    everything = all_of(300)
    alike, _ = clusters(300, signal=0.6, seed=2)
    good, _ = clusters(300, signal=3, seed=3)

    found = judge(
        served,
        {"raw": noise, "joined": alike, "trained": noise},
        classes,
        everything,
        everything,
        "control",
        300,
        "pretrained",
    )
    assert (found.verdict, found.better, found.served) == ("go", None, "pretrained")

    found = judge(
        served,
        {"raw": noise, "joined": good, "trained": noise},
        classes,
        everything,
        everything,
        "control",
        300,
        "pretrained",
    )
    assert (found.verdict, found.better) == ("go", "joined")
    assert "surely worse than the trained backbone joined with pretrained weights" in found.reason
    assert set(found.linear) == {"pretrained", "raw", "joined", "trained"}


def members_of(classes: Ints) -> Ints:
    """Of three clusters: one has nothing, one the first class, one the first and the second; a third class is rare."""
    rare = np.random.default_rng(3).random(len(classes)) < 0.05
    return np.column_stack([classes > 0, classes == 2, rare]).astype(np.int64)


@pytest.mark.parametrize(("signal", "raw", "verdict"), [(3.0, 0.0, "go"), (0.0, 2.0, "no-go")])
def test_verdicts_where_items_have_several_classes(signal: float, raw: float, verdict: str) -> None:
    (trained, classes), (rival, _) = clusters(240, signal), clusters(240, raw, seed=1)

    found = judge(trained, {"raw": rival}, members_of(classes), all_of(240), all_of(240), "random", 240)

    assert found.verdict == verdict
    assert "balanced accuracy of 3 classes, by chance 50%" in found.reason
    # Nothing is known of the rare class, whatever the features.
    assert max(found.linear.values()) == pytest.approx((1 + 1 + 0.5) / 3, abs=0.1)
    assert min(found.linear.values()) == pytest.approx(0.5, abs=0.1)
    assert max(found.knn.values()) > 0.7


def test_the_luck_of_few_labels_is_no_verdict_where_items_have_several_classes() -> None:
    """As above: two features that know equally much, of frequent classes and of rare ones; 50 draws."""
    centers = np.random.default_rng(0).normal(size=(4, 8)) * 0.6
    found = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        members = (rng.random((500, 4)) < [0.5, 0.3, 0.1, 0.06]).astype(np.int64)
        trained, raw = ((members @ centers + rng.normal(size=(500, 8))).astype(np.float32) for _ in range(2))
        taught = np.arange(500) < 100
        found.append(judge(trained, {"raw": raw}, members, taught, ~taught, "test", 100).verdict)

    assert found.count("no-go") <= 3


def test_a_rare_class_counts_as_much_as_a_frequent_one() -> None:
    """The mean over the judged items of what each adds is the balanced accuracy, by a plain loop."""
    rng = np.random.default_rng(0)
    members = (rng.random((90, 3)) < [0.5, 0.2, 0.1]).astype(np.int64)
    right, judged = rng.random((90, 3)) < 0.7, np.arange(90) % 2 == 0
    shares = [
        right[judged & (members[:, column] == has), column].mean() for column in range(3) for has in (0, 1)
    ]

    assert credit(right, members, judged).accuracy == pytest.approx(np.mean(shares))


def test_leave_one_out_is_what_it_says_of_several_classes() -> None:
    """Answers by a probe that saw an item itself would be right far more often, of classes that are noise."""
    features = np.random.default_rng(0).normal(size=(60, 200)).astype(np.float32)
    members = (np.random.default_rng(1).random((60, 2)) < 0.5).astype(np.int64)
    for probe in (linear_probe, nearest_neighbours):
        right = probe(features, members, all_of(60))
        assert right.shape == (60, 2)
        assert credit(right, members, all_of(60)).accuracy < 0.65


def test_few_labels_of_several_classes_are_not_enough() -> None:
    members = np.zeros((50, 3), np.int64)
    members[:4, 0], members[:46, 1] = 1, 1  # four have the first, four have not the second
    assert not enough(members)
    members[:5, 2] = 1
    assert enough(members)
    other = members[:, [2, 0, 1]]
    assert not enough(members, other)  # of what teaches, and of what judges, it is another class
    assert not enough(members[:39])
    both = np.concatenate([members, members])
    taught = np.arange(100) < 50
    assert judged_classes(both, taught, ~taught).tolist() == both[:, [2]].tolist()
    assert "a class that 5 of them have and 5 have not" in too_few(12, 11, several=True).reason
    assert "a class that 5 of them have" in too_few_unbiased(300, 31, 0.1, several=True).reason
