"""Work in a hospital: DICOM and PACS, guarantees, monitoring; this folder can be deleted."""
