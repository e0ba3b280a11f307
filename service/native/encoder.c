/* Computes the relevance logits of rows of token ids with a BERT-like encoder in int8: no padding, one thread.
 *
 * Knows layers and sequences; does not know files, texts or threads. What it computes is what the int8 graph of
 * the same bundle says (training/export/flat.py, training/export/int8.py), to rounding.
 * Invariant: a logit depends on its own row alone, bit for bit.
 */
#include "kernels.h"

#include <cpuid.h>
#include <stdlib.h>

#define GROUP 128 /* tokens computed together: enough for the weights to be worth reading, few enough to stay in L2 */

typedef struct {
  Linear inputs; /* query, key and value side by side, or key and value where only first tokens are asked */
  Linear query;  /* of the last layer's first tokens; without weights in other layers */
  Linear project, expand, contract;
  Norm attention_norm, output_norm;
} Layer;

typedef struct {
  int32_t layers, heads, hidden, inner, longest, vocabulary, activation; /* 0 GELU, 1 ReLU */
  const int8_t *words;                     /* [vocabulary][hidden] */
  const float *word_scales;                /* [vocabulary] */
  const float *positions, *types;          /* [longest][hidden], [2][hidden] */
  Norm embedding_norm;
  const Layer *layer;
  const float *pooler, *pooler_bias;       /* [hidden][hidden], [hidden] */
  const float *classifier;                 /* [hidden] */
  float classifier_bias;
  int32_t pooled; /* 0 tanh, 1 ReLU */
} Encoder;

/* What one thread writes on; `rows` is the most rows of a call. */
typedef struct {
  int32_t rows;
  float *x, *y, *inputs, *keys, *scores; /* of a group, and of one head */
  uint8_t *bytes, *wide;
  float *first, *first_query, *pooled; /* of a call */
  uint8_t *first_bytes, *context, *first_wide;
} Workspace;

/* Bytes of the structs that weights.py mirrors, in its order. */
void shelfrank_encoder_sizes(int32_t *sizes) {
  sizes[0] = sizeof(Linear), sizes[1] = sizeof(Norm), sizes[2] = sizeof(Layer), sizes[3] = sizeof(Encoder);
}

int shelfrank_supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

/* Whether products of int8 matrices have instructions of their own, which ONNX Runtime uses and this engine does not.
 * AMX-INT8 is bit 25 of EDX of CPUID leaf 7; Clang before 19 and GCC before 11 do not know its name. */
int shelfrank_has_tiles(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 25 & 1;
}

static int round_up(int n, int step) { return (n + step - 1) / step * step; }

/* Most tokens of a group, which has one sequence at least. */
static int group_tokens(const Encoder *e) { return e->longest > GROUP ? e->longest : GROUP; }

void shelfrank_close(Workspace *w) {
  if (w == NULL) return;
  void *all[] = {w->x,     w->y,           w->inputs, w->keys,        w->scores,  w->bytes,      w->wide,
                 w->first, w->first_query, w->pooled, w->first_bytes, w->context, w->first_wide};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  free(w);
}

/* NULL if there is no memory. */
Workspace *shelfrank_open(const Encoder *e, int32_t rows) {
  Workspace *w = calloc(1, sizeof *w);
  if (w == NULL) return NULL;
  const size_t tokens = group_tokens(e), hidden = e->hidden, longest = round_up(e->longest, LANES);
  w->rows = rows;
  const struct {
    void **to;
    size_t bytes;
  } wanted[] = {
      {(void **)&w->x, tokens * hidden * 4},          {(void **)&w->y, tokens * hidden * 4},
      {(void **)&w->inputs, tokens * hidden * 12},    {(void **)&w->keys, hidden / e->heads * longest * 4},
      {(void **)&w->scores, e->longest * longest * 4}, {(void **)&w->bytes, tokens * hidden},
      {(void **)&w->wide, tokens * e->inner},         {(void **)&w->first, rows * hidden * 4},
      {(void **)&w->first_query, rows * hidden * 4},  {(void **)&w->pooled, rows * hidden * 4},
      {(void **)&w->first_bytes, rows * hidden},      {(void **)&w->context, rows * hidden},
      {(void **)&w->first_wide, (size_t)rows * e->inner},
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    *wanted[i].to = aligned_alloc(64, (wanted[i].bytes + 127) / 64 * 64);
    if (*wanted[i].to == NULL) {
      shelfrank_close(w);
      return NULL;
    }
  }
  return w;
}

/* Token ids of one sequence as normalised rows [length][hidden]. */
static void embed(const Encoder *e, const int32_t *ids, int length, int of_type_0, float *x) {
  const int hidden = e->hidden;
  for (int t = 0; t < length; t++, x += hidden) {
    const int8_t *word = e->words + (size_t)ids[t] * hidden;
    const float *position = e->positions + (size_t)t * hidden;
    const float *type = e->types + (t < of_type_0 ? 0 : hidden);
    const __m512 scale = _mm512_set1_ps(e->word_scales[ids[t]]);
    for (int i = 0; i < hidden; i += LANES) {
      const __m512i integers = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(word + i)));
      const __m512 word_and_type = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(integers), scale), _mm512_loadu_ps(type + i));
      _mm512_storeu_ps(x + i, _mm512_add_ps(word_and_type, _mm512_loadu_ps(position + i)));
    }
    normalize(x, hidden, &e->embedding_norm);
  }
}

/* 16 rows of keys as columns: to[d][16] = from[16][d], the rows past `rows` as zeros. */
static void turn(const float *from, size_t stride, int rows, int depth, float *to, size_t to_stride) {
  for (int d = 0; d < depth; d += LANES) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = i < rows ? _mm512_loadu_ps(from + i * stride + d) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
      a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
      a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
      a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
    }
    for (int i = 0; i < 4; i++) {
      b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
      b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
      b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
      b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
      _mm512_storeu_ps(to + (d + i) * to_stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
      _mm512_storeu_ps(to + (d + i + 4) * to_stride, _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0x88));
      _mm512_storeu_ps(to + (d + i + 8) * to_stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
      _mm512_storeu_ps(to + (d + i + 12) * to_stride, _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0xdd));
    }
  }
}

/* exp(x - largest) of a row of `length` scores in place, not divided by their sum, which is returned. */
static float soften(float *x, int length) {
  const __m512 least = _mm512_set1_ps(-1e30f);
  __m512 largest = least, total = _mm512_setzero_ps();
  for (int i = 0; i < length; i += LANES) {
    const __mmask16 real = length - i >= LANES ? 0xffff : (__mmask16)((1u << (length - i)) - 1);
    largest = _mm512_max_ps(largest, _mm512_mask_loadu_ps(least, real, x + i));
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  for (int i = 0; i < length; i += LANES) {
    const __mmask16 real = length - i >= LANES ? 0xffff : (__mmask16)((1u << (length - i)) - 1);
    const __m512 e = _mm512_maskz_mov_ps(real, exp16(_mm512_sub_ps(_mm512_loadu_ps(x + i), top)));
    _mm512_storeu_ps(x + i, e);
    total = _mm512_add_ps(total, e);
  }
  return _mm512_reduce_add_ps(total);
}

/* Attention of one sequence: `queries` rows of q over `length` rows of k and v, as the u8 that `reader` reads. */
static void attend(const Encoder *e, Workspace *w, const float *q, size_t q_stride, const float *k, const float *v,
                   size_t stride, int queries, int length, const Linear *reader, uint8_t *to) {
  const int size = e->hidden / e->heads, wide = round_up(length, LANES);
  const __m512 zero = _mm512_set1_ps(reader->zero);
  float *out = w->y; /* [queries][size], free until the projection */
  for (int head = 0; head < e->heads; head++) {
    const int at = head * size;
    for (int row = 0; row < length; row += LANES)
      turn(k + row * stride + at, stride, length - row, size, w->keys + row, wide);
    float_multiply(q + at, q_stride, w->keys, wide, w->scores, wide, size, queries, wide);
    float sums[queries];
    for (int row = 0; row < queries; row++) sums[row] = soften(w->scores + (size_t)row * wide, length);
    float_multiply(w->scores, wide, v + at, stride, out, size, length, queries, size);
    for (int row = 0; row < queries; row++) {
      const __m512 part = _mm512_set1_ps(1.0f / sums[row]);
      for (int i = 0; i < size; i += LANES) {
        const __m512 mean = _mm512_mul_ps(_mm512_loadu_ps(out + row * size + i), part);
        const __m512 inverse = _mm512_loadu_ps(reader->inverse + at + i);
        store_u8(to + (size_t)row * e->hidden + at + i, _mm512_fmadd_ps(mean, inverse, zero));
      }
    }
  }
}

/* What follows attention in a layer: u8 `context` and its residual `x` to the rows of the next layer, in x. */
static void feed_forward(const Encoder *e, const Layer *layer, const uint8_t *context, size_t rows, float *x, float *y,
                         uint8_t *bytes, uint8_t *wide) {
  multiply(context, rows, &layer->project, (Target){ADD, y, x, NULL, NULL});
  for (size_t r = 0; r < rows; r++) normalize(y + r * e->hidden, e->hidden, &layer->attention_norm);
  quantize(y, bytes, rows, &layer->expand);
  multiply(bytes, rows, &layer->expand,
           (Target){e->activation ? RELU_U8 : GELU_U8, NULL, NULL, wide, &layer->contract});
  multiply(wide, rows, &layer->contract, (Target){ADD, x, y, NULL, NULL});
  for (size_t r = 0; r < rows; r++) normalize(x + r * e->hidden, e->hidden, &layer->output_norm);
}

/* All layers but what is left to do for the first tokens in the last one; those go to place `from` of the call's. */
static void encode_group(const Encoder *e, Workspace *w, int sequences, const int32_t *ids, const int32_t *lengths,
                         const int32_t *of_type_0, int from) {
  const size_t hidden = e->hidden;
  size_t tokens = 0;
  for (int s = 0; s < sequences; tokens += lengths[s++])
    embed(e, ids + tokens, lengths[s], of_type_0[s], w->x + tokens * hidden);
  for (int l = 0; l < e->layers; l++) {
    const Layer *layer = e->layer + l;
    const int last = l == e->layers - 1;
    const size_t stride = layer->inputs.out;
    quantize(w->x, w->bytes, tokens, &layer->inputs);
    multiply(w->bytes, tokens, &layer->inputs, (Target){STORE, w->inputs, NULL, NULL, NULL});
    if (last) { /* the queries of the first tokens alone */
      float *first = w->first + from * hidden;
      for (size_t s = 0, at = 0; s < (size_t)sequences; at += lengths[s++])
        memcpy(first + s * hidden, w->x + at * hidden, hidden * 4);
      quantize(first, w->first_bytes, sequences, &layer->query);
      multiply(w->first_bytes, sequences, &layer->query, (Target){STORE, w->first_query, NULL, NULL, NULL});
    }
    size_t at = 0;
    for (int s = 0; s < sequences; at += lengths[s++]) {
      const float *rows = w->inputs + at * stride;
      if (last)
        attend(e, w, w->first_query + s * hidden, hidden, rows, rows + hidden, stride, 1, lengths[s],
               &layer->project, w->context + (from + s) * hidden);
      else
        attend(e, w, rows, stride, rows + hidden, rows + 2 * hidden, stride, lengths[s], lengths[s],
               &layer->project, w->bytes + at * hidden);
    }
    if (!last) feed_forward(e, layer, w->bytes, tokens, w->x, w->y, w->bytes, w->wide);
  }
}

/* Logits [n] of at most as many sequences as the workspace takes. */
static void encode(const Encoder *e, Workspace *w, int n, const int32_t *ids, const int32_t *lengths,
                   const int32_t *of_type_0, float *logits) {
  for (int s = 0; s < n;) {
    int end = s, tokens = 0;
    do tokens += lengths[end++];
    while (end < n && tokens + lengths[end] <= GROUP);
    encode_group(e, w, end - s, ids, lengths + s, of_type_0 + s, s);
    ids += tokens;
    s = end;
  }
  const size_t hidden = e->hidden;
  const Layer *layer = e->layer + e->layers - 1;
  feed_forward(e, layer, w->context, n, w->first, w->pooled, w->first_bytes, w->first_wide);
  float_multiply(w->first, hidden, e->pooler, hidden, w->pooled, hidden, hidden, n, hidden);
  for (int s = 0; s < n; s++) {
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < hidden; i += LANES) {
      __m512 p = _mm512_add_ps(_mm512_loadu_ps(w->pooled + s * hidden + i), _mm512_loadu_ps(e->pooler_bias + i));
      p = e->pooled ? _mm512_max_ps(p, _mm512_setzero_ps()) : tanh16(p);
      sum = _mm512_fmadd_ps(p, _mm512_loadu_ps(e->classifier + i), sum);
    }
    logits[s] = _mm512_reduce_add_ps(sum) + e->classifier_bias;
  }
}

/* Logits [n] of n sequences: their ids one after the other, how many each has and how many of those are of type 0.
 * 0, or -1 if one is empty, too long or has an id without a row. */
int shelfrank_logits(const Encoder *e, Workspace *w, int32_t n, const int32_t *ids, const int32_t *lengths,
                     const int32_t *of_type_0, float *logits) {
  size_t all = 0;
  for (int s = 0; s < n; all += lengths[s++])
    if (lengths[s] < 1 || lengths[s] > e->longest) return -1;
  for (size_t i = 0; i < all; i++)
    if (ids[i] < 0 || ids[i] >= e->vocabulary) return -1;
  for (int s = 0; s < n; s += w->rows) {
    const int some = n - s < w->rows ? n - s : w->rows;
    encode(e, w, some, ids, lengths + s, of_type_0 + s, logits + s);
    for (int i = s; i < s + some; i++) ids += lengths[i];
  }
  return 0;
}
