"""The quantized layer on the CPU, fast."""
