"""A VAE with a bank of flows: data, networks, training and evaluation of the examples."""
