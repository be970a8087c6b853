"""The streaming job: options, graph, endpoints and the commands around it."""

__version__ = "0.1.0"
