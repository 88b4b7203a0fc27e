"""The phantom: synthetic chest X-rays with known lesions (`data_prep/synth/lesions.py`)."""
