"""What a language model makes of text: likelihoods, perplexities, choices between sentences."""
