/* Finds and keeps logits in a table of fixed size.
 *
 * Knows keys, places and the time it is told; does not know what a key stands for, nor who owns the memory.
 * Invariant: after the same calls every array holds what service/cache/score_table.py would have written.
 */
#include <math.h>
#include <stdint.h>

enum { WAYS = 8, WORDS = 2 }; /* places of a set, and numbers of 64 bits of a key */

typedef struct {
  uint64_t sets;
  uint64_t *keys; /* [sets][WAYS][WORDS] */
  double *ends_s;
  int64_t *used;
  double *logits; /* [sets][WAYS], as the two before */
  int64_t uses, entries, evictions;
} Table;

static int is_same(const Table *t, uint64_t place, const uint64_t *key) {
  return t->keys[WORDS * place] == key[0] && t->keys[WORDS * place + 1] == key[1];
}

/* The logits of n keys, NaN where there is none. */
void shelfrank_table_find(Table *t, int64_t n, const uint64_t *keys, double now_s, double *found) {
  for (int64_t i = 0; i < n; i++) {
    const uint64_t *key = keys + WORDS * i, first = key[0] % t->sets * WAYS;
    found[i] = NAN;
    for (uint64_t place = first; place < first + WAYS; place++)
      if (is_same(t, place, key) && t->ends_s[place] > now_s) {
        found[i] = t->logits[place];
        t->used[place] = t->uses + 1 + i;
      }
  }
  t->uses += n;
}

/* The place for a key: its own, else one that is free, else the oldest used. */
static uint64_t choose(Table *t, const uint64_t *key, double now_s) {
  const uint64_t first = key[0] % t->sets * WAYS;
  uint64_t oldest = first;
  int64_t least = INT64_MAX;
  for (uint64_t place = first; place < first + WAYS; place++) {
    if (is_same(t, place, key)) {
      t->entries += t->ends_s[place] == 0.0;
      return place;
    }
    const int64_t used = t->ends_s[place] > now_s ? t->used[place] : -1;
    if (used < least) least = used, oldest = place;
  }
  t->evictions += t->ends_s[oldest] > now_s;
  t->entries += t->ends_s[oldest] == 0.0;
  return oldest;
}

/* Keep n logits under their keys until a time; those that are not finite are not kept. */
void shelfrank_table_store(Table *t, int64_t n, const uint64_t *keys, const double *logits, double now_s, double end_s) {
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(logits[i])) continue;
    const uint64_t *key = keys + WORDS * i, place = choose(t, key, now_s);
    t->keys[WORDS * place] = key[0], t->keys[WORDS * place + 1] = key[1];
    t->ends_s[place] = end_s;
    t->used[place] = t->uses + 1 + i;
    t->logits[place] = logits[i];
  }
  t->uses += n;
}
