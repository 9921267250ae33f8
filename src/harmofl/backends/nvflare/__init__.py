"""NVFlare backend, for sites in other buildings; the only package that imports `nvflare`. It only carries bytes."""
