"""The cache directory: stamps, space, inventory, audit, prune, bill of materials."""
