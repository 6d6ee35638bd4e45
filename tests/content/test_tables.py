"""Tables as tools write them: whatever holds the cells, whatever the columns are called, whatever stands between."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.content import sources
from service.content.contract import Content
from service.content.image import CONTENT as IMAGES
from service.content.listing import Candidate, Listing
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.content.text import CONTENT as TEXTS
from service.errors import ColumnMissing, NoItemColumn, SourceUnreadable
from service.settings import Settings

CELLS = [b"one", b"two", b"three"]


def reader(folder: Path) -> ItemBytes:
    return ItemBytes(Settings(source_roots=(str(folder),)))


def listing(path: Path, content: Content | None = IMAGES, label_column: str | None = None) -> Listing:
    found = list_source(str(path), reader(path.parent), label_column, content)
    if content is None:
        found.tell()
    return found


def candidates(path: Path, **how: Any) -> list[Candidate]:
    return list(listing(path, **how))


def write_images(folder: Path, count: int = 3) -> list[str]:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(CELLS[number])
    return [f"{number}.png" for number in range(count)]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCT_OF_VIEWS = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
STRUCTS = [{"bytes": cell, "path": "x.png"} for cell in CELLS]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(CELLS, pa.binary()),
        pa.array(CELLS, pa.large_binary()),
        pa.array(CELLS, pa.binary_view()),
        pa.array(CELLS, pa.binary()).dictionary_encode(),
        pa.array(STRUCTS, STRUCT),
        pa.array(STRUCTS, STRUCT_OF_VIEWS),
    ],
    ids=lambda column: str(column.type).replace("\n", " ")[:60],
)
@pytest.mark.parametrize(("name", "batch_rows"), [("image", 256), ("Image", 2), ("anything", 4)])
def test_bytes_of_any_arrow_type(
    name: str, batch_rows: int, column: pa.Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({name: column})
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table)
    monkeypatch.setattr(sources, "_PARQUET_ROWS", batch_rows)

    found = candidates(path, content=None)

    assert [one.data for one in found] == CELLS * 2
    assert [reader(tmp_path).read(one.uri) for one in found] == CELLS * 2


def test_what_arrow_cannot_read_is_refused_not_a_crash(tmp_path: Path) -> None:
    cells = pa.array(CELLS).dictionary_encode()
    table = pa.table({"image": pa.StructArray.from_arrays([cells, pa.array(["x"] * 3)], ["bytes", "path"])})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table)

    with pytest.raises(SourceUnreadable, match="not implemented"):
        candidates(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("encoded", [False, True])
def test_strings_of_any_arrow_type(kind: pa.DataType, encoded: bool, tmp_path: Path) -> None:
    column = (
        pa.array(["one", "two"], pa.string()).dictionary_encode()
        if encoded
        else pa.array(["one", "two"], kind)
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"Sentence": column}), path)

    found = candidates(path, content=None)

    assert [one.data for one in found] == [b"one", b"two"]
    assert [reader(tmp_path).read(one.uri) for one in found] == [b"one", b"two"]


def test_a_row_with_a_path_and_no_bytes_says_so(tmp_path: Path) -> None:
    rows = [
        {"bytes": None, "path": "0.png"},
        {"bytes": b"one", "path": "1.png"},
        {"bytes": None, "path": None},
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array(rows, STRUCT)}), path)

    found = candidates(path)

    assert [one.data for one in found] == [None, b"one", b""]
    with pytest.raises(SourceUnreadable, match=r"the row has no bytes, only the path '0\.png'"):
        reader(tmp_path).read(found[0].uri)


def test_class_labels_have_the_names_that_hugging_face_keeps(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [b"x"] * 5, "label": [1, 0, -1, None, 7], "other": [3] * 5})
    pq.write_table(table.replace_schema_metadata(metadata), path)

    assert [one.class_name for one in candidates(path, label_column="LABEL")] == [
        "dog",
        "cat",
        None,
        None,
        "7",
    ]
    assert {one.class_name for one in candidates(path, label_column="other")} == {"3"}


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": {"label": 3}}}']
)
def test_other_metadata_give_no_names(metadata: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [b"x"], "label": [1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), path)

    assert [one.class_name for one in candidates(path, label_column="label")] == ["1"]


def test_a_refusal_names_the_columns_and_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [[0.5]], "id": [1]}), path)

    with pytest.raises(NoItemColumn, match=r"'image' \(list<.*double>\), 'id' \(int64\)"):
        candidates(path)
    with pytest.raises(ColumnMissing, match=r"'image' \(list<.*double>\), 'id' \(int64\)"):
        candidates(path, content=TEXTS)
    pq.write_table(pa.table({"image": [b"x"]}), path)
    with pytest.raises(SourceUnreadable, match="no column 'label'; its columns are 'image'"):
        candidates(path, label_column="label")


@pytest.mark.parametrize(
    "name",
    ["path", "uri", "Path", "URI", " path ", "file_name", "filename", "FileName", "image", "image_path"],
)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_the_columns_with_places(name: str, ending: str, tmp_path: Path) -> None:
    names = write_images(tmp_path)
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        lines = [json.dumps({name: place, "Label": "cat"}) for place in names]
    else:
        between = {"csv": ",", "tsv": "\t"}[ending]
        lines = [f"{name}{between}Label", *(f"{place}{between}cat" for place in names)]
    path.write_text("\n".join(lines))

    found = candidates(path, content=None, label_column="label")

    assert [(one.key, one.class_name) for one in found] == [(place, "cat") for place in names]
    assert [reader(tmp_path).read(one.uri) for one in found] == CELLS


def test_what_says_where_files_are_does_not_stand_before_the_texts_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,filename,image\nhello,a.txt,0.png\n")

    assert [one.data for one in candidates(path, content=None)] == [b"hello"]
    assert [one.key for one in candidates(path, content=IMAGES)] == ["a.txt"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_what_stands_between_cells_and_how_they_are_encoded(
    delimiter: str, encoding: str, ending: str, tmp_path: Path
) -> None:
    names = write_images(tmp_path)
    rows = [["path", "Größe"], *([name, "ü,1"] for name in names)]
    text = "".join(
        delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) + ending for row in rows
    )
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path = tmp_path / "a.csv"
    path.write_bytes((mark + text).encode(encoding))

    found = candidates(path, label_column="größe")

    assert [(one.key, one.class_name) for one in found] == [(name, "ü,1") for name in names]


def test_rows_of_a_table_in_utf16_are_read_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\ttext\n" + "".join(f"{number}\tüber {number}\n" for number in range(300)), "utf-16")

    found = candidates(path, content=TEXTS)

    assert reader(tmp_path).read(found[271].uri) == "über 271".encode()
    with pytest.raises(SourceUnreadable, match="no row 300"):
        reader(tmp_path).read(found[0].uri.replace("#row=0", "#row=300"))


def test_half_a_character_of_utf16_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("path\n0.png\n".encode("utf-16")[:-1])
    with pytest.raises(SourceUnreadable, match="truncated data"):
        candidates(path)


def test_a_comma_in_quotes_separates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"path";"size, in cm"\n0.png;"3"\n')

    assert [one.key for one in candidates(path)] == ["0.png"]


def test_a_header_with_commas_is_one_of_commas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b;c,path\nx,0.png\n")

    assert [one.key for one in candidates(path)] == ["0.png"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_cell_of_a_megabyte_is_a_cell(ending: str, tmp_path: Path) -> None:
    long = "0.5," * 2**18
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        path.write_text(f'path,embedding\n0.png,"{long}"\n1.png,"1"\n')
    else:
        path.write_text(json.dumps({"path": "0.png", "embedding": long}) + '\n{"path": "1.png"}\n')

    assert [one.key for one in candidates(path)] == ["0.png", "1.png"]


def test_lines_may_say_it_in_different_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_ROWS_LOOKED_AT", 2)
    path = tmp_path / "a.jsonl"
    rows = [
        {"path": "0.png"},
        {"path": "1.png", "key": "one"},
        {"uri": "2.png"},
        {"Path": "3.png", "Key": "three"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert [one.key for one in candidates(path)] == ["0.png", "one", "2.png", "three"]


def test_a_line_without_a_place_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,score\nx,1\n")
    found = listing(path)

    assert list(found) == []
    assert found.refusals == ["Line 2: there is no `uri` or `path`; its columns are 'name', 'score'."]


def test_windows_paths_are_explained(tmp_path: Path) -> None:
    write_images(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"path": place}) + "\n" for place in (".\\0.png", "C:\\data\\1.png")))

    for found in candidates(path):
        with pytest.raises(
            SourceUnreadable, match=r"no such file; `\\` separates no folders here: write `/`"
        ):
            reader(tmp_path).read(found.uri)


def test_file_urls_are_decoded_and_paths_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "50% é"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"zero")
    (folder / "%31.png").write_bytes(b"one")
    (folder / "2 .png").write_bytes(b"two")
    url = folder.as_uri()
    read = reader(tmp_path).read

    assert read(f"{url}/%30.png") == b"zero"
    assert read(f"{url.replace('file://', 'FILE://localhost')}/0.png") == b"zero"
    assert read(f"{url}/2%20.png") == b"two"
    assert read(f"{folder}/%31.png") == b"one"
    assert read(f"file://{folder}/%31.png") == b"one"  # as it stands: there is no `1.png`
    with pytest.raises(SourceUnreadable, match="no such file"):
        read(f"{folder}/%30.png")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "it is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Please log in", "it is a saved web page"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(name: str, data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceUnreadable, match=sentence):
        listing(tmp_path / name)
