"""``make demo``: the main job on real exams, from a modality through the node to a PACS."""

from node.demo.run import run_demo

__all__ = ["run_demo"]
