"""What is to be deleted from a graph, in a few words: ``"edges 5% in"``, ``"edge 12-57"``, ``"class Theory"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interp_unlearn._core import ConfigError

Where = Literal["in", "out", "any"]
FORMS = '"edges 5% in", "edges 20 out", "edge 12-57", "nodes 5%", "node 12", "class NAME", "listed"'

_DRAWN = re.compile(r"(edges|nodes)\s+(\d+(?:\.\d+)?)\s*(%?)(?:\s+(in|out|any))?", re.IGNORECASE)
_EDGE = re.compile(r"edge\s+(\d+)\s*[-–]\s*(\d+)", re.IGNORECASE)
_NODE = re.compile(r"node\s+(\d+)", re.IGNORECASE)
_CLASS = re.compile(r"class\s+(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Deletion:
    """A request to delete.

    Attributes:
        kind: What is deleted. Edges are asked for as links; nodes and classes by the class of the node.
        share: Of the training edges or nodes, drawn by seed; 0 where a number or ids are given.
        count: How many are drawn; 0 where a share or ids are given.
        where: Of drawn edges: ``"in"`` the 2-hop neighbourhood of the test edges, ``"out"`` of it, or anywhere.
        ids: Named nodes, or pairs of nodes.
        listed: The edges that the graph's file lists as deleted.
        class_name: The class, for ``kind = "class"``.
        text: As it was written.
    """

    kind: Literal["edge", "node", "class"]
    share: float = 0.0
    count: int = 0
    where: Where = "any"
    ids: tuple[tuple[int, ...], ...] = ()
    class_name: str = ""
    listed: bool = False
    text: str = ""


def parse_deletion(words: Sequence[str]) -> Deletion:
    """Read the entities of a target.

    Raises:
        ConfigError: If they are written in another form, or are of several kinds.
    """
    named = tuple(word.strip() for word in words)
    text = ", ".join(named)
    edges = [_EDGE.fullmatch(word) for word in named]
    nodes = [_NODE.fullmatch(word) for word in named]
    if named and all(edges):
        return Deletion("edge", ids=tuple((int(m[1]), int(m[2])) for m in edges if m), text=text)
    if named and all(nodes):
        return Deletion("node", ids=tuple((int(m[1]),) for m in nodes if m), text=text)
    if len(named) != 1:
        raise ConfigError(
            f"target.entities = {list(words)}: of a graph, give one of {FORMS}; only named edges or nodes may be "
            "several"
        )
    if named[0].lower() == "listed":
        return Deletion("edge", listed=True, text=text)
    drawn, of_class = _DRAWN.fullmatch(named[0]), _CLASS.fullmatch(named[0])
    if of_class:
        return Deletion("class", class_name=of_class[1].strip(), text=text)
    if not drawn:
        raise ConfigError(f"target.entities = {list(words)}: of a graph, give one of {FORMS}")
    kind: Literal["edge", "node"] = "edge" if drawn[1].lower() == "edges" else "node"
    number, percent = float(drawn[2]), bool(drawn[3])
    where: Where = (drawn[4] or "any").lower()  # type: ignore[assignment]
    if kind == "node" and where != "any":
        raise ConfigError(f"target.entities = {list(words)}: {where!r} is for edges; leave it out")
    if percent and not 0 < number < 100:
        raise ConfigError(f"target.entities = {list(words)}: give more than 0 % and less than 100 %")
    if not percent and (number < 1 or number != int(number)):
        raise ConfigError(f"target.entities = {list(words)}: give a whole number of {kind}s, or a share such as 5%")
    return Deletion(
        kind, share=number / 100 if percent else 0.0, count=0 if percent else int(number), where=where, text=text
    )
