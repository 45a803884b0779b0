"""The one door to Slurm: what we ask it, and what its lists say. A launch asks srun alone, no daemon.

offers: which wire-ups srun has. configuration(): where its slurm.conf is. facts: what the controller's
configuration says. lists: host lists, and counts such as 4(x2),3. child: the only place that imports pyslurm.
"""

from chlaunch.slurm.asking import ask
from chlaunch.slurm.offers import (
    CONFIGURATIONS,
    Offer,
    configuration,
    has_job_tmp,
    mpi_plugins,
    offer,
    understood,
)

__all__ = [
    "CONFIGURATIONS",
    "Offer",
    "ask",
    "configuration",
    "has_job_tmp",
    "mpi_plugins",
    "offer",
    "understood",
]
