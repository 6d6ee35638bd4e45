"""Annotators who leave, a budget that is spent, a pool that runs out."""

from tests.journeys.images import write_images
from tests.journeys.site import Project, Site, until


def test_an_annotator_leaves(site: Site) -> None:
    project = Project(site, "left alone", reservation_ttl_s=2)
    project.add(write_images(site.images / "left alone", 4, ("red", "green")))
    anns = project.next_batch("ann")
    assert len(anns["items"]) == 4
    waiting = site.http.post(f"{project.at}/next-batch", json={"annotator": "bob"})
    assert (waiting.status_code, waiting.json()["reason"]) == (200, "all_reserved")
    assert 1 <= int(waiting.headers["Retry-After"]) <= 3

    bobs = until(lambda: ready if (ready := project.next_batch("bob"))["items"] else None)
    assert {item["id"] for item in bobs["items"]} == {item["id"] for item in anns["items"]}
    first, second = bobs["items"][:2]
    project.label("bob", [first], batch=bobs["batch"])

    # Ann comes back: what she sends is kept, and used where bob was not quicker.
    answer = project.label("ann", [first, second], batch=anns["batch"])
    assert [result["outcome"] for result in answer["results"]] == ["late", "late"]
    assert answer["labels_used"] == 2
    stored = {(label["item"], label["annotator"]): label for label in project.labels()}
    assert len(stored) == 3
    assert [stored[item["id"], "ann"]["outcome"] for item in (first, second)] == ["late", "late"]
    assert [stored[item["id"], "ann"]["used"] for item in (first, second)] == [False, True]
    assert second["id"] not in {item["id"] for item in project.next_batch("bob")["items"]}


def test_the_budget_is_spent(site: Site) -> None:
    project = Project(site, "budget", budget=6)
    project.add(write_images(site.images / "budget", 20, ("red", "green")))
    batch = project.next_batch("ann", 10)
    assert len(batch["items"]) == 6
    # All is promised, not all is used: somebody may give some back.
    held = site.http.post(f"{project.at}/next-batch", json={"annotator": "bob"})
    assert held.json()["reason"] == "budget_spent"
    assert "Retry-After" in held.headers

    assert project.label("ann", batch["items"], batch=batch["batch"])["labels_used"] == 6
    spent = site.http.post(f"{project.at}/next-batch", json={"annotator": "bob"})
    assert (spent.status_code, spent.json()["items"]) == (200, [])
    assert spent.json()["reason"] == "budget_spent"
    assert "Retry-After" not in spent.headers
    assert project.metrics()["budget"] == 6


def test_the_pool_is_exhausted_before_the_round_is_full(site: Site) -> None:
    project = Project(site, "exhausted", round_size=50, retrain_min_labels=5, retrain_min_interval_s=3600)
    project.add(write_images(site.images / "exhausted", 12, ("red", "green")))
    project.pretrain()
    project.label_batch("ann", 50)
    empty = project.next_batch("ann")
    assert (empty["batch"], empty["items"], empty["reason"]) == (None, [], "pool_exhausted")
    (opened,) = project.rounds()
    assert (opened["state"], opened["labels"]) == ("open", 12)

    site.done(site.post(f"{project.at}/retrain"))
    project.settle()
    metrics = project.metrics()
    assert metrics["head"]["trained_on"] == 12
    assert (metrics["ranking"]["items"], metrics["ranking"]["note"]) == (0, "No item is available.")
    assert project.next_batch("ann")["reason"] == "pool_exhausted"
