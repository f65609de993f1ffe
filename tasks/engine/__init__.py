"""Start and stop engines; record, query and explain their servers."""
