"""One layer's weight: smoothing, factors, quantization."""
