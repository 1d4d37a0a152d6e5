"""The quantized layer on CUDA, in Triton: 8-bit integer tensor cores, two ways to keep the weights.

Nothing is imported here. Only the modules whose names end in ``_kernel`` import Triton, and only
`launch` imports those, when first asked to. All modules but `adapter` take plain tensors, so that
the kernels can be tried on a machine that has torch, Triton and little else.
"""
