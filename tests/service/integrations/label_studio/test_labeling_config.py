"""Labeling configurations: which control says the class, and what results of each kind say."""

from typing import Any

import pytest

from service.integrations.label_studio.errors import LabelingConfigUnusable
from service.integrations.label_studio.labeling_config import NoClass, as_project_writes, parse

LABELS = '<Label value="cat"/><Label value="dog" alias="d"/>'
CHOICES = '<Choice value="cat"/><Choice value="dog" alias="d"/>'
TREE = '<Choice value="Animals"><Choice value="Cat"/><Choice value="Dog"/></Choice><Choice value="Other"/>'


def image(control: str) -> str:
    return f'<View><Header value="Pets"/><Image name="img" value="$picture"/>{control}</View>'


def region(kind: str, named: Any) -> dict[str, Any]:
    return {"from_name": "c", "to_name": "img", "type": kind, "value": {"x": 1.5, kind: named}}


@pytest.mark.parametrize(
    ("tag", "inside", "kind", "named", "classes", "says"),
    [
        ("Choices", CHOICES, "choices", ["d"], ("cat", "d"), "d"),
        ("RectangleLabels", LABELS, "rectanglelabels", ["cat"], ("cat", "d"), "cat"),
        ("PolygonLabels", LABELS, "polygonlabels", ["cat"], ("cat", "d"), "cat"),
        ("BrushLabels", LABELS, "brushlabels", ["d"], ("cat", "d"), "d"),
        ("KeyPointLabels", LABELS, "keypointlabels", ["cat"], ("cat", "d"), "cat"),
        ("Labels", LABELS, "labels", ["cat"], ("cat", "d"), "cat"),
        (
            "Taxonomy",
            TREE,
            "taxonomy",
            [["Animals", "Cat"]],
            ("Animals/Cat", "Animals/Dog", "Other"),
            "Animals/Cat",
        ),
    ],
)
def test_every_control(
    tag: str, inside: str, kind: str, named: Any, classes: tuple[str, ...], says: str
) -> None:
    config = parse(image(f'<{tag} name="c" toName="img">{inside}</{tag}>'))
    assert (config.kind, config.data_key, config.control) == ("image", "picture", tag)
    assert config.classes == classes
    assert config.class_in([region(kind, named), region(kind, named)]) == says
    assert type(config).stored(config.as_row()) == config


def test_several_choices_of_an_item() -> None:
    several = parse(image(f'<Choices name="c" toName="img" choice="multiple">{CHOICES}</Choices>'))
    assert several.several
    assert several.classes_in([region("choices", ["d", "cat", "d"])]) == ["d", "cat"]
    assert several.classes_in([]) == []
    assert type(several).stored(several.as_row()) == several
    assert not parse(image(f'<Choices name="c" toName="img" choice="single">{CHOICES}</Choices>')).several
    assert not parse(image(f'<RectangleLabels name="c" toName="img">{LABELS}</RectangleLabels>')).several
    before = {name: value for name, value in several.as_row().items() if name != "several"}
    assert not type(several).stored(before).several  # connected before it was told


def test_the_class_of_the_whole_item_goes_first() -> None:
    boxes = f'<RectangleLabels name="box" toName="img">{LABELS}</RectangleLabels>'
    choices = f'<Choices name="c" toName="other, img">{CHOICES}</Choices>'
    config = parse(image(boxes + choices))
    assert (config.control, config.from_name) == ("Choices", "c")
    box = {"from_name": "box", "value": {"rectanglelabels": ["dog"]}}
    assert config.class_in([box, region("choices", ["cat"])]) == "cat"


def test_texts() -> None:
    config = parse(
        f'<View><Text name="t" value="$text"/><Labels name="c" toName="t">{LABELS}</Labels></View>'
    )
    assert (config.kind, config.data_key) == ("text", "text")


@pytest.mark.parametrize(
    ("tag", "kind", "by_url"),
    [
        ('HyperText name="o" value="$at"', "text", False),
        ('Text name="o" value="$at" valueType="url"', "text", True),
        ('Audio name="o" value="$at" zoom="true"', "audio", False),
    ],
)
def test_other_objects(tag: str, kind: str, by_url: bool) -> None:
    config = parse(f'<View><{tag}/><Choices name="c" toName="o">{CHOICES}</Choices></View>')
    assert (config.kind, config.data_key, config.text_at_url) == (kind, "at", by_url)


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        [],
        [3],
        [{"from_name": "c"}],
        [{"from_name": "c", "value": 3}],
        [{"from_name": "c", "value": {"choices": "cat"}}],
        [region("other", ["cat"])],
    ],
)
def test_results_without_a_class(result: Any) -> None:
    config = parse(image(f'<Choices name="c" toName="img">{CHOICES}</Choices>'))
    with pytest.raises(NoClass, match="it names no class with Choices 'c'"):
        config.class_in(result)


def test_several_classes_are_told() -> None:
    config = parse(image(f'<Choices name="c" toName="img" choice="multiple">{CHOICES}</Choices>'))
    with pytest.raises(
        NoClass, match="it names 2 classes \\('cat', 'd'\\), and an item of this project has one"
    ):
        config.class_in([region("choices", ["cat", "d"])])


@pytest.mark.parametrize(
    ("control", "classes"),
    [
        (f'<Choices name="c" toName="img" choice="multiple">{CHOICES}</Choices>', ["cat", "d"]),
        (f'<Taxonomy name="c" toName="img">{TREE}</Taxonomy>', ["Animals/Cat"]),
    ],
)
def test_a_result_is_read_as_it_was_made(control: str, classes: list[str]) -> None:
    config = parse(image(control))
    (made,) = config.result_of(classes)
    assert config.classes_in([made]) == classes
    assert (made["to_name"], made["type"]) == ("img", config.control.lower())
    assert config.result_of([]) == []


def test_a_choice_of_one_is_never_shown_several() -> None:
    config = parse(image(f'<Choices name="c" toName="img">{CHOICES}</Choices>'))
    assert config.result_of(["cat", "d"]) == []
    assert len(config.result_of(["cat"])) == 1


def test_where_boxes_are_nobody_knows_without_looking() -> None:
    config = parse(image(f'<RectangleLabels name="c" toName="img">{LABELS}</RectangleLabels>'))
    assert config.result_of(["cat"]) == []


def test_entities_are_never_expanded() -> None:
    bomb = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>'
    with pytest.raises(LabelingConfigUnusable, match="document type"):
        parse(bomb)


def test_a_comment_and_character_data_do_no_harm() -> None:
    style = "<Style><![CDATA[ .a > .b { } ]]></Style><!-- <Choices/> -->"
    assert parse(image(f'{style}<Choices name="c" toName="img">{CHOICES}</Choices>')).control == "Choices"


@pytest.mark.parametrize(
    ("name", "classes", "found"),
    [
        ("cat", ["cat", "Cat"], "cat"),
        ("CAT", ["cat", "dog"], "cat"),
        ("CAT", ["cat", "Cat"], "CAT"),  # either may be meant
        ("bird", ["cat"], "bird"),
    ],
)
def test_classes_that_differ_in_case(name: str, classes: list[str], found: str) -> None:
    assert as_project_writes(name, classes) == found
