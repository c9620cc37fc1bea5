// Batch norm with what stands around it (a residual added, ReLU, 2x2 max pooling), forward and
// backward, for bf16 activations in channels_last. See trainers/fused.py.
//
// Memory is R rows (images x pixels) of C channels, read eight channels (16 bytes) at a time: V = C/8
// columns. A block of 256 threads covers TX columns and 256 / TX rows at a time; TX is a power of
// two up to 32. Each thread asks for several rows before it needs the first. Where maps are pooled,
// their width W is given (0 where not), these rows are the four pixels of a window, and what is made
// has a fourth as many. bf16 is handled as its bits, so that no header is needed.
//
// Loops over what lies in registers are unrolled, all of them: else it would lie in memory.

typedef unsigned short bf16;
struct __align__(16) Pack { bf16 v[8]; };

enum { RELU = 1, RESIDUAL = 2, BIAS = 4 };
#define THREADS 256
#define WARPS (THREADS / 32)
#define UNROLL _Pragma("unroll")
#define INLINE __device__ __forceinline__

INLINE float wide(bf16 h) { return __uint_as_float((unsigned int)h << 16); }

INLINE bf16 narrow(float x) {  // to nearest, ties to even; NaN stays NaN
    unsigned int u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// Where a thread works: its column of eight channels, its first row (window), and how far to the
// next.
struct Place { int tx, column, row, step; bool on; };

INLINE Place place(int V, int TX) {
    Place p;
    p.tx = TX;
    p.column = blockIdx.y * TX + threadIdx.x % TX;
    p.row = blockIdx.x * (THREADS / TX) + threadIdx.x / TX;
    p.step = gridDim.x * (THREADS / TX);
    p.on = p.column < V;
    return p;
}

// Whether a later pixel takes the maximum over, as PyTorch's max pooling has it.
INLINE bool above(bf16 later, bf16 best) {
    return wide(later) > wide(best) || wide(later) != wide(later);
}

// What a kernel does: rows that a thread has at once, and which they are from `first` on.
template <bool WITH_RESIDUAL, bool POOLED> struct Kind {
    enum { residual = WITH_RESIDUAL, pooled = POOLED, rows = WITH_RESIDUAL ? 2 : 4 };
    static INLINE int count(int R) { return pooled ? R / 4 : R; }
    static INLINE int next(int first, Place p) { return first + (pooled ? 1 : rows) * p.step; }
    static INLINE int row(int first, int u, int W, Place p) {
        if (!pooled) return first + u * p.step;
        int half = W / 2;
        return 2 * (first / half * W + first % half) + u / 2 * W + u % 2;
    }
};
typedef Kind<false, false> Plain;

// Runs what is written for a Kind.
#define BY_KIND(run, ...)                                            \
    if (W) run<Kind<false, true>>(__VA_ARGS__);                      \
    else if (flags & RESIDUAL) run<Kind<true, false>>(__VA_ARGS__);  \
    else run<Plain>(__VA_ARGS__)

// Sums 16 values of every thread over the block's rows: the first eight of a thread are of its
// channels, whose sums lie in total[0 .. 8 TX), those of the other eight behind them.
INLINE void block_sum(float *mine, float *shared, float *total, Place p) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int o = 16; o >= p.tx; o /= 2) {
        UNROLL for (int k = 0; k < 16; k++) mine[k] += __shfl_xor_sync(0xffffffffu, mine[k], o);
    }
    if (lane < p.tx) {  // 17: no two lanes write to the same bank
        UNROLL for (int k = 0; k < 16; k++) shared[(warp * 32 + lane) * 17 + k] = mine[k];
    }
    __syncthreads();
    for (int o = threadIdx.x; o < 16 * p.tx; o += THREADS) {
        int c = o % (8 * p.tx), k = o / (8 * p.tx) * 8 + c % 8;
        float sum = 0.f;
        UNROLL for (int w = 0; w < WARPS; w++) sum += shared[(w * 32 + c / 8) * 17 + k];
        total[o] = sum;
    }
    __syncthreads();
}

// Adds a block's sums to those of all blocks, neighbours in memory together: L2 takes those in one
// operation, and one by one they take longer than all the reading.
INLINE void add_sums(const float *total, float *sums, int C, int TX) {
    for (int o = threadIdx.x; o < 16 * TX; o += THREADS) {
        int c = blockIdx.y * TX * 8 + o % (8 * TX);
        if (c < C) atomicAdd(&sums[o / (8 * TX) * C + c], total[o]);
    }
}

INLINE void sum_rows(const Pack *x, int R, int V, Place p, float *mine) {
    UNROLL for (int k = 0; k < 16; k++) mine[k] = 0.f;
    if (!p.on) return;
    for (int first = p.row; first < R; first = Plain::next(first, p)) {
        Pack a[Plain::rows];
        UNROLL for (int u = 0; u < Plain::rows; u++) {
            int r = Plain::row(first, u, 0, p);
            if (r < R) a[u] = x[(long long)r * V + p.column];
        }
        UNROLL for (int u = 0; u < Plain::rows; u++) {
            if (Plain::row(first, u, 0, p) >= R) continue;
            UNROLL for (int k = 0; k < 8; k++) {
                float v = wide(a[u].v[k]);
                mine[k] += v;
                mine[8 + k] += v * v;
            }
        }
    }
}

// Scale and shift of a thread's channels from their sums; one thread a channel writes what is kept.
INLINE void settle(
    const float *s, const float *q, bool writes, int R, int C, int c0, const float *gamma,
    const float *beta, const bf16 *bias, float *mean_out, float *invstd_out, float *running_mean,
    float *running_var, int flags, float eps, float momentum, float *scale, float *shift) {
    UNROLL for (int k = 0; k < 8; k++) {
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

template <class K> INLINE void apply_rows(
    const Pack *x, const Pack *residual, Pack *y, int R, int V, int W, int flags, Place p,
    const float *scale, const float *shift) {
    if (!p.on) return;
    for (int first = p.row; first < K::count(R); first = K::next(first, p)) {
        Pack a[K::rows], d[K::rows], o, best;
        UNROLL for (int u = 0; u < K::rows; u++) {
            int r = K::row(first, u, W, p);
            if (r >= R) continue;
            a[u] = x[(long long)r * V + p.column];
            if (K::residual) d[u] = residual[(long long)r * V + p.column];
        }
        UNROLL for (int u = 0; u < K::rows; u++) {
            int r = K::row(first, u, W, p);
            if (r >= R) continue;
            UNROLL for (int k = 0; k < 8; k++) {
                float v = fmaf(wide(a[u].v[k]), scale[k], shift[k]);
                if (K::residual) v += wide(d[u].v[k]);
                if ((flags & RELU) && v < 0.f) v = 0.f;  // so NaN stays
                o.v[k] = narrow(v);
                if (K::pooled && (u == 0 || above(o.v[k], best.v[k]))) best.v[k] = o.v[k];
            }
            if (!K::pooled) y[(long long)r * V + p.column] = o;
        }
        if (K::pooled) y[(long long)first * V + p.column] = best;
    }
}

extern "C" __global__ void norm_sums(const Pack *x, float *sums, int R, int C, int TX) {
    __shared__ float shared[17 * THREADS];
    __shared__ float total[16 * 32];
    Place p = place(C / 8, TX);
    float mine[16];
    sum_rows(x, R, C / 8, p, mine);
    block_sum(mine, shared, total, p);
    add_sums(total, sums, C, TX);
}

extern "C" __global__ void norm_apply(
    const Pack *x, const Pack *residual, Pack *y, const float *sums, const float *gamma,
    const float *beta, const bf16 *bias, float *saved, float *running_mean, float *running_var,
    int R, int C, int TX, int W, int flags, double eps, double momentum) {
    int V = C / 8;
    Place p = place(V, TX);
    float scale[8], shift[8];
    if (!p.on) return;
    int c0 = p.column * 8;
    bool writes = blockIdx.x == 0 && threadIdx.x < TX;
    settle(sums + c0, sums + C + c0, writes, R, C, c0, gamma, beta, bias, saved, saved + C,
           running_mean, running_var, flags, (float)eps, (float)momentum, scale, shift);
    BY_KIND(apply_rows, x, residual, y, R, V, W, flags, p, scale, shift);
}

// Few rows: a block has its columns to itself, so sums and result are one launch.
extern "C" __global__ void norm_small(
    const Pack *x, const Pack *residual, Pack *y, const float *gamma, const float *beta,
    const bf16 *bias, float *saved, float *running_mean, float *running_var, int R, int C, int TX,
    int W, int flags, double eps, double momentum) {
    __shared__ float shared[17 * THREADS];
    __shared__ float total[16 * 32];
    int V = C / 8;
    Place p = place(V, TX);
    float mine[16], scale[8], shift[8];
    sum_rows(x, R, V, p, mine);
    block_sum(mine, shared, total, p);
    if (!p.on) return;
    const float *s = total + threadIdx.x % TX * 8;
    settle(s, s + 8 * TX, threadIdx.x < TX, R, C, p.column * 8, gamma, beta, bias, saved, saved + C,
           running_mean, running_var, flags, (float)eps, (float)momentum, scale, shift);
    BY_KIND(apply_rows, x, residual, y, R, V, W, flags, p, scale, shift);
}

// What the backward pass reads of a thread's next rows.
template <class K> struct Rows { Pack d[K::rows], x[K::rows], y[K::rows]; };

template <class K> INLINE void ask(
    const Pack *dy, const Pack *x, const Pack *y, int R, int V, int W, Place p, int first,
    Rows<K> *rows) {
    UNROLL for (int u = 0; u < K::rows; u++) {
        int r = K::row(first, u, W, p);
        if (r >= R) continue;
        long long i = (long long)r * V + p.column;
        if (!K::pooled || u == 0) rows->d[u] = dy[K::pooled ? (long long)first * V + p.column : i];
        rows->x[u] = x[i];
        if (K::residual) rows->y[u] = y[i];
    }
}

// The gradients before ReLU (and pooling) of one channel of these rows.
template <class K> INLINE void before(
    const Rows<K> *rows, int k, int flags, float scale, float shift, float *g) {
    int taken = 0;  // pixel of a window, by the values as they were rounded
    bf16 best = 0;
    UNROLL for (int u = 0; u < K::rows; u++) {
        float v = fmaf(wide(rows->x[u].v[k]), scale, shift);
        bool passes = K::residual ? !(wide(rows->y[u].v[k]) <= 0.f) : !(v <= 0.f);
        if (K::pooled) {
            bf16 made = narrow((flags & RELU) && v < 0.f ? 0.f : v);
            if (u == 0 || above(made, best)) { best = made; taken = u; }
        }
        g[u] = passes || !(flags & RELU) ? wide(rows->d[K::pooled ? 0 : u].v[k]) : 0.f;
    }
    UNROLL for (int u = 0; K::pooled && u < K::rows; u++) if (u != taken) g[u] = 0.f;
}

// Sums of g and of g (x - mean).
template <class K> INLINE void sum_grads(
    const Pack *dy, const Pack *x, const Pack *y, int R, int V, int W, int flags, Place p,
    const float *mean, const float *scale, const float *shift, float *mine) {
    for (int first = p.row; first < K::count(R); first = K::next(first, p)) {
        Rows<K> rows;
        ask<K>(dy, x, y, R, V, W, p, first, &rows);
        UNROLL for (int k = 0; k < 8; k++) {
            float g[K::rows];
            before<K>(&rows, k, flags, scale[k], shift[k], g);
            UNROLL for (int u = 0; u < K::rows; u++) {
                if (K::row(first, u, W, p) >= R) continue;
                mine[k] += g[u];
                mine[8 + k] += g[u] * (wide(rows.x[u].v[k]) - mean[k]);
            }
        }
    }
}

INLINE void grad_sums(
    const Pack *dy, const Pack *x, const Pack *y, const float *saved, const float *gamma,
    const float *beta, int R, int C, int W, int flags, Place p, float *mine) {
    float mean[8], scale[8], shift[8];
    UNROLL for (int k = 0; k < 16; k++) mine[k] = 0.f;
    if (!p.on) return;
    int c0 = p.column * 8;
    UNROLL for (int k = 0; k < 8; k++) {
        mean[k] = saved[c0 + k];
        scale[k] = gamma[c0 + k] * saved[C + c0 + k];
        shift[k] = beta[c0 + k] - mean[k] * scale[k];
    }
    BY_KIND(sum_grads, dy, x, y, R, C / 8, W, flags, p, mean, scale, shift, mine);
    UNROLL for (int k = 0; k < 8; k++) mine[8 + k] *= saved[C + c0 + k];
}

// dx = scale (g - s / R - xhat q / R), written as scale g - slope x - rest.
template <class K> INLINE void grad_rows(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, int R, int V, int W,
    int flags, Place p, const float *scale, const float *shift, const float *slope,
    const float *rest) {
    for (int first = p.row; first < K::count(R); first = K::next(first, p)) {
        Rows<K> rows;
        Pack of_x[K::rows], of_residual[K::rows];
        ask<K>(dy, x, y, R, V, W, p, first, &rows);
        UNROLL for (int k = 0; k < 8; k++) {
            float g[K::rows];
            before<K>(&rows, k, flags, scale[k], shift[k], g);
            UNROLL for (int u = 0; u < K::rows; u++) {
                float v = wide(rows.x[u].v[k]);
                of_x[u].v[k] = narrow(fmaf(scale[k], g[u], fmaf(-slope[k], v, -rest[k])));
                if (K::residual) of_residual[u].v[k] = narrow(g[u]);
            }
        }
        UNROLL for (int u = 0; u < K::rows; u++) {
            int r = K::row(first, u, W, p);
            if (r >= R) continue;
            dx[(long long)r * V + p.column] = of_x[u];
            if (K::residual) dresidual[(long long)r * V + p.column] = of_residual[u];
        }
    }
}

INLINE void grads(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, const float *saved,
    const float *gamma, const float *beta, const float *s, const float *q, int R, int C, int W,
    int flags, Place p) {
    float scale[8], shift[8], slope[8], rest[8];
    int c0 = p.column * 8;
    UNROLL for (int k = 0; k < 8; k++) {
        float mean = saved[c0 + k], invstd = saved[C + c0 + k];
        scale[k] = gamma[c0 + k] * invstd;
        shift[k] = beta[c0 + k] - mean * scale[k];
        slope[k] = scale[k] * invstd * (q[k] / R);
        rest[k] = scale[k] * (s[k] / R) - slope[k] * mean;
    }
    BY_KIND(grad_rows, dy, x, y, dx, dresidual, R, C / 8, W, flags, p, scale, shift, slope, rest);
}

extern "C" __global__ void norm_grad_sums(
    const Pack *dy, const Pack *x, const Pack *y, const float *saved, const float *gamma,
    const float *beta, float *sums, int R, int C, int TX, int W, int flags) {
    __shared__ float shared[17 * THREADS];
    __shared__ float total[16 * 32];
    Place p = place(C / 8, TX);
    float mine[16];
    grad_sums(dy, x, y, saved, gamma, beta, R, C, W, flags, p, mine);
    block_sum(mine, shared, total, p);
    add_sums(total, sums, C, TX);
}

extern "C" __global__ void norm_grad(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, const float *saved,
    const float *gamma, const float *beta, const float *sums, int R, int C, int TX, int W,
    int flags) {
    Place p = place(C / 8, TX);
    const float *s = sums + p.column * 8;
    if (p.on) grads(dy, x, y, dx, dresidual, saved, gamma, beta, s, s + C, R, C, W, flags, p);
}

extern "C" __global__ void norm_grad_small(
    const Pack *dy, const Pack *x, const Pack *y, Pack *dx, Pack *dresidual, const float *saved,
    const float *gamma, const float *beta, float *sums, int R, int C, int TX, int W, int flags) {
    __shared__ float shared[17 * THREADS];
    __shared__ float total[16 * 32];
    Place p = place(C / 8, TX);
    float mine[16];
    grad_sums(dy, x, y, saved, gamma, beta, R, C, W, flags, p, mine);
    block_sum(mine, shared, total, p);
    if (!p.on) return;
    const float *s = total + threadIdx.x % TX * 8, *q = s + 8 * TX;
    if (threadIdx.x < TX) {
        UNROLL for (int k = 0; k < 8; k++) {
            sums[p.column * 8 + k] = s[k];
            sums[C + p.column * 8 + k] = q[k];
        }
    }
    grads(dy, x, y, dx, dresidual, saved, gamma, beta, s, q, R, C, W, flags, p);
}
