"""Turns a sharp picture into a plausible small one: second-order degradation.

Real-world super-resolution trains on pictures that went twice through blur, resizing, noise and
JPEG (Wang et al. 2021, Real-ESRGAN), as pictures on their way through cameras and websites do.
"""
