"""A read-only view of SquashFS 4.0 files: names, links and content, without mounting them."""
