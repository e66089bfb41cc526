"""Files of NIR as plain data: nodes, edges, an order in which signals cross them; nested graphs are unfolded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import UserError, one_line

__all__ = ["ENDS", "NirNode", "PlainGraph", "read_graph", "text"]

MISSING = "NIR graphs are read with the package h5py, as nir installs it: pip install nir"
ENDS = ("Input", "Output")  # of a graph
DEEPEST = 20  # of graphs in graphs


@dataclass(frozen=True)
class NirNode:
    """A node: its name with those of the graphs around it, its type, what the file says of it."""

    name: str
    kind: str
    fields: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.name} ({self.kind})"

    def numbers(self, key: str, default: float | None = None) -> np.ndarray:
        """An array of the node, float64; raises UserError unless all of its numbers are finite."""
        found = self.fields.get(key)
        if found is None:
            if default is None:
                raise UserError(f"{self.where}: it has no {key}")
            found = default
        try:
            array = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.where}: its {key} is no array of numbers") from error
        finite = np.isfinite(array) | (np.equal(array, np.inf) & (key == "v_threshold"))
        if not finite.all():
            raise UserError(f"{self.where}: {key} holds values that are not finite (NaN or infinity)")
        return array

    def whole(self, key: str, n: int, least: int = 0, default: int | None = None) -> tuple[int, ...]:
        """``n`` whole numbers, from as many or from one."""
        array = self.numbers(key, default).ravel()
        if array.size not in (1, n) or (array % 1).any() or (array < least).any():
            raise UserError(f"{self.where}: its {key} is {array.tolist()}, not {n} whole numbers")
        return tuple(int(number) for number in np.broadcast_to(array, n))

    def shape(self, key: str) -> tuple[int, ...]:
        array = self.numbers(key).ravel()
        if not 1 <= array.size <= 3 or (array < 1).any() or (array % 1).any():
            raise UserError(f"{self.where}: its shape {array.tolist()} is no image's or vector's")
        return tuple(int(number) for number in array)


@dataclass(frozen=True)
class PlainGraph:
    """Nodes in the order in which a signal crosses them.

    Parameters
    ----------
    nodes : mapping of str to NirNode
    before : mapping of str to list of str
        The nodes whose signals each node gets.
    metadata : mapping
    """

    nodes: Mapping[str, NirNode]
    before: Mapping[str, list[str]]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def after(self, name: str) -> list[str]:
        return [node for node, sources in self.before.items() if name in sources]


def read_graph(source: Any) -> PlainGraph:
    """A file, or a ``nir.NIRGraph``, as plain data; raises UserError if it is damaged or contradicts itself."""
    content = read_file(Path(source)) if isinstance(source, (str, os.PathLike)) else source.to_dict()
    nodes: dict[str, NirNode] = {}
    edges: list[tuple[str, str]] = []
    unfold(content, "", nodes, edges)
    for pre, post in edges:
        for end in (pre, post):
            if end not in nodes:
                raise UserError(f"an edge goes from {pre} to {post}, but there is no node {end}")
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for pre, post in edges:
        if pre in before[post]:
            raise UserError(f"two edges go from {pre} to {post}")
        before[post].append(pre)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " -> ".join(dict.fromkeys(reversed(error.args[1])))
        raise UserError(f"{circle} is a circle; only feed-forward networks are brought in") from error
    metadata = content.get("metadata")
    said = {key: text(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else {}
    return PlainGraph({name: nodes[name] for name in order}, before, said)


def read_file(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(MISSING) from error
    if not path.is_file():
        raise UserError(f"there is no file {path}")

    def content(group: Any, depth: int) -> dict[str, Any]:
        if depth > 3 * DEEPEST:
            raise ValueError("graphs are nested too deeply")
        found: dict[str, Any] = {}
        for key, item in group.items():
            if not isinstance(item, (h5py.Group, h5py.Dataset)):
                raise ValueError(f"{key} cannot be read")
            found[key] = content(item, depth + 1) if isinstance(item, h5py.Group) else item[()]
        return found

    try:
        with h5py.File(path, "r") as file:
            return content(file["node"], 0)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path} is no graph of NIR, or damaged ({one_line(error)})") from error


def unfold(content: Any, prefix: str, nodes: dict[str, NirNode], edges: list[tuple[str, str]]) -> None:
    """Enter the nodes and edges of a graph and of those inside it."""
    where = prefix.rstrip(".") or "the file"
    if not isinstance(content, Mapping) or text(content.get("type")) != "NIRGraph":
        raise UserError(f"{where} holds no NIRGraph")
    if prefix.count(".") > DEEPEST:
        raise UserError(f"graphs are nested too deeply in {where}")
    inside = content.get("nodes")
    if not isinstance(inside, Mapping) or not inside:
        raise UserError(f"the graph of {where} has no nodes")
    ends: dict[str, tuple[str, str]] = {}  # of graphs: the nodes that take and give their signals
    for key, node in inside.items():
        name = f"{prefix}{text(key)}"
        kind = text(node.get("type")) if isinstance(node, Mapping) else None
        if not isinstance(kind, str):
            raise UserError(f"{name} is a node without a type")
        ends[text(key)] = (name, name)
        if name in nodes:
            raise UserError(f"two nodes are called {name}")
        if kind != "NIRGraph":
            nodes[name] = NirNode(name, kind, node)
            continue
        unfold(node, f"{name}.", nodes, edges)
        kinds = {part: [k for k, n in node["nodes"].items() if text(n.get("type")) == part] for part in ENDS}
        if [len(found) for found in kinds.values()] != [1, 1]:
            raise UserError(f"{name} (NIRGraph): a graph in a graph has one Input and one Output")
        ends[text(key)] = (f"{name}.{text(kinds['Input'][0])}", f"{name}.{text(kinds['Output'][0])}")
    for edge in pairs(content.get("edges"), where):
        for end in edge:
            if end not in ends:
                raise UserError(f"an edge goes from {edge[0]} to {edge[1]}, but there is no node {prefix}{end}")
        edges.append((ends[edge[0]][1], ends[edge[1]][0]))


def pairs(edges: Any, where: str) -> list[tuple[str, str]]:
    try:
        found = [(text(pre), text(post)) for pre, post in edges]
        assert all(isinstance(name, str) for edge in found for name in edge)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"the edges of {where} are no pairs of names") from error
    return found


def text(value: Any) -> Any:
    """Bytes as text, and numbers of no dimension as such."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bytes):
        return value.decode("utf8", "replace")
    return value.item() if isinstance(value, np.generic) else value
