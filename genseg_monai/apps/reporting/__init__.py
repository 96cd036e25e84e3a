"""What `genseg report` is made of: sources, measures, verdict, charts, pictures, page."""
