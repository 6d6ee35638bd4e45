"""Places of many graphs: TU folders, files of molecules, edge lists, and one graph whose nodes are the items."""

import importlib.util
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.content import limits_of
from service.content.contract import Content
from service.content.graph import CONTENT, read_graph
from service.content.image import CONTENT as IMAGES
from service.content.listing import Candidate
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.errors import BadItem, SourceNotAllowed, SourceUnreadable
from service.operations.up import check_items
from service.settings import Settings

LIMITS = limits_of(Settings())
with_rdkit = pytest.mark.skipif(
    importlib.util.find_spec("rdkit") is None,
    reason="RDKit reads molecules: pip install 'shortlist[chemistry]'",
)

TU = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n5, 5\n",
    "graph_indicator": "1\n1\n1\n2\n2\n",
    "node_labels": "0\n1\n0\n2\n2\n",
    "graph_labels": "1\n-1\n",
}
MOL = """{name}
  made

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.0000    0.0000    0.0000 {atom}   0  0
  1  2  {bond}  0
M  END
> <Class>
{label}

$$$$
"""


def reader(root: Path) -> ItemBytes:
    return ItemBytes(Settings(source_roots=(str(root),), data_dir=root / "data"))


def listed(
    root: Path, uri: object, label: str | None = None, content: Content | None = CONTENT
) -> list[Candidate]:
    return list(list_source(str(uri), reader(root), label, content))


def shown(root: Path, one: Candidate) -> dict[str, Any]:
    data = reader(root).read(one.uri)
    assert one.data in (None, data)
    found: dict[str, Any] = json.loads(data)
    return found


def write_tu(folder: Path, **changed: str | None) -> Path:
    folder.mkdir()
    for name, text in (TU | changed).items():
        if text is not None:
            (folder / f"MINE_{name}.txt").write_text(text)
    return folder


def test_a_folder_of_tu_dortmund(tmp_path: Path) -> None:
    folder = write_tu(tmp_path / "MINE")
    assert list_source(str(folder), reader(tmp_path), None, None).tell() is CONTENT
    found = listed(tmp_path, folder)

    assert [(one.key, one.class_name) for one in found] == [("1", "1"), ("2", "-1")]
    assert shown(tmp_path, found[0]) == {
        "nodes": [{"id": 0, "tag": "0"}, {"id": 1, "tag": "1"}, {"id": 2, "tag": "0"}],
        "edges": [[0, 1], [1, 2]],
    }
    assert CONTENT.inspect(reader(tmp_path).read(found[1].uri), LIMITS) == {
        "nodes": 2,
        "edges": 1,
        "tags": 1,
        "loops": 1,
    }
    (folder / "MINE_node_labels.txt").write_text("7\n7\n7\n7\n7\n")  # an open folder is read anew
    assert shown(tmp_path, listed(tmp_path, folder)[0])["nodes"][1]["tag"] == "7"


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_the_archive_that_it_comes_in(ending: str, tmp_path: Path) -> None:
    folder = write_tu(tmp_path / "MINE")
    (folder / "README.txt").write_text("Cite us.")
    kind = {"zip": "zip", "tar.gz": "gztar"}[ending]
    archive = shutil.make_archive(str(tmp_path / "MINE"), kind, root_dir=tmp_path, base_dir="MINE")
    assert list_source(archive, reader(tmp_path), None, None).tell() is CONTENT
    found, unpacked = listed(tmp_path, archive), listed(tmp_path, folder)

    assert found[1].uri == f"{archive}#graph=2"
    assert [(one.key, one.class_name) for one in found] == [(one.key, one.class_name) for one in unpacked]
    assert [shown(tmp_path, one) for one in found] == [shown(tmp_path, one) for one in unpacked]
    Path(archive).unlink()
    with pytest.raises(SourceUnreadable, match="there is no such file"):
        reader(tmp_path).read(found[1].uri)


def test_files_of_one_data_set_are_never_read_with_those_of_another(tmp_path: Path) -> None:
    """Neither of an archive with several, nor of a folder; what macOS packs beside each file is none."""
    write_tu(tmp_path / "first", graph_labels=None)
    write_tu(tmp_path / "second")
    both, one = tmp_path / "both.zip", tmp_path / "one.zip"
    with zipfile.ZipFile(both, "w") as every, zipfile.ZipFile(one, "w") as single:
        for path in sorted(tmp_path.glob("*/MINE_*.txt")):
            every.write(path, str(path.relative_to(tmp_path)))
            if path.parent.name == "first":
                single.write(path, f"first/{path.name}")
                single.writestr(f"__MACOSX/first/._{path.name}", b"\0\5\x16\7")
                single.writestr(f"first/._{path.name}", b"\0\5\x16\7")
    with pytest.raises(SourceUnreadable, match=r"in several folders \(first, second\): unpack it"):
        listed(tmp_path, both)
    assert [one.class_name for one in listed(tmp_path, one)] == [None, None]

    for path in (tmp_path / "first").iterdir():
        shutil.copy(path, tmp_path / "second" / path.name.replace("MINE", "OTHER"))
    with pytest.raises(SourceUnreadable, match=r"several data sets \(MINE, OTHER\): give each a folder"):
        listed(tmp_path, tmp_path / "second")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"A": "1, 2\n2,"}, "MINE_A.txt is broken or truncated"),
        ({"A": "1, 9\n"}, "a node that is none of the 5"),
        ({"A": "1, 4\n"}, "an edge between two graphs"),
        ({"graph_indicator": ""}, "names no graph"),
        ({"graph_indicator": "1\nx\n"}, "broken or truncated"),
        ({"node_labels": "0\n"}, "has 1 lines and not 5"),
        ({"graph_labels": "0\n1\n1\n"}, "has 3 lines and not 2"),
    ],
)
def test_a_broken_data_set_says_which_file(changed: dict[str, str], words: str, tmp_path: Path) -> None:
    folder = write_tu(tmp_path / "MINE", **changed)
    with pytest.raises(SourceUnreadable, match=words):
        listed(tmp_path, folder)


def test_an_edge_list_and_what_a_file_beside_it_says_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "a.edges").write_text("% made\n1 2 0.5\n2 3 0.1\n")
    (tmp_path / "a.nodes").write_text("id,mass,tag\n1,12,C\n2,16,O\n9,1,H\n")
    (tmp_path / "b.edgelist").write_text('source,target\n"a","b"\nb,b\n# nodes\na,x\n')
    stamp = reader(tmp_path).stamp(str(tmp_path / "a.edges"))
    first, second = (read_graph(reader(tmp_path).read(one.uri), LIMITS) for one in listed(tmp_path, tmp_path))

    assert (first.tags, first.edges) == (["C", "O", "H", None], [(0, 1), (1, 3)])
    assert (second.tags, second.edges, second.loops) == (["x", None], [(0, 1)], 1)
    (tmp_path / "a.nodes").write_text("1 N\n")
    assert reader(tmp_path).stamp(str(tmp_path / "a.edges")) != stamp
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.edges", "a.nodes", "b.edgelist"):
            archive.write(tmp_path / name, name)
    found = [reader(tmp_path).read(one.uri) for one in listed(tmp_path, tmp_path / "a.zip")]
    assert [read_graph(data, LIMITS).tags[0] for data in found] == ["N", "x"]


# ---- nodes that are items ----


def write_network(folder: Path) -> str:
    """A path of six nodes, a star around `hub`, and one alone."""
    pairs = [(f"p{one}", f"p{one + 1}") for one in range(5)] + [("hub", f"s{one}") for one in range(40)]
    (folder / "net.csv.edges").write_text("".join(f"{one},{other}\n" for one, other in pairs))
    nodes = ["id,kind,dept", *(f"p{one},path,{one % 2}" for one in range(6)), "alone,none,0"]
    (folder / "nodes.csv").write_text("\n".join(nodes))
    return f"{folder}/net.csv.edges#nodes"


def test_an_item_is_what_is_around_a_node(tmp_path: Path) -> None:
    uri = write_network(tmp_path)
    found = {one.key: one for one in listed(tmp_path, f"{uri}&attributes=nodes.csv", "dept")}

    assert len(found) == 6 + 41 + 1
    assert (found["p2"].class_name, found["p1"].class_name, found["hub"].class_name) == ("0", "1", None)
    of_p1 = shown(tmp_path, found["p1"])
    assert {one["id"] for one in of_p1["nodes"]} == {"p0", "p1", "p2", "p3"}
    assert of_p1["nodes"][0] == {"id": "p1", "tag": "*path"}  # itself, marked; its class is told nowhere
    assert {tuple(sorted(pair)) for pair in of_p1["edges"]} == {("p0", "p1"), ("p1", "p2"), ("p2", "p3")}
    assert CONTENT.inspect(reader(tmp_path).read(found["alone"].uri), LIMITS)["nodes"] == 1


def test_of_a_large_neighbourhood_the_same_nodes_are_drawn_each_time(tmp_path: Path) -> None:
    uri = write_network(tmp_path)
    found = {one.key: one for one in listed(tmp_path, f"{uri}&hops=1&most=8")}
    of_hub = shown(tmp_path, found["hub"])

    assert len(of_hub["nodes"]) == 8
    assert len(of_hub["edges"]) == 7
    assert of_hub == shown(tmp_path, found["hub"])
    drawn = [one["id"] for one in of_hub["nodes"][1:]]
    assert drawn != [f"s{one}" for one in range(7)]
    # An edge elsewhere changes nothing here.
    with (tmp_path / "net.csv.edges").open("a") as file:
        file.write("p5,p6\n")
    assert of_hub == shown(tmp_path, found["hub"])


def test_nodes_of_other_formats_and_with_numbers_for_ids(tmp_path: Path) -> None:
    nodes = [{"id": 1, "label": "A"}, {"id": "é #&/?", "label": "B"}, {"id": 3}]
    (tmp_path / "g.json").write_text(json.dumps({"nodes": nodes, "edges": [[1, "é #&/?"], [3, 3]]}))
    found = listed(tmp_path, f"{tmp_path}/g.json#nodes")

    assert [one.key for one in found] == ["1", "é #&/?", "3"]
    assert [one["tag"] for one in shown(tmp_path, found[1])["nodes"]] == ["*B", "A"]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("&hops=9", "1 to 4"),
        ("&most=x", "2 to 1,024"),
        ("&depth=2", "`&tag=`"),
        ("&attributes=none.csv", "no such file"),
        ("&attributes=../secret.csv", "allowed folder"),
    ],
)
def test_what_stands_after_nodes_is_checked(rest: str, words: str, tmp_path: Path) -> None:
    uri = write_network(tmp_path)
    with pytest.raises((SourceUnreadable, SourceNotAllowed), match=words):
        listed(tmp_path, uri + rest)


def test_a_graph_whose_nodes_are_items_where_that_cannot_be(tmp_path: Path) -> None:
    uri = write_network(tmp_path)
    with pytest.raises(SourceUnreadable, match="write `#nodes` after it"):
        listed(tmp_path, uri.removesuffix("#nodes"))
    with pytest.raises(SourceUnreadable, match="this project is of images"):
        listed(tmp_path, uri, content=IMAGES)
    with pytest.raises(SourceUnreadable, match="no node has an attribute 'team'; there are dept, kind"):
        listed(tmp_path, f"{uri}&attributes=nodes.csv", "team")
    (tmp_path / "twice.json").write_text(json.dumps({"nodes": ["1", 1], "edges": []}))
    with pytest.raises(SourceUnreadable, match="the same id"):
        listed(tmp_path, f"{tmp_path}/twice.json#nodes")
    given = check_items(f"{uri}&hops=1")
    assert (str(given.place), str(given.root)) == (f"{uri}&hops=1", uri.removesuffix("#nodes"))


# ---- molecules ----


def molecule(name: str, atom: str = "O", bond: int = 1, label: str = "low") -> str:
    return MOL.format(name=name, atom=atom, bond=bond, label=label)


def test_records_of_molecules_and_their_keys(tmp_path: Path) -> None:
    """Which needs no RDKit."""
    records = [molecule("one"), molecule("two", label="high")]
    (tmp_path / "named.sdf").write_text("".join(records))
    found = listed(tmp_path, tmp_path / "named.sdf", "class")
    assert [(one.key, one.class_name) for one in found] == [("one", "low"), ("two", "high")]
    assert [reader(tmp_path).read(one.uri).decode() for one in found] == records

    (tmp_path / "same.smi").write_text("CCO a\n\nCC\n")
    found = listed(tmp_path, tmp_path / "same.smi")
    assert [reader(tmp_path).read(one.uri).split()[0] for one in found] == [b"CCO", b"CC"]
    assert all(len(one.key) == 32 for one in found)  # one has no name

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "some.sdf").write_text("".join(records))
    assert [one.key for one in listed(tmp_path, folder)] == ["some.sdf/0000", "some.sdf/0001"]


@with_rdkit
def test_molecules_are_graphs_of_atoms() -> None:
    ethanol = read_graph(b"CCO ethanol", LIMITS)
    assert (ethanol.tags, ethanol.edges) == (["CH3", "CH2", "OH"], [(0, 1), (1, 2)])
    assert read_graph(b"c1cc[nH]c1.[NH4+]", LIMITS).tags == ["cH", "cH", "cH", "nH", "cH", "NH4+"]
    bonds = [read_graph(molecule("x", "C", bond).encode(), LIMITS).tags for bond in (1, 2, 3)]
    assert bonds == [["CH3", "CH3"], ["CH2", "CH2"], ["CH", "CH"]]


@with_rdkit
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"C(C)(C)(C)(C)C", "rules of chemistry"),
        (b"C1CC", "no SMILES"),
        (b"C" * 5_001, "longer than 5000"),
        (molecule("x").encode()[:90], "truncated"),
    ],
)
def test_molecules_that_are_none(data: bytes, words: str) -> None:
    with pytest.raises(BadItem) as raised:
        CONTENT.inspect(data, LIMITS)
    assert words in str(raised.value.fields["reason"])


def test_a_table_with_smiles(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,SMILES\na,CCO\nb,CC\n")
    listing = list_source(str(tmp_path / "t.csv"), reader(tmp_path), None, None)

    assert listing.tell() is CONTENT
    assert [(one.key, reader(tmp_path).read(one.uri)) for one in listing] == [("a", b"CCO"), ("b", b"CC")]


def test_without_rdkit_molecules_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.content.molecules._HAS_RDKIT", False)
    for data in (b"CCO", molecule("x").encode()):
        with pytest.raises(BadItem) as raised:
            CONTENT.inspect(data, LIMITS)
        assert "shortlist[chemistry]" in str(raised.value.fields["reason"])
