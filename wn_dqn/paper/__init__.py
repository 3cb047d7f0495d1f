"""The other systems of Salimans & Kingma (2016), from the same layers: CIFAR-10, the VAE and DRAW."""
