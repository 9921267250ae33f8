"""The physics of the synthetic images: anatomy, and the acquisition that each site has of its own."""
