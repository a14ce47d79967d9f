"""What is wrong with the corpora taken together: leaks, copies, captions missing or too long."""
