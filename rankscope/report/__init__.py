"""One page that answers: what was measured, what it means, and how to read it."""
