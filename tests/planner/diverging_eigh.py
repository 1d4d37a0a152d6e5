"""A decomposition that does not converge, on demand (row 13 of the fault table)."""

import torch


def diverging_eigh(*dtypes):
    """An ``eigh`` that does not converge for matrices of some dtypes."""
    true_eigh = torch.linalg.eigh

    def eigh(matrices):
        if matrices.dtype in dtypes:
            raise torch.linalg.LinAlgError("did not converge")
        return true_eigh(matrices)

    return eigh
