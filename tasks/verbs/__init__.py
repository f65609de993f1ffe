"""One thin module per verb; no verb imports another."""
