"""The phantom: synthetic chest X-rays with known lesions."""
