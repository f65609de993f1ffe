"""The recipe: `graph` builds the tasks, `verbs` has a module per verb; then one package per capability."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of dodo.py, models.yaml and this package
