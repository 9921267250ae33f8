"""A trained model's answers for images without labels: PNG, TIFF and JPEG, NIfTI volumes, DICOM series."""
