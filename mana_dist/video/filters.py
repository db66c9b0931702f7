"""FFmpeg's filters for decoded frames."""

from typing import Any

import av


def filter_graph(picture: Any, name: str, arguments: str | None = None) -> Any:
    """Return a configured PyAV graph of one filter, for frames of this one's size and format."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base or 1
    )
    graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink"))
    graph.configure()
    return graph


def filtered(picture: Any, name: str, arguments: str | None = None) -> Any:
    """Return a frame after a filter that gives one frame for each."""
    graph = filter_graph(picture, name, arguments)
    graph.vpush(picture)
    return graph.vpull()
