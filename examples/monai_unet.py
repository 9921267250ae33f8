"""`AmplitudeNorm` in front of a MONAI network, in a plain PyTorch loop. Needs: pip install 'harmofl[monai]'.

python examples/monai_unet.py
"""

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from harmofl import AmplitudeNorm
from harmofl.ingest.synthetic.federation import (  # images drawn on the spot; take your own instead
    draw_sample,
    draw_style,
)


def batches(site: int, count: int = 8, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W) in [0, 1] and masks (N, 1, H, W) of one site."""
    style = draw_style("cells", seed=0, site=site, shift=1.0)
    samples = [draw_sample(style, size=size, seed=0, site=site, patient=k, image=0) for k in range(count)]
    images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255 for sample in samples])
    return images, torch.stack([torch.from_numpy(sample.mask)[None].float() / 255 for sample in samples])


def main(steps: int = 60) -> list[float]:
    """Train on two sites as if their images were in one place; return the losses."""
    torch.manual_seed(0)
    network = UNet(spatial_dims=2, in_channels=3, out_channels=1, channels=(8, 16, 32), strides=(2, 2))
    amplitude = AmplitudeNorm(band=1.0)
    model = torch.nn.Sequential(amplitude, network)
    loss = DiceCELoss(sigmoid=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    sites = [batches(0), batches(1)]
    losses = []
    for step in range(steps):
        images, masks = sites[step % 2]
        optimizer.zero_grad()
        value = loss(model(images), masks)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
        if step == 19:
            amplitude.freeze()  # one amplitude for good: it is part of the model, and saved with it
    return losses


if __name__ == "__main__":
    found = main()
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f}")
