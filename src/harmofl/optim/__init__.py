"""Parts of one optimization step: sharpness-aware gradients, mixed precision, optimizer states as named tensors."""
