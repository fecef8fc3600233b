"""A check that a backend of torch.compile works here, before anything is compiled."""

from __future__ import annotations

import torch


def check_backend(name: str, mode: str | None = None) -> None:
    """Raise an error for a backend that could not compile.

    Args:
        name: Name of a backend of :func:`torch.compile`, such as ``inductor``.
        mode: What the backend optimises for; None for its default. Only ``inductor`` has modes.

    Raises:
        ValueError: There is no such backend or mode, or the compiler that it needs is not installed.
    """
    if name not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ValueError(f"model.compile_backend: there is no backend {name!r} here; there are {known}")
    if mode is not None and name != "inductor":
        raise ValueError(f"model.compile_mode: {name!r} has no modes, only 'inductor' has; leave it out")
    if mode is not None and mode not in torch._inductor.list_mode_options():
        known = ", ".join(torch._inductor.list_mode_options())
        raise ValueError(f"model.compile_mode: there is no mode {mode!r}; there are {known}")
    if name == "inductor" and not torch.cuda.is_available():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ValueError(
                "model.compile_backend: inductor needs a C++ compiler on the CPU and found none; install g++ or clang "
                "(or name it in the environment variable CXX), or leave the option out"
            ) from error
