// The place in a mask or bias of a row of the scores (batch, heads, queries, keys). An axis of length 1, which
// stands for any, has stride 0.
struct Place {
    int batch, head, query;
    __device__ Place(int heads, int queries) {
        query = blockIdx.x % queries;
        head = blockIdx.x / queries % heads;
        batch = blockIdx.x / queries / heads;
    }
    __device__ long long in(long long of_batch, long long of_head, long long of_query) const {
        return batch * of_batch + head * of_head + query * of_query;
    }
};

// e_j = M_j e^(c s_j + B_j - m) in the place of s_j, total = sum_j e_j and log_total = m + log total.
// Under a causal mask query i of T_q sees the first i + 1 + T_k - T_q keys. A row that sees nothing gets zeros,
// and its total counts as 1.
extern "C" __global__ void attention_exponentials(
    real* s, real* total, real* log_total, int heads, int queries, int keys, real c, bool causal,
    bool masked, const bool* mask, long long mask_batch, long long mask_head, long long mask_query, int mask_key,
    bool biased, const real* bias, long long bias_batch, long long bias_head, long long bias_query, int bias_key) {
    Place place(heads, queries);
    s += (long long)blockIdx.x * keys;
    mask += place.in(mask_batch, mask_head, mask_query);
    bias += place.in(bias_batch, bias_head, bias_query);
    int seen = causal ? place.query + 1 + keys - queries : keys;
    real m = -INFINITE, sum = 0;
    FOR_EACH_OF(j, seen) {
        bool allowed = !masked || mask[(long long)j * mask_key];
        s[j] = allowed ? c * s[j] + (biased ? bias[(long long)j * bias_key] : 0) : -INFINITE;
        m = Largest::of(m, s[j]);
    }
    m = over_block<Largest>(m);
    m = m == -INFINITE ? 0 : m;
    FOR_EACH_OF(j, keys) sum += s[j] = j < seen ? exp(s[j] - m) : 0;
    sum = over_block<Sum>(sum);
    if (threadIdx.x == 0) {
        sum = sum == 0 ? 1 : sum;
        total[blockIdx.x] = sum;
        log_total[blockIdx.x] = m + log(sum);
    }
}

// P_j = M_j e^(c s_j + B_j - log_total) in the place of s_j, and dL/dS_j = P_j (dL/dP_j - D) in that of dL/dP_j.
extern "C" __global__ void attention_gradient(
    real* s, real* dP, const real* log_total, const real* D, int heads, int queries, int keys, real c, bool causal,
    bool masked, const bool* mask, long long mask_batch, long long mask_head, long long mask_query, int mask_key,
    bool biased, const real* bias, long long bias_batch, long long bias_head, long long bias_query, int bias_key) {
    Place place(heads, queries);
    s += (long long)blockIdx.x * keys;
    dP += (long long)blockIdx.x * keys;
    mask += place.in(mask_batch, mask_head, mask_query);
    bias += place.in(bias_batch, bias_head, bias_query);
    int seen = causal ? place.query + 1 + keys - queries : keys;
    FOR_EACH_OF(j, keys) {
        real P = 0;
        if (j < seen && (!masked || mask[(long long)j * mask_key]))
            P = exp(c * s[j] + (biased ? bias[(long long)j * bias_key] : 0) - log_total[blockIdx.x]);
        s[j] = P;
        dP[j] = P == 0 ? 0 : P * (dP[j] - D[blockIdx.x]);
    }
}
