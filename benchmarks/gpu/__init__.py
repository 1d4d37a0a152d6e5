"""Parts of `benchmarks.gpu_check`; they need torch, Triton and nothing else."""
