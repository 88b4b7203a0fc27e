"""What is wrong with a data set, and the page that says so."""
