"""The recipe: tasks in `graph`, verbs in `verbs`, then a package per capability."""

from pathlib import Path

# the folder of dodo.py, models.yaml and this package
ROOT = Path(__file__).resolve().parent.parent
