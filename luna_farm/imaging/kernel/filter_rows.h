/* The five PNG filters (PNG, 9.2) over one row, and what the result would cost to send. Compiled once for each
 * instruction set in simd.h, so it has no include guard.
 *
 * When encoding, every neighbour is a pixel of the picture, so nothing waits for the byte before it and even Paeth
 * runs a vector at a time. Rows stand in buffers with MARGIN zero bytes on either side: the zeros on the left are the
 * ones that PNG wants there, the ones on the right let the last vector be a whole one that costs nothing. */

INLINE TARGET V FN(distance)(V a, V b) { return V_SUB(V_MAX(a, b), V_MIN(a, b)); }

/* Paeth in bytes alone: with pa = |b - c| and pb = |a - c|, the third distance |a + b - 2c| is |pa - pb| where c lies
 * between a and b, and pa + pb elsewhere. There it never wins, so the largest byte stands for it. */
INLINE TARGET V FN(paeth)(V a, V b, V c) {
    V above_c = V_MAX(a, c), beside_c = V_MAX(b, c);
    V pa = V_SUB(beside_c, V_MIN(b, c)), pb = V_SUB(above_c, V_MIN(a, c));
    M outside = M_SAME(V_SAME(above_c, a), V_SAME(beside_c, b));
    V pc = V_SELECT(outside, V_SET(255), FN(distance)(pa, pb));
    V b_or_c = V_SELECT(V_SAME(V_MIN(pb, pc), pb), b, c);
    V least = V_MIN(pa, V_MIN(pb, pc));
    return V_SELECT(V_SAME(least, pa), a, b_or_c);
}

INLINE TARGET V FN(residual)(int filter, V x, V a, V b, V c) {
    switch (filter) {
    case 0: return x;
    case 1: return V_SUB(x, a);
    case 2: return V_SUB(x, b);
    case 3: /* (a + b) / 2 rounded down, from an average that rounds up */
        return V_SUB(x, V_SUB(V_AVERAGE_UP(a, b), V_AND(V_XOR(a, b), V_SET(1))));
    default: return V_SUB(x, FN(paeth)(a, b, c));
    }
}

/* About 8 log2(1 + |v|) for a residual, by straight pieces up to 15: what a Huffman code will charge for it, near
 * enough. The sum over a row ranks filters like the entropy does, where the usual sum of |v| errs (on clean
 * pictures by 1 % of the file). */
INLINE TARGET V FN(cost)(V v) {
#ifdef V_LOOK_UP
    return V_LOOK_UP(COSTS, V_MIN(V_ABS(v), V_SET(15)));
#else
    V size = V_MIN(v, V_SUB(V_SET(0), v));
    V one = V_MIN(size, V_SET(1)), three = V_MIN(size, V_SET(3));
    V ones = V_ADD(one, one), sum = V_ADD(ones, three);
    return V_ADD(V_ADD(V_ADD(sum, sum), V_MIN(size, V_SET(7))), V_MIN(size, V_SET(15)));
#endif
}

INLINE TARGET V FN(filtered)(int filter, const u8 *row, const u8 *above, size_t pixel_bytes) {
    return FN(residual)(filter, V_LOAD(row), V_LOAD(row - pixel_bytes), V_LOAD(above), V_LOAD(above - pixel_bytes));
}

INLINE TARGET void FN(apply)(int filter, const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes, u8 *out) {
    for (size_t i = 0; i < bytes; i += V_BYTES)
        V_STORE(out + i, FN(filtered)(filter, row + i, above + i, pixel_bytes));
}

/* Filters one row. `out` has room for `bytes` rounded up to MARGIN. */
static TARGET void FN(filter_row)(int filter, const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes, u8 *out) {
    switch (filter) {
    case 0: FN(apply)(0, row, above, bytes, pixel_bytes, out); break;
    case 1: FN(apply)(1, row, above, bytes, pixel_bytes, out); break;
    case 2: FN(apply)(2, row, above, bytes, pixel_bytes, out); break;
    case 3: FN(apply)(3, row, above, bytes, pixel_bytes, out); break;
    default: FN(apply)(4, row, above, bytes, pixel_bytes, out); break;
    }
}

/* The costs of the row under the five filters, from every `skip`-th vector of it. */
static TARGET void FN(cost_row)(const u8 *row, const u8 *above, size_t bytes, size_t pixel_bytes, size_t skip, u64 *costs) {
    C none = C_ZERO, sub = C_ZERO, up = C_ZERO, average = C_ZERO, paeth = C_ZERO;
    for (size_t i = 0; i < bytes; i += V_BYTES * skip) {
        V x = V_LOAD(row + i), a = V_LOAD(row + i - pixel_bytes), b = V_LOAD(above + i), c = V_LOAD(above + i - pixel_bytes);
        none = V_COST_ADD(none, FN(cost)(x));
        sub = V_COST_ADD(sub, FN(cost)(FN(residual)(1, x, a, b, c)));
        up = V_COST_ADD(up, FN(cost)(FN(residual)(2, x, a, b, c)));
        average = V_COST_ADD(average, FN(cost)(FN(residual)(3, x, a, b, c)));
        paeth = V_COST_ADD(paeth, FN(cost)(FN(residual)(4, x, a, b, c)));
    }
    costs[0] = C_TOTAL(none);
    costs[1] = C_TOTAL(sub);
    costs[2] = C_TOTAL(up);
    costs[3] = C_TOTAL(average);
    costs[4] = C_TOTAL(paeth);
}
