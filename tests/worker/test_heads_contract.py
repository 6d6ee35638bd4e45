"""What every head must keep to, whatever it is, and whether it learns from embeddings or from items."""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worker.arrays import Bools, Halves, Ints
from worker.heads import FittedHead, Head, Inputs, heads
from worker.heads.labeled_view import Decoded, ItemNetwork, LabeledItems, LabeledView
from worker.heads.pool_graph import PoolGraph

LEVELS, DIMENSIONS, CLASSES = 8, 32, 3
QUICK = {"finetune": {"steps": 60}}
HEADS = {name: kind.model_validate(QUICK.get(name, {})) for name, kind in heads().items()}
ON_ITEMS = {name: head for name, head in HEADS.items() if head.needs_items}

every_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
every_head_on_embeddings = pytest.mark.parametrize(
    "head",
    [head for head in HEADS.values() if not head.needs_items],
    ids=[name for name in HEADS if name not in ON_ITEMS],
)
every_head_on_items = pytest.mark.parametrize("head", ON_ITEMS.values(), ids=ON_ITEMS)


def backbone() -> nn.Module:
    """Batch (n, 8) -> (n, 32), the same each time."""
    layer = nn.Linear(LEVELS, DIMENSIONS)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
        layer.bias.zero_()
    return nn.Sequential(layer, nn.ReLU())


def prepare(items: Tensor) -> Tensor:
    return (items.float() - 100) / 20


def augment(items: Tensor, generator: torch.Generator) -> Tensor:
    return (items + torch.randint(-5, 6, items.shape, generator=generator)).clamp(0, 200).to(torch.uint8)


NETWORK = ItemNetwork(backbone=backbone, prepare=prepare, device=torch.device("cpu"))


@dataclass(frozen=True)
class Pool:
    """Made-up items: decoded (n, 8) uint8 in one cluster a class, their embeddings (n, 32) and classes (n,)."""

    decoded: Tensor
    embeddings: Halves
    classes: Ints
    readable: Bools

    @staticmethod
    def of(decoded: Tensor, classes: Ints) -> "Pool":
        with torch.no_grad():
            embeddings = backbone()(prepare(decoded)).half().numpy()
        return Pool(decoded, embeddings, classes, np.ones(len(classes), np.bool_))

    def inputs(self, head: Head) -> Inputs:
        return self.decoded if head.needs_items else self.embeddings


def clusters(n: int, n_classes: int = CLASSES, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % n_classes
    centers = np.random.default_rng(99).normal(size=(n_classes, LEVELS)) * 2
    levels = 100 + 20 * (centers[classes] + rng.normal(size=(n, LEVELS)))
    return Pool.of(torch.from_numpy(levels.clip(0, 200).astype(np.uint8)), classes)


def view_of(
    head: Head,
    pool: Pool,
    classes: Ints | None = None,
    *,
    labels: int | None = None,
    n_classes: int = CLASSES,
    reported: list[float] | None = None,
    seed: int = 0,
) -> LabeledView:
    """As the job gives it: the first items of the pool are labeled, and the graph is of the pool and of twins."""
    labels = len(pool.classes) if labels is None else labels
    told: list[float] = [] if reported is None else reported
    everything = np.concatenate([pool.embeddings, pool.embeddings[:40] + np.float16(0.1)])
    graph = PoolGraph(everything, np.random.default_rng(seed))
    decoded = Decoded(pool.decoded, pool.readable)
    items = LabeledItems(
        network=NETWORK,
        labeled=decoded.keep(np.arange(labels)),
        read=lambda rows: decoded.keep(rows % len(pool.classes)),
        augment=augment,
        report=lambda done, message: told.append(done),
    )
    return LabeledView(
        pool.embeddings[:labels],
        pool.classes[:labels] if classes is None else classes,
        n_classes,
        lambda: graph,
        items if head.needs_items else None,
    )


def fit(head: Head, view: LabeledView, seed: int = 0) -> FittedHead:
    return head.fit(view, np.random.default_rng(seed))


@cache
def fitted_to_clusters(head: Head) -> FittedHead:
    """One fit for the tests that ask no more of it."""
    return fit(head, view_of(head, clusters(60)))


@every_head
@pytest.mark.parametrize("n", [1, 2, 3, 11, 60])
def test_probabilities_are_probabilities(head: Head, n: int) -> None:
    fitted = fit(head, view_of(head, clusters(n)))
    probabilities = fitted.probabilities(clusters(40, seed=1).inputs(head))

    assert probabilities.shape == (40, 3)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@every_head
def test_learns_clusters(head: Head) -> None:
    unseen = clusters(300, seed=1)

    probabilities = fitted_to_clusters(head).probabilities(unseen.inputs(head))

    assert (probabilities.argmax(axis=1) == unseen.classes).mean() > 0.9


@every_head
@pytest.mark.parametrize("n", [1, 60])
def test_learns_without_a_pool(head: Head, n: int) -> None:
    unseen, view = clusters(300, seed=1), view_of(head, clusters(n))

    fitted = fit(head, LabeledView(view.embeddings, view.classes, 3, items=view.items))
    probabilities = fitted.probabilities(unseen.inputs(head))

    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert n == 1 or (probabilities.argmax(axis=1) == unseen.classes).mean() > 0.9


@every_head
def test_the_graph_is_made_for_heads_that_ask_for_it_and_once(head: Head) -> None:
    view, made = view_of(head, clusters(30)), 0

    def make_graph() -> PoolGraph:
        nonlocal made
        made += 1
        return PoolGraph(view.embeddings, np.random.default_rng(0))

    fit(head, LabeledView(view.embeddings, view.classes, 3, make_graph, view.items))

    assert made == head.asks_pool
    assert head.asks_pool == (head.name not in ("linear", "mlp"))


@every_head
def test_learns_from_a_part_of_a_view(head: Head) -> None:
    """Rows by number or by mask, as cross-fitting asks for: the others are not seen at all."""
    pool = clusters(60)
    wrong = pool.classes.copy()
    wrong[40:] = 0
    part, view = view_of(head, pool, labels=40), view_of(head, pool, wrong)

    alone, by_number, by_mask = (
        fit(head, each).arrays() for each in (part, view.keep(np.arange(40)), view.keep(np.arange(60) < 40))
    )

    for name, array in alone.items():
        np.testing.assert_array_equal(by_number[name], array)
        np.testing.assert_array_equal(by_mask[name], array)


@every_head
def test_says_what_it_lost_on_labels_held_out(head: Head) -> None:
    unseen, fitted = clusters(300, seed=1), fitted_to_clusters(head)

    loss = -np.log(fitted.probabilities(unseen.inputs(head))[np.arange(300), unseen.classes]).mean()

    near = (
        0.25 if head.needs_items else 0.15
    )  # three folds instead of five: each sees less than the head itself
    assert fitted.held_out_loss == pytest.approx(loss, abs=near)
    assert fitted.name in heads()


@every_head_on_embeddings
def test_cross_fitting_knows_nothing_of_the_labels_of_a_fold(head: Head) -> None:
    """Labels by the dice: a head that had seen them could repeat them. Without them it goes by those of no fold."""
    pool, folds = clusters(90), np.where(np.arange(90) < 45, -1, np.arange(90) % 4)
    dice, asked = pool.classes.copy(), folds >= 0
    dice[asked] = np.random.default_rng(3).permutation(pool.classes[asked])

    answers = []
    for classes in (pool.classes, dice):
        view = view_of(head, pool, classes)
        found = head.cross_fit(fit(head, view), view, folds, np.random.default_rng(0))[asked]
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        answers.append(found.argmax(axis=1))

    assert (answers[0] == pool.classes[asked]).mean() > 0.9
    assert (answers[1] == dice[asked]).mean() < 0.6


@every_head_on_embeddings
def test_cross_fitting_says_what_a_training_without_the_fold_says(head: Head) -> None:
    pool, folds = clusters(90), np.where(np.arange(90) < 45, -1, np.arange(90) % 4)
    view, asked = view_of(head, pool), folds >= 0

    found = head.cross_fit(fit(head, view), view, folds, np.random.default_rng(0))
    each = Head.cross_fit(head, fit(head, view), view, folds, np.random.default_rng(0))

    assert np.abs(found[asked] - each[asked]).mean() < 0.05


@every_head
def test_a_class_never_seen_is_unlikely_but_possible(head: Head) -> None:
    pool = clusters(60)

    probabilities = fit(head, view_of(head, pool, n_classes=5)).probabilities(pool.inputs(head))

    assert (probabilities[:, 3:] > 0).all()
    assert probabilities[:, 3:].sum(axis=1).max() < 0.1


@every_head
def test_one_class_only_is_likely_but_not_certain(head: Head) -> None:
    pool = clusters(20)

    fitted = fit(head, view_of(head, pool, np.full(20, 1)))
    probabilities = fitted.probabilities(pool.inputs(head))

    assert (probabilities[:, 1] > 0.9).all()
    assert (probabilities[:, 1] < 1).all()


@every_head
def test_identical_items_of_two_classes_get_the_classes_shares(head: Head) -> None:
    pool = Pool.of(torch.full((40, LEVELS), 120, dtype=torch.uint8), np.repeat([0, 1], [30, 10]))

    fitted = fit(head, view_of(head, pool, n_classes=2))

    assert fitted.probabilities(pool.inputs(head)[:1])[0, 0] == pytest.approx(0.75, abs=0.1)


@every_head
def test_an_answer_depends_on_nothing_but_its_item(head: Head) -> None:
    unseen, fitted = clusters(150, seed=1).inputs(head), fitted_to_clusters(head)

    together = fitted.probabilities(unseen)

    np.testing.assert_allclose(fitted.probabilities(unseen[70:71]), together[70:71], atol=1e-5)
    assert fitted.probabilities(unseen[:0]).shape == (0, CLASSES)


@every_head
def test_same_seed_same_head(head: Head) -> None:
    pool = clusters(60)

    once, again = (fit(head, view_of(head, pool, seed=5), seed=5).arrays() for _ in range(2))

    assert once.keys() == again.keys()
    for name in once:
        np.testing.assert_array_equal(once[name], again[name])


@every_head
def test_comes_back_from_its_arrays(head: Head) -> None:
    inputs, fitted = clusters(60).inputs(head), fitted_to_clusters(head)

    loaded = head.load(fitted.arrays(), NETWORK if head.needs_items else None)

    np.testing.assert_array_equal(loaded.probabilities(inputs), fitted.probabilities(inputs))
    assert loaded.temperature == pytest.approx(fitted.temperature)
    assert (loaded.held_out_loss, loaded.held_out) == (None, None)
    for array in loaded.arrays().values():
        assert array.dtype == np.float32


@every_head
def test_refuses_embeddings_that_are_not_finite(head: Head) -> None:
    pool = clusters(60)
    pool.embeddings[3] = np.nan

    with pytest.raises(ValueError, match="not finite"):
        fit(head, view_of(head, pool))


@every_head
def test_explains_itself(head: Head) -> None:
    assert len(type(head).__doc__ or "") > 60
    for name, field in type(head).model_fields.items():
        assert field.description, name


@every_head_on_items
def test_held_out_probabilities_know_nothing_of_their_labels(head: Head) -> None:
    """Labels by the dice: a head that had seen them could repeat them, one that had not is right by chance."""
    pool = clusters(45)
    dice = np.random.default_rng(3).permutation(pool.classes)

    fitted, thrown = fit(head, view_of(head, pool)), fit(head, view_of(head, pool, dice))

    assert fitted.held_out is not None
    assert thrown.held_out is not None
    assert thrown.held_out_loss is not None
    np.testing.assert_allclose(thrown.held_out.sum(axis=1), 1, atol=1e-5)
    assert (fitted.held_out.argmax(axis=1) == pool.classes).mean() > 0.8
    assert (thrown.held_out.argmax(axis=1) == dice).mean() < 0.6
    assert thrown.held_out_loss > 0.9


@every_head_on_items
def test_reports_how_far_it_is(head: Head) -> None:
    reported: list[float] = []

    fit(head, view_of(head, clusters(30), reported=reported))

    assert len(reported) > 20
    assert reported == sorted(reported)
    assert reported[-1] == pytest.approx(1)


@every_head_on_items
def test_items_that_cannot_be_read_teach_nothing(head: Head) -> None:
    """Neither labels nor the pool: what stands in their place could be anything."""
    pool, view = clusters(60), partial(view_of, head, labels=40)
    gone = np.isin(np.arange(60), [3, 4, 5, 50, 51])
    arrays = []
    for stand_in in (0, 170):
        decoded = pool.decoded.clone()
        decoded[torch.from_numpy(gone)] = stand_in
        arrays.append(fit(head, view(Pool(decoded, pool.embeddings, pool.classes, ~gone))).arrays())

    once, again = arrays
    for name in once.keys() - {"temperature"}:
        np.testing.assert_array_equal(once[name], again[name])


@every_head_on_items
def test_says_what_it_lacks(head: Head) -> None:
    pool = clusters(20)

    with pytest.raises(ValueError, match="trains on the items themselves"):
        fit(head, LabeledView(pool.embeddings, pool.classes, CLASSES))
    with pytest.raises(ValueError, match="the network it was trained from"):
        head.load(fitted_to_clusters(head).arrays())


class TestSeveralClasses:
    """Heads that tell several classes of an item, each for itself: all of them."""

    @staticmethod
    def members_of(pool: Pool) -> Ints:
        """Cluster 0 is of no class, 1 of the first, 2 of the first and the second; nothing is of the third."""
        return np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]])[pool.classes]

    def fitted(self, head: Head, n: int = 60) -> FittedHead:
        pool = clusters(n)
        return fit(head, view_of(head, pool, self.members_of(pool)))

    def test_every_head_can(self) -> None:
        assert all(head.several for head in HEADS.values())

    @every_head_on_items
    def test_held_out_answers_tell_each_class_for_itself(self, head: Head) -> None:
        pool = clusters(60)

        found = self.fitted(head).held_out

        assert found is not None
        assert ((found > 0.5) == self.members_of(pool)).mean() > 0.9

    @every_head_on_embeddings
    def test_cross_fitting_tells_each_class_for_itself(self, head: Head) -> None:
        pool, folds = clusters(90), np.where(np.arange(90) < 45, -1, np.arange(90) % 4)
        members, asked = self.members_of(pool), folds >= 0
        view = view_of(head, pool, members)

        found = head.cross_fit(fit(head, view), view, folds, np.random.default_rng(0))[asked]

        assert ((found > 0.5) == members[asked]).mean() > 0.9

    @every_head
    @pytest.mark.parametrize("n", [1, 2, 3, 11])
    def test_probabilities_are_probabilities(self, head: Head, n: int) -> None:
        found = self.fitted(head, n).probabilities(clusters(40, seed=1).inputs(head))

        assert found.shape == (40, 3)
        assert found.dtype == np.float32
        assert ((found > 0) & (found < 1)).all()

    @every_head
    def test_learns_each_class_and_that_some_items_have_none(self, head: Head) -> None:
        unseen = clusters(300, seed=1)

        found = self.fitted(head).probabilities(unseen.inputs(head))

        right = (found >= 0.5) == (self.members_of(unseen) == 1)
        assert right.all(axis=1).mean() > 0.9
        assert found[:, 2].max() < 0.2  # a class never seen

    @every_head
    def test_is_as_sure_of_each_class_as_it_is_right(self, head: Head) -> None:
        """Labels of the second class by the dice, three of four times: no head can know more."""
        pool, rng = clusters(200), np.random.default_rng(4)
        members = np.stack([pool.classes == 1, rng.random(200) < 0.75], axis=1).astype(np.int64)

        found = fit(head, view_of(head, pool, members, n_classes=2)).probabilities(
            clusters(200, seed=1).inputs(head)
        )

        assert found[:, 1].mean() == pytest.approx(0.75, abs=0.1)
        assert found[:, 1].std() < 0.2

    @every_head
    def test_comes_back_from_its_arrays(self, head: Head) -> None:
        inputs, fitted = clusters(60).inputs(head), self.fitted(head)

        loaded = head.load(fitted.arrays(), NETWORK)

        np.testing.assert_array_equal(loaded.probabilities(inputs), fitted.probabilities(inputs))
        assert loaded.temperature == pytest.approx(fitted.temperature)

    @every_head
    def test_says_what_it_lost_on_labels_held_out(self, head: Head) -> None:
        unseen, fitted = clusters(300, seed=1), self.fitted(head)

        found, members = fitted.probabilities(unseen.inputs(head)), self.members_of(unseen)

        loss = -np.log(np.where(members == 1, found, 1 - found)).sum(axis=1).mean()
        assert fitted.held_out_loss == pytest.approx(loss, abs=0.25)
