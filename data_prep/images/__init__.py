"""One file to one grey 8-bit image: DICOM, PNG, JPEG, TIFF; facts and fingerprints of it."""
