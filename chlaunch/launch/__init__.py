"""From a request to one command line. Pure, except for reading files."""
