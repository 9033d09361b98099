"""The cure for torchvision's import beside a CPU build of torch; import this before segmentation_models_pytorch or timm.

torchvision's registry wheel is CUDA-built: beside a CPU torch its compiled operators are missing and the import dies with
"operator torchvision::nms does not exist" (pytorch/vision issues 9077 and 9085). Declaring the two schemas lets it pass.
The import is tried first: declaring them beside a working native library aborts the interpreter.
"""

import sys

import torch


def _import_torchvision() -> torch.library.Library | None:
    try:
        import torchvision  # noqa: PLC0415 (the import itself is what is tried)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return None
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    import torchvision  # noqa: F401, PLC0415 (as above)

    return library


SCHEMAS = _import_torchvision()
"""Keeps the declared schemas alive; None where torchvision is whole."""
