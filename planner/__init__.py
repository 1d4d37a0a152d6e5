"""Makes packs: statistics, bit allocation, factorisation. Runs once per model, mostly on weights."""
