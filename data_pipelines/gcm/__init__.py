"""Nature runs of the atmospheric model JCM (EGUsphere-2025-6266) in the layout of the ERA5 store.

All but `model` and `output` is imported without JAX.
"""

from importlib import metadata

JCM_VERSION = "3.0.0"


def require_jcm() -> None:
    """Checks that the pinned JCM is installed: two of its private methods are used (see `gcm.model`).

    Raises:
        ImportError: JCM is missing or has another version.
    """
    try:
        found = metadata.version("jcm")
    except metadata.PackageNotFoundError:
        raise ImportError(
            f"Expected jcm {JCM_VERSION}, found none. Install it with: pip install 'ladcast[simulate]'."
        ) from None
    if found != JCM_VERSION:
        raise ImportError(
            f"Expected jcm {JCM_VERSION}, found {found}. Install it with: pip install 'ladcast[simulate]'."
        )
