// y = gamma n + beta with n = (x - mu) r. Layer norm: mu the mean, r = 1 / sqrt(variance + eps). RMS norm is
// the same uncentred, with mu = 0 and no beta: r = 1 / sqrt(mean square + eps).
extern "C" __global__ void normalize(const real* x, const real* gamma, const real* beta, real* y, real* mu, real* r,
                                     int width, real eps, bool centred) {
    x += (long long)blockIdx.x * width;
    y += (long long)blockIdx.x * width;
    real mean = 0, square = 0;
    if (centred) {
        FOR_EACH_OF(i, width) mean += x[i];
        mean = over_block<Sum>(mean) / width;
    }
    FOR_EACH_OF(i, width) square += (x[i] - mean) * (x[i] - mean);
    real scale = 1 / sqrt(over_block<Sum>(square) / width + eps);
    FOR_EACH_OF(i, width) y[i] = gamma[i] * (x[i] - mean) * scale + (centred ? beta[i] : 0);
    if (threadIdx.x == 0) {
        mu[blockIdx.x] = mean;
        r[blockIdx.x] = scale;
    }
}

// With h = g gamma:  dx_i = r (h_i - mean_j h_j - n_i mean_j h_j n_j), uncentred without the middle term.
extern "C" __global__ void normalize_gradient(const real* g, const real* x, const real* gamma, const real* mu,
                                              const real* r, real* dx, int width, bool centred) {
    g += (long long)blockIdx.x * width;
    x += (long long)blockIdx.x * width;
    dx += (long long)blockIdx.x * width;
    real mean = mu[blockIdx.x], scale = r[blockIdx.x], h = 0, h_n = 0;
    FOR_EACH_OF(i, width) {
        h += g[i] * gamma[i];
        h_n += g[i] * gamma[i] * (x[i] - mean) * scale;
    }
    h = centred ? over_block<Sum>(h) / width : 0;
    h_n = over_block<Sum>(h_n) / width;
    FOR_EACH_OF(i, width) dx[i] = scale * (g[i] * gamma[i] - h - (x[i] - mean) * scale * h_n);
}

// dgamma = sum of g n and dbeta = sum of g over the rows. A block adds up 32 columns of every gridDim.y-th row,
// each warp some of these rows; the host adds the gridDim.y parts.
extern "C" __global__ void normalize_parameters(const real* g, const real* x, const real* mu, const real* r,
                                                real* dgamma, real* dbeta, int rows, int width) {
    __shared__ real of_warp[2][32][32];
    int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    int column = blockIdx.x * 32 + lane;
    real g_n = 0, g_1 = 0;
    if (column < width)
        for (long long row = blockIdx.y * warps + warp; row < rows; row += gridDim.y * warps) {
            real upstream = g[row * width + column];
            g_n += upstream * (x[row * width + column] - mu[row]) * r[row];
            g_1 += upstream;
        }
    of_warp[0][warp][lane] = g_n;
    of_warp[1][warp][lane] = g_1;
    __syncthreads();
    if (warp > 0 || column >= width) return;
    for (int other = 1; other < warps; other++) {
        g_n += of_warp[0][other][lane];
        g_1 += of_warp[1][other][lane];
    }
    dgamma[blockIdx.y * width + column] = g_n;
    dbeta[blockIdx.y * width + column] = g_1;
}
