"""What `shortlist up` says when an import has ended."""

from service.operations import import_report


def test_every_count_is_told_with_what_to_do() -> None:
    result = {
        "added": 1200,
        "known": 3,
        "changed": 2,
        "moved": 1,
        "quarantined": 5,
        "refused": 4,
        "ignored": 6,
        "missing": 7,
        "refusals": ["One.", "Two.", "Three.", "Four."],
        "quarantine_reasons": [{"reason": "the file is empty", "items": 4}, {"reason": "broken", "items": 1}],
    }
    told = import_report.sentences(result, "p_1")
    assert told[0] == (
        "Imported: 1,200 new items, 3 known, 5 quarantined, 2 changed, 1 moved, 4 refused, 6 ignored."
    )
    text = "\n".join(told)
    for expected in (
        "/projects/p_1/items?state=changed",
        "keep-labels",
        "7 that were there are missing",
        "4: the file is empty",
        "Refused: Three.",
        "and 1 more",
        "6 other files were left out",
        "state=quarantined",
    ):
        assert expected in text
    assert "Four." not in text


def test_where_all_is_well_there_is_one_sentence() -> None:
    assert len(import_report.sentences({"added": 3, "known": 0}, "p_1")) == 1
