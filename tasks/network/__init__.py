"""HTTP requests and responses, retries, and Hugging Face's environment."""
