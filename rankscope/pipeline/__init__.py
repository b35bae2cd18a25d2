"""What spectra, scores and features share: plans, a store, and the call around them."""
