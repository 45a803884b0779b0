"""Images: where they come from, how they are stored, what they are turned into. Nothing here launches."""
