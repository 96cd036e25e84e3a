"""DICOM series, annotations and de-identification; nothing here talks to a network."""
