"""Checks that anyone can run on their own layers and losses; the library's own tests are made of them."""
