// loss = log sum_v e^(z_v) - (1 - eps) z_y - eps / V sum_v z_v, or 0 for an ignored target y.
extern "C" __global__ void cross_entropy(const real* z, const long long* targets, real* log_total, real* loss, int V,
                                         long long ignored, real eps) {
    z += (long long)blockIdx.x * V;
    long long y = targets[blockIdx.x];
    real m = largest_of(z, V), total = 0, sum = 0;
    FOR_EACH_OF(v, V) {
        total += exp(z[v] - m);
        sum += z[v];
    }
    total = log(over_block<Sum>(total)) + m;
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0) {
        log_total[blockIdx.x] = total;
        real expected = y == ignored ? 0 : (1 - eps) * z[y] + (eps == 0 ? 0 : eps / V * sum);
        loss[blockIdx.x] = y == ignored ? 0 : total - expected;
    }
}

// dz_v = w (e^(z_v - log_total) - (1 - eps) [v = y] - eps / V), with w = 0 for an ignored target.
extern "C" __global__ void cross_entropy_gradient(const real* z, const long long* targets, const real* log_total,
                                                  const real* weights, real* dz, int V, real eps) {
    z += (long long)blockIdx.x * V;
    dz += (long long)blockIdx.x * V;
    real w = weights[blockIdx.x];
    FOR_EACH_OF(v, V) {
        real target = (v == targets[blockIdx.x] ? 1 - eps : 0) + eps / V;
        dz[v] = w * (exp(z[v] - log_total[blockIdx.x]) - target);
    }
}
