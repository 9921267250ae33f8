"""One federated round: messages, named tensors, a site's training, aggregation, and checks of updates."""
