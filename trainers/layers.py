"""What one layer or function costs, in Table 1's convention, and which layers it does not count."""

from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from trainers.catalog import InputError

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d
TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
ACTIVATIONS = (
    nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.PReLU | nn.ELU | nn.SELU | nn.CELU | nn.GELU | nn.SiLU
    | nn.Mish | nn.Softplus | nn.Sigmoid | nn.Tanh | nn.Hardtanh | nn.Hardswish | nn.Hardsigmoid
)  # fmt: skip
POOLS = nn.AvgPool2d | nn.MaxPool2d
TO_SIZE = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
NORMS = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm

# The same as ATen names them, without the underscore of what works in place.
ACTIVATING = (
    "relu", "relu6", "leaky_relu", "_prelu_kernel", "elu", "celu", "gelu", "silu", "mish",
    "softplus", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid",
)  # fmt: skip
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_convolution")
WITH_VECTORS = {"mv": 0, "addmv": 1, "dot": 0}  # which argument is read whole
POOLING = ("avg_pool2d", "max_pool2d_with_indices", "mkldnn_max_pool2d")
POOLING_TO_SIZE = ("_adaptive_avg_pool2d", "mkldnn_adaptive_avg_pool2d", "adaptive_max_pool2d")

OWN = "count_flops"  # method of a user's layer: (given, made) -> FLOPs of one image


def layer_flops(module: nn.Module, given: Tensor, made: Tensor) -> tuple[int, int]:
    """(FLOPs, MACs) of one call for one image; zeros of a layer that counts nothing.

    Args:
        module: What was called.
        given, made: Its input and output, of one image, with the dimension of the batch.

    Raises:
        InputError: A user's layer that counts itself and fails.
    """
    if counts_itself(module):
        try:
            return int(getattr(module, OWN)(given, made)), 0
        except Exception as error:  # whatever the user's file raises is the user's to read
            raise InputError(
                f"{type(module).__name__}.{OWN}(given, made) fails: {error!r}; it needs to give "
                "the FLOPs of one image"
            ) from error
    if isinstance(module, CONVOLUTIONS | TRANSPOSED):
        # Of each element that is made, or of each that is spread out, one kernel.
        at, channels = made, module.in_channels
        if isinstance(module, TRANSPOSED):
            at, channels = given, module.out_channels
        macs = at[0].numel() * prod(module.kernel_size) * channels // module.groups
        return macs, macs
    if isinstance(module, nn.Linear):
        macs = module.in_features * made[0].numel()
        return macs + (made[0].numel() if module.bias is not None else 0), macs
    if isinstance(module, ACTIVATIONS):
        return made[0].numel(), 0
    if isinstance(module, POOLS):
        side = module.kernel_size
        kernel = side * side if isinstance(side, int) else prod(side)
        return made[0].numel() * kernel, 0
    if isinstance(module, TO_SIZE):
        return given[0].numel(), 0
    return 0, 0


def is_layer(module: nn.Module) -> bool:
    """Whether `layer_flops` knows what a call of the module costs, its functions included."""
    known = CONVOLUTIONS | TRANSPOSED | nn.Linear | ACTIVATIONS | POOLS | TO_SIZE
    return isinstance(module, known)


def counts_itself(module: nn.Module) -> bool:
    """Whether a user's module says what its own forward costs, without the modules in it."""
    return callable(getattr(module, OWN, None))


def function_flops(function: Any, args: tuple[Any, ...], made: Any) -> tuple[int, int]:
    """(FLOPs, MACs) of an ATen operation on one image that no layer has called.

    Convolutions and matrix products, attention's too, activations and pooling, as of the layers;
    zeros of all others.

    Args:
        function: As PyTorch dispatches it.
        args: Its positional arguments. made: What it returned.
    """
    name = function.name().split("::")[1].split(".")[0]
    plain = name.removesuffix("_")
    if name.startswith("_scaled_dot_product"):
        query, key, value = (tensor.shape for tensor in args[:3])
        macs = prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
        return macs, macs
    if plain in ACTIVATING:
        return made.numel(), 0
    if name in POOLING:
        side = args[1]
        result = made[0] if isinstance(made, tuple) else made
        return result.numel() * (side[0] * side[-1] if isinstance(side, list) else side**2), 0
    if name in POOLING_TO_SIZE:
        return args[0].numel(), 0
    if name in WITH_VECTORS:
        macs = args[WITH_VECTORS[name]].numel()
        return macs, macs
    if name in PRODUCTS:
        from torch.utils.flop_counter import flop_registry  # a tenth of a second

        macs = flop_registry[function.overloadpacket](*args, out_val=made) // 2
        bias = made.numel() if name == "addmm" and args[0].dim() == 1 else 0  # as of Linear
        return macs + bias, macs
    return 0, 0


def uncounted(network: nn.Module) -> str | None:
    """The first module that computes with parameters of its own and counts nothing, `stages.0.2
    (MultiheadAttention)`; None where there is none."""
    known = CONVOLUTIONS | TRANSPOSED | nn.Linear | ACTIVATIONS | NORMS | ParametrizationList
    for name, module in network.named_modules():
        owns = next(module.parameters(recurse=False), None) is not None
        if owns and not isinstance(module, known) and not counts_itself(module):
            return f"{name} ({type(module).__name__})"
    return None
