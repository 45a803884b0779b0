"""chlaunch: MPI programs from unprivileged containers."""
