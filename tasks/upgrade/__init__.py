"""Move a pin of models.lock only if the checks of models.yaml pass with it."""
