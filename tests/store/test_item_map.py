import numpy as np

from service.store.artifacts import Artifacts
from service.store.item_map import Guesses, ItemMap

CLASSES = ["cat", "dog", "owl"]


def test_an_outline_holds_what_a_plain_loop_finds_in_it() -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 65_536, (500, 2)).astype(np.uint16)
    found = ItemMap(np.arange(500), places, np.zeros(500, np.uint8))
    outline = np.array([[0, 0], [60_000, 10_000], [30_000, 30_000], [50_000, 65_000], [5_000, 40_000]], float)

    def is_inside(x: float, y: float) -> bool:
        inside = False
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
                inside = not inside
        return inside

    expected = [row for row, (x, y) in enumerate(places.tolist()) if is_inside(x, y)]
    assert found.inside(outline).tolist() == expected
    assert 0 < len(expected) < 500


def test_guesses_of_several_classes_come_back(artifacts: Artifacts) -> None:
    probabilities = np.random.default_rng(0).random((5, 11)).astype(np.float32)
    names = [f"class {number}" for number in range(11)]
    with artifacts.writing("scores/1/arrays/ids.npy") as file:
        np.save(file, np.arange(6))
    made = Guesses.of(names, np.arange(6), np.array([0, 1, 2, 4, 5]), probabilities, several=True)

    made.store(artifacts, "scores/1/arrays", 3)
    found = Guesses.load(artifacts, "scores/1/arrays", 3)

    assert found is not None
    assert (found.classes == made.classes).all()
    assert (
        found.have("class 10").tolist()
        == np.insert((probabilities[:, 10] >= 0.5).astype(int), 3, -1).tolist()
    )
    assert found.have("no such class").tolist() == [-1] * 6
    assert found.doubts.tolist() == [
        *(round(254 * float(1 - abs(2 * row - 1).mean())) for row in probabilities[:3]),
        255,
        *(round(254 * float(1 - abs(2 * row - 1).mean())) for row in probabilities[3:]),
    ]


def test_doubt_is_what_two_classes_leave_open() -> None:
    probabilities = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.1, 0.3, 0.6]], np.float32)
    found = Guesses.of(CLASSES, np.arange(4), np.array([0, 1, 3]), probabilities)
    assert found.classes.tolist() == [0, 0, -1, 2]
    assert found.doubts.tolist() == [254, 0, 255, round(0.7 * 254)]
    of_one_class = Guesses.of(CLASSES[:1], np.arange(1), np.array([0]), np.ones((1, 1), np.float32))
    assert of_one_class.doubts.tolist() == [0]
