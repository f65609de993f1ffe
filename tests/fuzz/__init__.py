"""Seeded fuzzers: whatever is in a file, a variable or a command line, `doit` ends well.

A case is made from a kind, a seed and a number, so that it can be made again.
`test_fuzz.py` runs a few of each kind; by hand: `python -m tests.fuzz --help`.
A case that has shown a defect becomes a row of `regressions.py`.
"""
