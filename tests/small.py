"""Params of small networks, for tests."""

from ddpm.networks.unet import UNetParams


def unet_params(**changes: object) -> UNetParams:
    """About the smallest network that there is, but for what is changed."""
    smallest = {
        "channels": (4,),
        "time_embed_dim": 4,
        "block": "residual",
        "patch_size": 4,
        "bottleneck_blocks": 1,
        "attention": False,
        "class_conditional": False,
        "prediction": "noise",
    }
    return UNetParams.model_validate(smallest | changes)
