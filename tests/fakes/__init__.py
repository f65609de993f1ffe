"""Faithful fakes: a misbehaving file server, the Hub, GitHub's releases, a llamafile."""
