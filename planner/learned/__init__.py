"""Learning what a pack's quantizers have to choose: steps, factors, smoothing and rounding."""
