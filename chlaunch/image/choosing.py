"""Which image of an index is for a machine."""

from chlaunch.errors import ImageError
from chlaunch.image.manifest import MANIFESTS, Descriptor, Index, Platform


def select(index: Index, wanted: Platform, shown: str) -> Descriptor:
    """Return the manifest of an index that is for a platform. The first of several that are the same.

    Attestations and signatures, which have platforms of their own (``unknown``), are never meant. A variant
    that was not asked for does not matter, except that none is better than any.

    Raises:
        ImageError: there is none; says for which there are.

    """
    images = [row for row in index.manifests if _is_image(row)]
    for fits in (_same, _same_usual, _same_architecture):
        for row in images:
            if row.platform is not None and fits(row.platform, wanted):
                return row
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    known = (
        ", ".join(sorted({str(row.platform) for row in images if row.platform is not None})) or "none named"
    )
    raise ImageError(
        f"{shown}: no image for {wanted.os}/{wanted}; there are: {known}",
        "choose one of them with --arch; it will run only where the machine can (binfmt_misc)",
    )


def _is_image(row: Descriptor) -> bool:
    """Say whether a row of an index is an image's (attestations: BuildKit's docs/attestations)."""
    reference = row.annotations.get("vnd.docker.reference.type", "")
    unknown = row.platform is not None and "unknown" in (row.platform.os, row.platform.architecture)
    return row.media_type in MANIFESTS and not reference and not unknown


def _same(have: Platform, want: Platform) -> bool:
    return have == want


def _same_usual(have: Platform, want: Platform) -> bool:
    return have.usual == want.usual


def _same_architecture(have: Platform, want: Platform) -> bool:
    """Say whether only the one has a variant. arm has machines that run one and not the other: v6 not v7."""
    return (have.os, have.architecture) == (want.os, want.architecture) and (
        not want.variant or not have.variant or have.variant < want.variant
    )
