"""An engine: the program that serves a model, and how it is called."""
