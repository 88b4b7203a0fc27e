"""The full-size answer: detector, CheXNet and probe on all of RSNA, from one protocol file."""
