"""Low-rank adapters: what they compute, how a cycle of them ends, and how the next one begins."""
