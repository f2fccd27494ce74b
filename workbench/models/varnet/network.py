"""The end-to-end VarNet (Sriram et al. 2020, arXiv:2004.06688)."""

from workbench.models.unet import Normalised, UNet
from workbench.models.unrolled import SensitivityNet, Unrolled


class VarNet(Unrolled):
    """End-to-end VarNet; loads the weights of ``fastmri.models.VarNet`` and equals its output.

    Weights, constructor and forward are fastMRI's, and ``Unrolled`` has the forward's form. With
    ``mask_center`` the sensitivity net sees the sampled centre of k-space alone.
    """

    def __init__(
        self,
        num_cascades: int = 12,
        sens_chans: int = 8,
        sens_pools: int = 4,
        chans: int = 18,
        pools: int = 4,
        mask_center: bool = True,
    ) -> None:
        sens_net = SensitivityNet(_unet(sens_chans, sens_pools), sens_chans, mask_center)
        super().__init__(sens_net, (_unet(chans, pools) for _ in range(num_cascades)))


def _unet(chans: int, pools: int) -> Normalised:
    """Return fastMRI's U-Net, which normalises real and imaginary part each alone."""
    return Normalised(UNet(2, 2, chans, pools), (2, 3), 16)
