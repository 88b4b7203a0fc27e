"""Networks that torchvision lacks, for the detector and the classifier alike. Needs torch."""
