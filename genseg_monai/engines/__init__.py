"""The three training stages and the trainer that runs them."""
