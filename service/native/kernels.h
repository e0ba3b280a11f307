/* What an encoder is made of, on vectors of 512 bits: products of matrices, exp, GELU, normalisation, quantisation.
 *
 * Knows arrays and instructions (AVX-512 with VNNI); does not know layers or sequences.
 * Invariant: every output depends on its own row alone, bit for bit, however many rows are computed together.
 */
#ifndef SHELFRANK_KERNELS_H
#define SHELFRANK_KERNELS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define ROWS 6   /* of a tile: 6 x 4 vectors of sums, 4 of weights and one of activations fit 32 registers */
#define PANEL 64 /* columns of a tile */
#define INLINE static inline __attribute__((always_inline))

/* 2^(x log2 e) by a polynomial of degree 6 on [-1/2, 1/2]; relative error below 2e-7, 0 below -87. */
INLINE __m512 exp16(__m512 x) {
  const __m512 t = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-100.0f)), _mm512_set1_ps(1.44269504f));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(t, n);
  __m512 p = _mm512_set1_ps(1.5403530e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

INLINE __m512 tanh16(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
  const __m512 e = exp16(_mm512_mul_ps(two, _mm512_min_ps(x, _mm512_set1_ps(20.0f))));
  return _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(e, one)));
}

/* x/2 (1 + erf(x / sqrt 2)), by an odd polynomial within |x| < 4.5; GELU_COEFFICIENTS says how far off. */
#include "gelu.h"
INLINE __m512 gelu16(__m512 x) {
  const __m512 bound = _mm512_set1_ps(GELU_BOUND);
  const __m512 c = _mm512_max_ps(_mm512_min_ps(x, bound), _mm512_sub_ps(_mm512_setzero_ps(), bound));
  const __m512 s = _mm512_mul_ps(c, c);
  __m512 p = _mm512_set1_ps(GELU[0]);
#pragma GCC unroll 16
  for (int i = 1; i < GELU_COEFFICIENTS; i++) p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(GELU[i]));
  const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
  return _mm512_fmadd_ps(half, _mm512_mul_ps(c, p), half);
}

/* 16 floats, divided by the step and moved by the zero point already, as u8. */
INLINE void store_u8(uint8_t *to, __m512 x) {
  const __m512i rounded = _mm512_cvtps_epi32(x);
  _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_max_epi32(rounded, _mm512_setzero_si512())));
}

/* -- int8 products: u8 rows by packed s8 weights ------------------------------------------------------------- */

typedef enum { STORE, ADD, GELU_U8, RELU_U8 } Ending;

/* sum += a b, four bytes at a time. As an instruction, since compilers copy the sums of the intrinsic around. */
#define DOT(sum, a, b) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))

/* A linear layer: weights [out / 64][in / 4][64][4], y = sum * scale + bias with the zero point in the bias.
 * `inverse` [in] times a float plus `zero` is the u8 that it reads. */
typedef struct {
  const int8_t *weight;
  const float *scale, *bias, *inverse;
  float zero;
  int32_t in, out;
} Linear;

/* Where a product goes: floats [rows][out], added to `residual` of the same shape, or u8 for `next`. */
typedef struct {
  Ending ending;
  float *floats;
  const float *residual;
  uint8_t *bytes;
  const Linear *next;
} Target;

INLINE void end_tile(const __m512i (*sum)[4], int rows, const Linear *layer, int column, size_t row, Target to) {
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const int at = column + c * LANES;
    const __m512 scale = _mm512_loadu_ps(layer->scale + at), bias = _mm512_loadu_ps(layer->bias + at);
    __m512 inverse = scale, zero = scale;
    if (to.ending >= GELU_U8) {
      inverse = _mm512_loadu_ps(to.next->inverse + at);
      zero = _mm512_set1_ps(to.next->zero);
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      const size_t place = (row + r) * layer->out + at;
      __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][c]), scale, bias);
      if (to.ending == ADD) y = _mm512_add_ps(y, _mm512_loadu_ps(to.residual + place));
      if (to.ending <= ADD) {
        _mm512_storeu_ps(to.floats + place, y);
      } else {
        y = to.ending == GELU_U8 ? gelu16(y) : _mm512_max_ps(y, _mm512_setzero_ps());
        store_u8(to.bytes + place, _mm512_fmadd_ps(y, inverse, zero));
      }
    }
  }
}

INLINE void tile(const uint8_t *a, int rows, const Linear *layer, int column, size_t row, Target to) {
  __m512i sum[ROWS][4];
  const int8_t *weight = layer->weight + (size_t)column * layer->in;
  const size_t in = layer->in;
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) sum[r][c] = _mm512_setzero_si512();
  a += row * in;
  for (size_t k = 0; k < in; k += 4, weight += 4 * PANEL) {
    __m512i b[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) b[c] = _mm512_loadu_si512(weight + 64 * c);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      int32_t four;
      memcpy(&four, a + r * in + k, 4);
      const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) DOT(sum[r][c], x, b[c]);
    }
  }
  end_tile((const __m512i(*)[4])sum, rows, layer, column, row, to);
}

INLINE void tiles(const uint8_t *a, size_t rows, const Linear *layer, Target to) {
  for (int column = 0; column < layer->out; column += PANEL)
    for (size_t row = 0, left = (rows + ROWS - 1) / ROWS; row < rows; left--) {
      const size_t now = (rows - row + left - 1) / left; /* tiles of nearly equal height */
      switch (now) {
        case 6: tile(a, 6, layer, column, row, to); break;
        case 5: tile(a, 5, layer, column, row, to); break;
        case 4: tile(a, 4, layer, column, row, to); break;
        case 3: tile(a, 3, layer, column, row, to); break;
        case 2: tile(a, 2, layer, column, row, to); break;
        default: tile(a, 1, layer, column, row, to);
      }
      row += now;
    }
}

static void multiply(const uint8_t *a, size_t rows, const Linear *layer, Target to) {
#define CASE(kind)                                                                                       \
  case kind: {                                                                                           \
    const Target fixed = {kind, to.floats, to.residual, to.bytes, to.next};                              \
    tiles(a, rows, layer, fixed);                                                                        \
    break;                                                                                               \
  }
  switch (to.ending) {
    CASE(STORE) CASE(ADD) CASE(GELU_U8) CASE(RELU_U8)
  }
#undef CASE
}

/* -- float products: c [rows][columns] = a [rows][inner] b [inner][columns], columns in whole vectors --------- */

INLINE void float_tile(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, int inner,
                       int rows, int vectors) {
  __m512 sum[ROWS][4];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_setzero_ps();
  for (int k = 0; k < inner; k++) {
    __m512 w[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) w[v] = _mm512_loadu_ps(b + k * ldb + v * LANES);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      const __m512 x = _mm512_set1_ps(a[r * lda + k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(x, w[v], sum[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(c + r * ldc + v * LANES, sum[r][v]);
}

INLINE void float_rows(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, int inner,
                       int rows, int vectors) {
  for (int row = 0, left = (rows + ROWS - 1) / ROWS; row < rows; left--) {
    const int now = (rows - row + left - 1) / left;
    const float *x = a + row * lda;
    float *y = c + row * ldc;
    switch (now) {
      case 6: float_tile(x, lda, b, ldb, y, ldc, inner, 6, vectors); break;
      case 5: float_tile(x, lda, b, ldb, y, ldc, inner, 5, vectors); break;
      case 4: float_tile(x, lda, b, ldb, y, ldc, inner, 4, vectors); break;
      case 3: float_tile(x, lda, b, ldb, y, ldc, inner, 3, vectors); break;
      case 2: float_tile(x, lda, b, ldb, y, ldc, inner, 2, vectors); break;
      default: float_tile(x, lda, b, ldb, y, ldc, inner, 1, vectors);
    }
    row += now;
  }
}

static void float_multiply(const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, int inner,
                           int rows, int columns) {
  for (int column = 0; column < columns; column += PANEL) {
    const int vectors = (columns - column) / LANES;
    switch (vectors) {
      case 1: float_rows(a, lda, b + column, ldb, c + column, ldc, inner, rows, 1); break;
      case 2: float_rows(a, lda, b + column, ldb, c + column, ldc, inner, rows, 2); break;
      case 3: float_rows(a, lda, b + column, ldb, c + column, ldc, inner, rows, 3); break;
      default: float_rows(a, lda, b + column, ldb, c + column, ldc, inner, rows, 4);
    }
  }
}

/* -- rows ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const float *weight, *bias;
  float epsilon;
} Norm;

/* Normalise a row in place. */
INLINE void normalize(float *x, int width, const Norm *norm) {
  __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int i = 0; i < width; i += LANES) total = _mm512_add_ps(total, _mm512_loadu_ps(x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / width);
  for (int i = 0; i < width; i += LANES) {
    const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
    squares = _mm512_fmadd_ps(d, d, squares);
  }
  const float variance = _mm512_reduce_add_ps(squares) / width + norm->epsilon;
  const __m512 factor = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(variance)));
  for (int i = 0; i < width; i += LANES) {
    const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), factor);
    _mm512_storeu_ps(x + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(norm->weight + i), _mm512_loadu_ps(norm->bias + i)));
  }
}

/* Rows [rows][in] as the u8 that a linear layer reads. */
INLINE void quantize(const float *x, uint8_t *to, size_t rows, const Linear *reader) {
  const __m512 zero = _mm512_set1_ps(reader->zero);
  for (size_t r = 0; r < rows; r++)
    for (int i = 0; i < reader->in; i += LANES, x += LANES, to += LANES)
      store_u8(to, _mm512_fmadd_ps(_mm512_loadu_ps(x), _mm512_loadu_ps(reader->inverse + i), zero));
}

#endif
