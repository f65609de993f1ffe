"""The recipe as doit finds it: everything is in `tasks/`, one file per verb; `tasks/graph.py` is its map."""

from tasks.graph import DOIT_CONFIG, task_recipe

__all__ = ["DOIT_CONFIG", "task_recipe"]
