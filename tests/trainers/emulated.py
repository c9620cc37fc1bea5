"""The kernels of `trainers/*.cu` compiled for the CPU by g++, one thread a CUDA thread.

Slow, and the same source: what is computed can be tested where no GPU is.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import torch

from trainers.kernels import NAMES, THREADS, source

BEFORE = """
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>
struct Three { unsigned x, y, z; };
static thread_local Three threadIdx, blockIdx;
static Three gridDim;
#define __device__
#define __forceinline__ inline
#define __global__
#define __shared__ static
#define __align__(n) alignas(n)
static std::barrier<> *barrier_;
static std::mutex mutex_;
static void __syncthreads() { barrier_->arrive_and_wait(); }
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
static void atomicAdd(float *p, float v) { std::lock_guard<std::mutex> l(mutex_); *p += v; }
"""
AFTER = """
template <class Kernel> void launch(int columns, int rows, Kernel kernel) {
  gridDim = {(unsigned)columns, (unsigned)rows, 1};
  for (unsigned y = 0; y < gridDim.y; y++) for (unsigned x = 0; x < gridDim.x; x++) {
    std::barrier<> all(THREADS);
    barrier_ = &all;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < THREADS; t++) threads.emplace_back([&, t] {
      threadIdx = {t, 0, 0};
      blockIdx = {x, y, 0};
      kernel();
      all.arrive_and_drop();
    });
    for (auto &thread : threads) thread.join();
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
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *options, "-o", library, made], check=True, timeout=120)
    return {name: Kernel(ctypes.CDLL(str(library)), name) for name in NAMES}
