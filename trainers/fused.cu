// Batch norm with what stands around it (a residual added, ReLU), forward and backward, for bf16
// activations in channels_last. See trainers/fused.py.
//
// Memory is R rows (images x pixels) of C channels, read eight channels (16 bytes) at a time: V = C/8
// columns. A block of 256 threads covers TX columns and 256 / TX rows at a time. bf16 is handled as
// its bits, so that no header is needed.

typedef unsigned short bf16;
struct __align__(16) Pack { bf16 v[8]; };

enum { RELU = 1, RESIDUAL = 2, BIAS = 4 };
#define THREADS 256

__device__ __forceinline__ float wide(bf16 h) { return __uint_as_float((unsigned int)h << 16); }

__device__ __forceinline__ bf16 narrow(float x) {  // to nearest, ties to even; NaN stays NaN
    unsigned int u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// Where a thread works: its column of eight channels, its first row, and how far to the next.
struct Place { int tx, ty, column, row, step; bool on; };

__device__ __forceinline__ Place place(int V, int TX) {
    Place p;
    p.tx = TX; p.ty = THREADS / TX;
    int t = threadIdx.x;
    p.column = blockIdx.y * TX + t % TX;
    p.row = blockIdx.x * p.ty + t / TX;
    p.step = gridDim.x * p.ty;
    p.on = t < p.tx * p.ty && p.column < V;
    return p;
}

// Sums 16 values of every thread over the block's rows: total[k * TX + c], k < 16, c < TX.
__device__ __forceinline__ void block_sum(const float *mine, float *shared, float *total, Place p) {
    int t = threadIdx.x;
    for (int k = 0; k < 16; k++) shared[k * THREADS + t] = p.on ? mine[k] : 0.f;
    __syncthreads();
    for (int o = t; o < 16 * p.tx; o += THREADS) {
        int k = o / p.tx, c = o % p.tx;
        float sum = 0.f;
        for (int r = 0; r < p.ty; r++) sum += shared[k * THREADS + r * p.tx + c];
        total[o] = sum;
    }
    __syncthreads();
}

__device__ __forceinline__ void sum_rows(const Pack *x, int R, int V, Place p, float *mine) {
    for (int k = 0; k < 16; k++) mine[k] = 0.f;
    if (!p.on) return;
    for (int r = p.row; r < R; r += p.step) {
        Pack a = x[(long long)r * V + p.column];
        for (int k = 0; k < 8; k++) {
            float v = wide(a.v[k]);
            mine[k] += v;
            mine[8 + k] += v * v;
        }
    }
}

// Scale and shift of a thread's channels from their sums; one thread a channel writes what is kept.
__device__ __forceinline__ void settle(
    const float *s, const float *q, bool writes, int R, int C, int c0, const float *gamma,
    const float *beta, const bf16 *bias, float *mean_out, float *invstd_out, float *running_mean,
    float *running_var, int flags, float eps, float momentum, float *scale, float *shift) {
    for (int k = 0; k < 8; k++) {
        int c = c0 + k;
        float mean = s[k] / R, var = q[k] / R - mean * mean;
        var = var < 0.f ? 0.f : var;
        float invstd = rsqrtf(var + eps);
        scale[k] = gamma[c] * invstd;
        shift[k] = beta[c] - mean * scale[k];
        if (writes) {
            mean_out[c] = mean;
            invstd_out[c] = invstd;
            float seen = mean + ((flags & BIAS) ? wide(bias[c]) : 0.f);
            running_mean[c] += momentum * (seen - running_mean[c]);
            running_var[c] += momentum * (var * R / (R - 1) - running_var[c]);
        }
    }
}

__device__ __forceinline__ void apply_rows(
    const Pack *x, const Pack *residual, Pack *y, int R, int V, int flags, Place p,
    const float *scale, const float *shift) {
    if (!p.on) return;
    for (int r = p.row; r < R; r += p.step) {
        long long i = (long long)r * V + p.column;
        Pack a = x[i], o, d;
        if (flags & RESIDUAL) d = residual[i];
        for (int k = 0; k < 8; k++) {
            float v = fmaf(wide(a.v[k]), scale[k], shift[k]);
            if (flags & RESIDUAL) v += wide(d.v[k]);
            if ((flags & RELU) && v < 0.f) v = 0.f;  // so NaN stays
            o.v[k] = narrow(v);
        }
        y[i] = o;
    }
}

extern "C" __global__ void norm_sums(const Pack *x, float *sums, int R, int C, int TX) {
    __shared__ float shared[16 * THREADS];
    __shared__ float total[16 * THREADS];
    int V = C / 8;
    Place p = place(V, TX);
    float mine[16];
    sum_rows(x, R, V, p, mine);
    block_sum(mine, shared, total, p);
    for (int o = threadIdx.x; o < 16 * TX; o += THREADS) {
        int k = o / TX, column = blockIdx.y * TX + o % TX;
        if (column < V) atomicAdd(&sums[(k / 8) * C + column * 8 + k % 8], total[o]);
    }
}

extern "C" __global__ void norm_apply(
    const Pack *x, const Pack *residual, Pack *y, const float *sums, const float *gamma,
    const float *beta, const bf16 *bias, float *saved, float *running_mean, float *running_var,
    int R, int C, int TX, int flags, double eps, double momentum) {
    int V = C / 8;
    Place p = place(V, TX);
    float scale[8], shift[8];
    if (!p.on) return;
    int c0 = p.column * 8;
    bool writes = blockIdx.x == 0 && threadIdx.x < TX;
    settle(sums + c0, sums + C + c0, writes, R, C, c0, gamma, beta, bias, saved, saved + C,
           running_mean, running_var, flags, (float)eps, (float)momentum, scale, shift);
    apply_rows(x, residual, y, R, V, flags, p, scale, shift);
}

// Few rows: a block has its columns to itself, so sums and result are one launch.
extern "C" __global__ void norm_small(
    const Pack *x, const Pack *residual, Pack *y, const float *gamma, const float *beta,
    const bf16 *bias, float *saved, float *running_mean, float *running_var, int R, int C, int TX,
    int flags, double eps, double momentum) {
    __shared__ float shared[16 * THREADS];
    __shared__ float total[16 * THREADS];
    int V = C / 8;
    Place p = place(V, TX);
    float mine[16], scale[8], shift[8];
    sum_rows(x, R, V, p, mine);
    block_sum(mine, shared, total, p);
    if (!p.on) return;
    int c = threadIdx.x % TX;
    float s[8], q[8];
    for (int k = 0; k < 8; k++) { s[k] = total[k * TX + c]; q[k] = total[(8 + k) * TX + c]; }
    settle(s, q, threadIdx.x < TX, R, C, p.column * 8, gamma, beta, bias, saved, saved + C,
           running_mean, running_var, flags, (float)eps, (float)momentum, scale, shift);
    apply_rows(x, residual, y, R, V, flags, p, scale, shift);
}

struct Norm { float mean[8], invstd[8], scale[8], shift[8]; };

__device__ __forceinline__ void recall(
    const float *saved, const float *gamma, const float *beta, int C, int c0, Norm *n) {
    for (int k = 0; k < 8; k++) {
        n->mean[k] = saved[c0 + k];
        n->invstd[k] = saved[C + c0 + k];
        n->scale[k] = gamma[c0 + k] * n->invstd[k];
        n->shift[k] = beta[c0 + k] - n->mean[k] * n->scale[k];
    }
}

// The gradient before ReLU, of one value.
__device__ __forceinline__ float through(float g, float x, float y, int flags, const Norm *n, int k) {
    if (!(flags & RELU)) return g;
    float v = (flags & RESIDUAL) ? y : fmaf(x, n->scale[k], n->shift[k]);
    return v <= 0.f ? 0.f : g;
}

__device__ __forceinline__ void sum_grads(
    const Pack *dy, const Pack *x, const Pack *y, int R, int V, int flags, Place p, const Norm *n,
    float *mine) {
    for (int k = 0; k < 16; k++) mine[k] = 0.f;
    if (!p.on) return;
    for (int r = p.row; r < R; r += p.step) {
        long long i = (long long)r * V + p.column;
        Pack a = x[i], d = dy[i], o;
        if (flags & RESIDUAL) o = y[i];
        for (int k = 0; k < 8; k++) {
            float v = wide(a.v[k]);
            float g = through(wide(d.v[k]), v, (flags & RESIDUAL) ? wide(o.v[k]) : 0.f, flags, n, k);
            mine[k] += g;
            mine[8 + k] += g * (v - n->mean[k]) * n->invstd[k];
        }
    }
}

__device__ __forceinline__ void grad_rows(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, int R, int V, int flags,
    Place p, const Norm *n, const float *s, const float *q) {
    if (!p.on) return;
    for (int r = p.row; r < R; r += p.step) {
        long long i = (long long)r * V + p.column;
        Pack a = x[i], d = dy[i], o, made, skipped;
        if (flags & RESIDUAL) o = y[i];
        for (int k = 0; k < 8; k++) {
            float v = wide(a.v[k]);
            float g = through(wide(d.v[k]), v, (flags & RESIDUAL) ? wide(o.v[k]) : 0.f, flags, n, k);
            float xhat = (v - n->mean[k]) * n->invstd[k];
            made.v[k] = narrow(n->scale[k] * (g - s[k] / R - xhat * (q[k] / R)));
            skipped.v[k] = narrow(g);
        }
        dx[i] = made;
        if (flags & RESIDUAL) dresidual[i] = skipped;
    }
}

extern "C" __global__ void norm_grad_sums(
    const Pack *dy, const Pack *x, const Pack *y, const float *saved, const float *gamma,
    const float *beta, float *sums, int R, int C, int TX, int flags) {
    __shared__ float shared[16 * THREADS];
    __shared__ float total[16 * THREADS];
    int V = C / 8;
    Place p = place(V, TX);
    Norm n;
    if (p.on) recall(saved, gamma, beta, C, p.column * 8, &n);
    float mine[16];
    sum_grads(dy, x, y, R, V, flags, p, &n, mine);
    block_sum(mine, shared, total, p);
    for (int o = threadIdx.x; o < 16 * TX; o += THREADS) {
        int k = o / TX, column = blockIdx.y * TX + o % TX;
        if (column < V) atomicAdd(&sums[(k / 8) * C + column * 8 + k % 8], total[o]);
    }
}

extern "C" __global__ void norm_grad(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, const float *saved,
    const float *gamma, const float *beta, const float *sums, int R, int C, int TX, int flags) {
    int V = C / 8;
    Place p = place(V, TX);
    if (!p.on) return;
    Norm n;
    recall(saved, gamma, beta, C, p.column * 8, &n);
    const float *s = sums + p.column * 8;
    grad_rows(dy, x, y, dx, dresidual, R, V, flags, p, &n, s, s + C);
}

extern "C" __global__ void norm_grad_small(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, const float *saved,
    const float *gamma, const float *beta, float *sums, int R, int C, int TX, int flags) {
    __shared__ float shared[16 * THREADS];
    __shared__ float total[16 * THREADS];
    int V = C / 8;
    Place p = place(V, TX);
    Norm n;
    if (p.on) recall(saved, gamma, beta, C, p.column * 8, &n);
    float mine[16], s[8], q[8];
    sum_grads(dy, x, y, R, V, flags, p, &n, mine);
    block_sum(mine, shared, total, p);
    if (!p.on) return;
    int c = threadIdx.x % TX;
    for (int k = 0; k < 8; k++) { s[k] = total[k * TX + c]; q[k] = total[(8 + k) * TX + c]; }
    if (threadIdx.x < TX)
        for (int k = 0; k < 8; k++) {
            sums[p.column * 8 + k] = s[k];
            sums[C + p.column * 8 + k] = q[k];
        }
    grad_rows(dy, x, y, dx, dresidual, R, V, flags, p, &n, s, q);
}
