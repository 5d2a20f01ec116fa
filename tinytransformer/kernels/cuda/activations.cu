// GELU: y = x Phi with Phi = (1 + erf(x / sqrt 2)) / 2, and dy/dx = Phi + x e^(-x^2 / 2) / sqrt(2 pi).
struct GELU {
    static __device__ real value(real x) { return x * (1 + erf(x * (real)0.70710678118654752)) / 2; }
    static __device__ real slope(real x) {
        real density = exp(x * x / -2) * (real)0.39894228040143268;
        return (1 + erf(x * (real)0.70710678118654752)) / 2 + x * density;
    }
};

// y = x (1 + t) / 2 with t = tanh(x (a + c x^2)), a = sqrt(2 / pi), c = 0.044715 a;
// dy/dx = (1 + t) (1 + (1 - t) x u') / 2 with u' = a + 3 c x^2.
struct GELUTanh {
    static __device__ real t(real x) {
        return tanh(x * ((real)0.79788456080286536 + (real)0.035677408136300125 * x * x));
    }
    static __device__ real value(real x) { return x * (1 + t(x)) / 2; }
    static __device__ real slope(real x) {
        real u = (real)0.79788456080286536 + 3 * (real)0.035677408136300125 * x * x;
        return (1 + t(x)) * (1 + (1 - t(x)) * x * u) / 2;
    }
};

// SiLU: y = x s with the sigmoid s = (1 + tanh(x / 2)) / 2, and dy/dx = s (1 + x (1 - s)).
struct SiLU {
    static __device__ real s(real x) { return (1 + tanh(x / 2)) / 2; }
    static __device__ real value(real x) { return x * s(x); }
    static __device__ real slope(real x) { return s(x) * (1 + x * (1 - s(x))); }
};

template <typename Activation>
static __device__ void activate(const real* x, real* y, long long n) {
    FOR_EACH_OF_ALL(i, n) y[i] = Activation::value(x[i]);
}

template <typename Activation>
static __device__ void activate_gradient(const real* g, const real* x, real* dx, long long n) {
    FOR_EACH_OF_ALL(i, n) dx[i] = g[i] * Activation::slope(x[i]);
}

extern "C" __global__ void gelu(const real* x, real* y, long long n) { activate<GELU>(x, y, n); }
extern "C" __global__ void gelu_gradient(const real* g, const real* x, real* dx, long long n) {
    activate_gradient<GELU>(g, x, dx, n);
}
extern "C" __global__ void gelu_tanh(const real* x, real* y, long long n) { activate<GELUTanh>(x, y, n); }
extern "C" __global__ void gelu_tanh_gradient(const real* g, const real* x, real* dx, long long n) {
    activate_gradient<GELUTanh>(g, x, dx, n);
}
extern "C" __global__ void silu(const real* x, real* y, long long n) { activate<SiLU>(x, y, n); }
extern "C" __global__ void silu_gradient(const real* g, const real* x, real* dx, long long n) {
    activate_gradient<SiLU>(g, x, dx, n);
}
