// y_i = e^(x_i - m) / sum_j e^(x_j - m)
extern "C" __global__ void softmax(const real* x, real* y, int width) {
    x += (long long)blockIdx.x * width;
    y += (long long)blockIdx.x * width;
    real m = largest_of(x, width), total = 0;
    FOR_EACH_OF(i, width) total += y[i] = exp(x[i] - m);
    total = over_block<Sum>(total);
    FOR_EACH_OF(i, width) y[i] /= total;
}

// dx_j = y_j (g_j - sum_i g_i y_i)
extern "C" __global__ void softmax_gradient(const real* g, const real* y, real* dx, int width) {
    g += (long long)blockIdx.x * width;
    y += (long long)blockIdx.x * width;
    dx += (long long)blockIdx.x * width;
    real mean = 0;
    FOR_EACH_OF(i, width) mean += g[i] * y[i];
    mean = over_block<Sum>(mean);
    FOR_EACH_OF(i, width) dx[i] = y[i] * (g[i] - mean);
}

// y_i = x_i - log sum_j e^(x_j)
extern "C" __global__ void log_softmax(const real* x, real* y, int width) {
    x += (long long)blockIdx.x * width;
    y += (long long)blockIdx.x * width;
    real m = largest_of(x, width), total = 0;
    FOR_EACH_OF(i, width) total += exp(x[i] - m);
    total = log(over_block<Sum>(total)) + m;
    FOR_EACH_OF(i, width) y[i] = x[i] - total;
}

// dx_j = g_j - e^(y_j) sum_i g_i
extern "C" __global__ void log_softmax_gradient(const real* g, const real* y, real* dx, int width) {
    g += (long long)blockIdx.x * width;
    y += (long long)blockIdx.x * width;
    dx += (long long)blockIdx.x * width;
    real total = 0;
    FOR_EACH_OF(i, width) total += g[i];
    total = over_block<Sum>(total);
    FOR_EACH_OF(i, width) dx[i] = g[i] - exp(y[i]) * total;
}
