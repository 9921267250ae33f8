"""Predictions of a trained model for images without labels: PNG, TIFF and JPEG, NIfTI volumes, DICOM series."""
