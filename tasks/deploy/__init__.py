"""Files for the engines that serve models on many machines."""
