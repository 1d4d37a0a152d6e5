"""Makes packs: statistics, bit allocation, factorisation. Runs once per model, on weights alone."""
