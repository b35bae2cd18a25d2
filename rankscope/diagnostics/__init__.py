"""Findings: what is wrong with a run, or looks wrong, with the evidence and what to do."""
