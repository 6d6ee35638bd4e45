"""Sources of many graphs: a data set in the text format of TU Dortmund, a file of molecules, the nodes of one graph."""

from collections.abc import Callable, Iterator

from service.content.contract import Content
from service.content.graph import CONTENT as GRAPHS
from service.content.graph import tag_name, tag_of
from service.content.graph_files import GraphFiles, Molecules, Network, NodeOptions, molecule_uri, node_uri
from service.content.listing import Candidate, Listing
from service.content.row_keys import ContentKeys
from service.errors import SourceUnreadable


class _OfGraphs(Listing):
    def _told(self) -> Content:
        return GRAPHS


class _OfFiles(_OfGraphs):
    def __init__(
        self, uri: str, label_column: str | None, content: Content | None, files: GraphFiles
    ) -> None:
        super().__init__(uri, label_column, content)
        self._files = files


class GraphDataSet(_OfFiles):
    """Its key is the number of a graph, its class what `NAME_graph_labels.txt` says."""

    def __iter__(self) -> Iterator[Candidate]:
        found = self._files.data_set(self.uri)
        for number in range(1, found.graphs + 1):
            yield Candidate(
                str(number),
                f"{self.uri}#graph={number}",
                found.class_of(number),
                found.read(number),
                has_own_key=True,
            )

    def total(self) -> int:
        return self._files.data_set(self.uri).graphs


class MoleculeFile(_OfFiles):
    """Its key is the name of a molecule, where all have one and no two the same; else it comes from the content. The
    class is a field of SDF.
    """

    def __iter__(self) -> Iterator[Candidate]:
        found = self._files.molecules(self.uri)
        named, keys = self._are_named(found), ContentKeys()
        for number in range(len(found)):
            data = found.read(number)
            yield Candidate(
                found.name(data) if named else keys.key(data),
                molecule_uri(self.uri, number),
                Molecules.value(data, self.label_column) if self.label_column else None,
                data,
                has_own_key=named,
            )

    @staticmethod
    def _are_named(found: Molecules) -> bool:
        seen: set[int] = set()
        for number in range(len(found)):
            name = found.name(found.read(number))
            if not name or hash(name) in seen:
                return False
            seen.add(hash(name))
        return True

    def total(self) -> int:
        return len(self._files.molecules(self.uri))


class NodesOfGraph(_OfGraphs):
    """Its key is the id of a node, and the item its ego network. The class is an attribute of the node, `label_column`,
    which is never read as its tag: it would tell the class.

    file: of the graph
    """

    def __init__(
        self,
        uri: str,
        file: str,
        label_column: str | None,
        content: Content | None,
        network: Callable[[str, NodeOptions], Network],
        options: NodeOptions,
    ) -> None:
        super().__init__(uri, label_column, content)
        if content is not None and content.name != GRAPHS.name:
            raise SourceUnreadable(
                uri=uri, reason=f"the nodes of a graph are graphs, and this project is of {content.name}s"
            )
        self._file, self._network, self._options = file, network, options

    def __iter__(self) -> Iterator[Candidate]:
        found = self._network(self._file, self._options)
        column = self._class_attribute(found)
        options = NodeOptions(str(self._options))
        if options.tag is None:
            options.tag = tag_name(found.attributes, but=column) or ""
        told = str(options)
        for name, attributes in zip(found.ids, found.attributes, strict=True):
            class_name = tag_of(attributes, column) if column is not None else None
            yield Candidate(name, node_uri(self._file, name, told), class_name, has_own_key=True)

    def _class_attribute(self, found: Network) -> str | None:
        """Raises `SourceUnreadable`."""
        if self.label_column is not None and all(self.label_column not in one for one in found.attributes):
            there = sorted({str(name) for one in found.attributes for name in one} - {"id"})
            raise SourceUnreadable(
                uri=self.uri,
                reason=f"no node has an attribute {self.label_column!r}; there are {', '.join(there) or 'none'}",
            )
        return self.label_column

    def total(self) -> int:
        return len(self._network(self._file, self._options).ids)
