"""What spectra and scores have in common: plans, execution against a store, and the call around."""
