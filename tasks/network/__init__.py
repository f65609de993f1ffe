"""HTTP requests, what their responses mean, retries, and Hugging Face's environment."""
