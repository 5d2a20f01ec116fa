// One step of AdamW for entries that have taken equally many: see tinytransformer.optim.AdamW. The corrections
// are 1 - beta^t; l2 is the decay of Adam, that passes through the moments, and decay the one of AdamW.
extern "C" __global__ void adam(real* p, const real* gradient, real* m, real* v, long long n, double lr, double beta1,
                                double beta2, double eps, double correction1, double correction2, double l2,
                                double decay) {
    real rest1 = 1 - beta1, rest2 = 1 - beta2, keep = 1 - lr * decay, size = lr / correction1;
    real root = 1 / sqrt(correction2);  // in double up to here: 1 - 0.999 has few digits of float left
    FOR_EACH_OF_ALL(i, n) {
        real g = gradient[i] + (real)l2 * p[i];
        m[i] = (real)beta1 * m[i] + rest1 * g;
        v[i] = (real)beta2 * v[i] + rest2 * g * g;
        p[i] = keep * p[i] - size * m[i] / (sqrt(v[i]) * root + (real)eps);
    }
}
