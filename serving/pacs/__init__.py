"""The hospital's side: images from an archive are answered for, and the results sent back."""
