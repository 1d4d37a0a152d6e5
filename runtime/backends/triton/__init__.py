"""The quantized layer on CUDA, in Triton: 8-bit integer tensor cores, two ways to keep the weights.

Nothing is imported here. Only the modules whose names end in ``_kernel`` import Triton, and only
`launch` imports those; a layer imports `launch` when it first runs.
"""
