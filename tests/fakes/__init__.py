"""Faithful fakes: a misbehaving file server, the Hub, a llamafile."""
