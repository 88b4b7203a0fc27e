"""In a hospital: DICOM and PACS, guarantees and monitoring; this folder can be deleted."""
