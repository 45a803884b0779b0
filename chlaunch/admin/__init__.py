"""What an admin installs for Slurm: which files, where, and how that is undone."""
