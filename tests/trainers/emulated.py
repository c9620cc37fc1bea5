"""The kernels of `trainers/*.cu` compiled for the CPU by g++: the same source, where no GPU is.

A CUDA thread is a context of its own on one thread of the CPU: it runs until it waits for the
others of its block, and then the next one does. They take their turns by rising and by falling
number, so that a barrier that is missing shows whichever of two threads it should have held up.
(A thread of the CPU for each took 20 times as long, nearly all of it to wait for each other.)
"""

import ctypes
import re
import subprocess
from pathlib import Path

import torch

from trainers.kernels import NAMES, THREADS, source

BEFORE = """
#include <cmath>
#include <cstring>
#include <csetjmp>
#include <functional>
#include <ucontext.h>
struct Three { unsigned x, y, z; };
static Three threadIdx, blockIdx, gridDim;
#define __device__
#define __forceinline__ inline
#define __global__
#define __shared__ static
#define __align__(n) alignas(n)
// Contexts begin by ucontext and change by _longjmp, which asks nothing of the system.
static jmp_buf turns_, waiting_[1024];
static void __syncthreads() { if (!_setjmp(waiting_[threadIdx.x])) _longjmp(turns_, 1); }
static float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static float lanes_[256];
static float __shfl_xor_sync(unsigned, float v, int o) {  // all threads of a block call it at once
  lanes_[threadIdx.x] = v;
  __syncthreads();
  float other = lanes_[threadIdx.x ^ o];
  __syncthreads();
  return other;
}
static void atomicAdd(float *p, float v) { *p += v; }
"""
AFTER = """
static char stacks_[THREADS][1 << 16];
enum { NEW, BEGUN, OVER } static states_[THREADS];
static std::function<void()> kernel_;
static void thread_() {
  kernel_();
  states_[threadIdx.x] = OVER;
  _longjmp(turns_, 1);
}
static void turn_(unsigned t) {
  threadIdx = {t, 0, 0};
  if (_setjmp(turns_)) return;
  if (states_[t] == BEGUN) _longjmp(waiting_[t], 1);
  states_[t] = BEGUN;
  ucontext_t begin;
  getcontext(&begin);
  begin.uc_stack = {stacks_[t], 0, sizeof stacks_[t]};
  begin.uc_link = nullptr;
  makecontext(&begin, thread_, 0);
  setcontext(&begin);
}
template <class Kernel> void launch(int columns, int rows, Kernel kernel) {
  gridDim = {(unsigned)columns, (unsigned)rows, 1};
  kernel_ = kernel;
  bool falling = false;
  for (unsigned y = 0; y < gridDim.y; y++) for (unsigned x = 0; x < gridDim.x; x++) {
    blockIdx = {x, y, 0};
    for (unsigned t = 0; t < THREADS; t++) states_[t] = NEW;
    for (bool some = true; some; falling = !falling) {
      some = false;
      for (unsigned i = 0; i < THREADS; i++) {
        unsigned t = falling ? THREADS - 1 - i : i;
        if (states_[t] == OVER) continue;
        turn_(t);
        some = true;
      }
    }
  }
}
"""


class Kernel:
    """Called as PyTorch's compiled kernels are."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._run = getattr(library, f"run_{name}")

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: list[torch.Tensor | int | float]
    ) -> None:
        assert block == (THREADS, 1, 1)
        given = [
            ctypes.c_void_p(arg.data_ptr())
            if isinstance(arg, torch.Tensor)
            else (ctypes.c_int if isinstance(arg, int) else ctypes.c_double)(arg)
            for arg in args
        ]
        self._run(ctypes.c_int(grid[0]), ctypes.c_int(grid[1]), *given)


def kernels(folder: Path) -> dict[str, Kernel]:
    """All of `NAMES`, compiled in a folder."""
    calls = []
    for name in NAMES:
        found = re.search(rf'extern "C" __global__ void {name}\((.*?)\) \{{', source(), re.DOTALL)
        assert found is not None
        given = " ".join(found.group(1).split())
        names = ", ".join(one.split()[-1].lstrip("*") for one in given.split(","))
        calls.append(
            f'extern "C" void run_{name}(int columns, int rows, {given}) '
            f"{{ launch(columns, rows, [&] {{ {name}({names}); }}); }}\n"
        )
    made = folder / "emulated.cpp"
    made.write_text(BEFORE + source() + AFTER + "".join(calls))
    library = folder / "emulated.so"
    # Fortified, _longjmp refuses to change to another stack.
    options = ["-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, "-o", library, made], check=True, timeout=120)
    return {name: Kernel(ctypes.CDLL(str(library)), name) for name in NAMES}
