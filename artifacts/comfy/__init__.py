"""Weights as ComfyUI's quantized files hold them."""
