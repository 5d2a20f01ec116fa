// What the kernels share. `real` is float or double: the host compiles all files as one, once for each.
//
// A block has any number of whole warps of 32 threads, and works on one row unless a kernel says otherwise.
// Its threads take the entries of the row in turns: neighbours read neighbours, which is what memory likes.

#define FOR_EACH_OF(i, n) for (int i = threadIdx.x; i < (n); i += blockDim.x)
#define FOR_EACH_OF_ALL(i, n)                                                                                 \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                             \
         i += (long long)gridDim.x * blockDim.x)

#define INFINITE ((real)__longlong_as_double(0x7ff0000000000000LL))

struct Sum {
    static __device__ real of(real a, real b) { return a + b; }
};

struct Largest {
    static __device__ real of(real a, real b) { return a > b ? a : b; }
};

// Join one value of each thread; every thread gets the result, and the order is always the same.
template <typename Join>
static __device__ real over_block(real value) {
    __shared__ real of_warp[32];
    for (int distance = 16; distance > 0; distance /= 2)
        value = Join::of(value, __shfl_xor_sync(0xffffffff, value, distance));
    __syncthreads();  // all have read what the call before left here
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++) value = Join::of(value, of_warp[warp]);
    return value;
}

// The largest entry of a row, or 0 where all are -inf: -inf - 0 stays -inf, and e to it 0.
static __device__ real largest_of(const real* x, int width) {
    real m = -INFINITE;
    FOR_EACH_OF(i, width) m = Largest::of(m, x[i]);
    m = over_block<Largest>(m);
    return m == -INFINITE ? 0 : m;
}
