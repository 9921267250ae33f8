"""A trained model as files for other programs: ONNX, torch.export, a MONAI bundle, and a card in words."""
