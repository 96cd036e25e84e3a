"""Handlers hung on the trainer's events; the trainer never imports them."""
