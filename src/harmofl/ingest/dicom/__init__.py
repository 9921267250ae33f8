"""Conversion of exported DICOM files to NIfTI and PNG during import, so that training needs no pydicom."""
