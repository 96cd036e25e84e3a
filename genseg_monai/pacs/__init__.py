"""Fetch from and send to a PACS, over DIMSE or DICOMweb."""
