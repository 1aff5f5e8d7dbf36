/* One vocabulary of vector operations on bytes for the instruction set in LUNA_ISA. Included once for each set that
 * filter.h is compiled for, so it has no include guard and begins by forgetting the set before.
 *
 * V is a vector of V_BYTES bytes, M a mask over them. V_COST_ADD adds the bytes of a vector into the sums in C.
 * Only some sets have V_ABS and V_LOOK_UP, the entries of a table of 16 bytes for indices below 16. */
#undef V
#undef M
#undef C
#undef V_BYTES
#undef V_LOAD
#undef V_STORE
#undef V_SET
#undef V_ADD
#undef V_SUB
#undef V_MIN
#undef V_MAX
#undef V_XOR
#undef V_AND
#undef V_AVERAGE_UP
#undef V_SAME
#undef V_SAME_BITS
#undef M_SAME
#undef M_AND
#undef V_SELECT
#undef V_ABS
#undef V_LOOK_UP
#undef C_ZERO
#undef V_COST_ADD
#undef C_TOTAL
#undef FN
#undef TARGET

#if LUNA_ISA == 512

#define FN(name) name##_avx512
#define TARGET TARGET_AVX512
#define V __m512i
#define M __mmask64
#define C __m512i
#define V_BYTES 64
#define V_LOAD(p) _mm512_loadu_si512((const void *)(p))
#define V_STORE(p, v) _mm512_storeu_si512((void *)(p), v)
#define V_SET(b) _mm512_set1_epi8((char)(b))
#define V_ADD(a, b) _mm512_add_epi8(a, b)
#define V_SUB(a, b) _mm512_sub_epi8(a, b)
#define V_MIN(a, b) _mm512_min_epu8(a, b)
#define V_MAX(a, b) _mm512_max_epu8(a, b)
#define V_XOR(a, b) _mm512_xor_si512(a, b)
#define V_AND(a, b) _mm512_and_si512(a, b)
#define V_AVERAGE_UP(a, b) _mm512_avg_epu8(a, b)
#define V_SAME(a, b) _mm512_cmpeq_epu8_mask(a, b)
#define M_SAME(a, b) (~((a) ^ (b)))
#define M_AND(a, b) ((a) & (b))
#define V_SELECT(m, yes, no) _mm512_mask_blend_epi8(m, no, yes)
#define V_ABS(a) _mm512_abs_epi8(a)
#define V_LOOK_UP(table, i) \
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(table))), i)
#define C_ZERO _mm512_setzero_si512()
#define V_COST_ADD(c, v) _mm512_add_epi64(c, _mm512_sad_epu8(v, _mm512_setzero_si512()))
#define C_TOTAL(c) ((u64)_mm512_reduce_add_epi64(c))

#elif LUNA_ISA == 256

#define FN(name) name##_avx2
#define TARGET TARGET_AVX2
#define V __m256i
#define M __m256i
#define C __m256i
#define V_BYTES 32
#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define V_STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define V_SET(b) _mm256_set1_epi8((char)(b))
#define V_ADD(a, b) _mm256_add_epi8(a, b)
#define V_SUB(a, b) _mm256_sub_epi8(a, b)
#define V_MIN(a, b) _mm256_min_epu8(a, b)
#define V_MAX(a, b) _mm256_max_epu8(a, b)
#define V_XOR(a, b) _mm256_xor_si256(a, b)
#define V_AND(a, b) _mm256_and_si256(a, b)
#define V_AVERAGE_UP(a, b) _mm256_avg_epu8(a, b)
#define V_SAME(a, b) _mm256_cmpeq_epi8(a, b)
#define V_SAME_BITS(p, q) ((u32)_mm256_movemask_epi8(_mm256_cmpeq_epi8(V_LOAD(p), V_LOAD(q))))
#define M_SAME(a, b) _mm256_cmpeq_epi8(a, b)
#define M_AND(a, b) _mm256_and_si256(a, b)
#define V_SELECT(m, yes, no) _mm256_blendv_epi8(no, yes, m)
#define V_ABS(a) _mm256_abs_epi8(a)
#define V_LOOK_UP(table, i) \
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(table))), i)
#define C_ZERO _mm256_setzero_si256()
#define V_COST_ADD(c, v) _mm256_add_epi64(c, _mm256_sad_epu8(v, _mm256_setzero_si256()))
#define C_TOTAL(c)                                                                              \
    ((u64)_mm256_extract_epi64(c, 0) + (u64)_mm256_extract_epi64(c, 1) + (u64)_mm256_extract_epi64(c, 2) + \
     (u64)_mm256_extract_epi64(c, 3))

#elif LUNA_ISA == 128

#define FN(name) name##_base
#define TARGET
#define V __m128i
#define M __m128i
#define C __m128i
#define V_BYTES 16
#define V_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define V_STORE(p, v) _mm_storeu_si128((__m128i *)(void *)(p), v)
#define V_SET(b) _mm_set1_epi8((char)(b))
#define V_ADD(a, b) _mm_add_epi8(a, b)
#define V_SUB(a, b) _mm_sub_epi8(a, b)
#define V_MIN(a, b) _mm_min_epu8(a, b)
#define V_MAX(a, b) _mm_max_epu8(a, b)
#define V_XOR(a, b) _mm_xor_si128(a, b)
#define V_AND(a, b) _mm_and_si128(a, b)
#define V_AVERAGE_UP(a, b) _mm_avg_epu8(a, b)
#define V_SAME(a, b) _mm_cmpeq_epi8(a, b)
#define V_SAME_BITS(p, q) ((u32)_mm_movemask_epi8(_mm_cmpeq_epi8(V_LOAD(p), V_LOAD(q))))
#define M_SAME(a, b) _mm_cmpeq_epi8(a, b)
#define M_AND(a, b) _mm_and_si128(a, b)
#define V_SELECT(m, yes, no) _mm_or_si128(_mm_and_si128(m, yes), _mm_andnot_si128(m, no))
#define C_ZERO _mm_setzero_si128()
#define V_COST_ADD(c, v) _mm_add_epi64(c, _mm_sad_epu8(v, _mm_setzero_si128()))
#define C_TOTAL(c) ((u64)_mm_cvtsi128_si64(c) + (u64)_mm_cvtsi128_si64(_mm_unpackhi_epi64(c, c)))

#else /* One byte at a time, in a form that compilers vectorise for whatever they compile for (NEON, SVE, RVV). */

#define FN(name) name##_base
#define TARGET
#define V u8
#define M u8
#define C u32
#define V_BYTES 1
#define V_LOAD(p) (*(p))
#define V_STORE(p, v) (*(p) = (v))
#define V_SET(b) ((u8)(b))
#define V_ADD(a, b) ((u8)((a) + (b)))
#define V_SUB(a, b) ((u8)((a) - (b)))
#define V_MIN(a, b) ((u8)((a) < (b) ? (a) : (b)))
#define V_MAX(a, b) ((u8)((a) > (b) ? (a) : (b)))
#define V_XOR(a, b) ((u8)((a) ^ (b)))
#define V_AND(a, b) ((u8)((a) & (b)))
#define V_AVERAGE_UP(a, b) ((u8)(((a) + (b) + 1) >> 1))
#define V_SAME(a, b) ((u8)((a) == (b)))
#define M_SAME(a, b) ((u8)((a) == (b)))
#define M_AND(a, b) ((u8)((a) & (b)))
#define V_SELECT(m, yes, no) ((u8)((m) ? (yes) : (no)))
#define C_ZERO 0
#define V_COST_ADD(c, v) ((c) + (v))
#define C_TOTAL(c) ((u64)(c))

#endif
