"""Cases that say what a program must answer, and programs that are asked them."""
