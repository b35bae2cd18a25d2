"""Runs that lie elsewhere: on a web server, in a bucket, on the Hugging Face hub."""
