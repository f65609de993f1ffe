"""The recipe: task creators (one file per verb), over `effects`, over `core`."""
