"""Use a trained model: evaluate, predict, serve and export."""
