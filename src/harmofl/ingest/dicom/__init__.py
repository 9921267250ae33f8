"""DICOM as hospitals export it, made into NIfTI and PNG for importing, so that training needs no pydicom."""
