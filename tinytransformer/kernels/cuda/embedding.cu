// dW_v = sum of the rows t of g with ids_t = v: those at order[starts[v]] to order[starts[v + 1] - 1], one block
// for each v. No atomic addition: the same order at every run.
extern "C" __global__ void embedding_gradient(const real* g, const long long* order, const long long* starts,
                                              real* dW, int width) {
    dW += (long long)blockIdx.x * width;
    FOR_EACH_OF(i, width) {
        real sum = 0;
        for (long long n = starts[blockIdx.x]; n < starts[blockIdx.x + 1]; n++) sum += g[order[n] * width + i];
        dW[i] = sum;
    }
}
