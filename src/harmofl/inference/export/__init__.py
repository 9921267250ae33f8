"""Export of a trained model for other programs: ONNX, torch.export, a MONAI bundle, and a model card."""
