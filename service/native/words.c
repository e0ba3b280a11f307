/* Looks up the token ids of the words of product texts, whose words were tokenized before.
 *
 * Knows bytes, spaces and a table of words; does not know a tokenizer, nor what UTF-8 means beyond where characters
 * begin. Invariant: ids are those that were kept for just these words; what is not known here is told, never guessed.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WORD = 64, IDS = 15 }; /* most bytes and most ids of a word that is kept */
enum { READ = 0, UNKNOWN = 1, CUT = 2 };

typedef struct {
  uint8_t text[WORD]; /* zeros at the end, and no zero before */
  int32_t count, ids[IDS];
} Entry;

typedef struct {
  uint64_t seed;
  uint32_t most, used, mask;
  uint32_t *slots; /* place of an entry + 1, 0 for none */
  Entry *entries;
} Words;

typedef struct {
  int32_t chars, tokens; /* most that are read of a field */
} Limit;

void shelfrank_words_close(Words *w) {
  if (w == NULL) return;
  free(w->slots);
  free(w->entries);
  free(w);
}

/* NULL if there is no memory; `most` is a power of two. */
Words *shelfrank_words_open(uint32_t most, uint64_t seed) {
  Words *w = calloc(1, sizeof *w);
  if (w == NULL) return NULL;
  w->seed = seed | 1, w->most = most, w->mask = 2 * most - 1;
  w->slots = calloc(2 * (size_t)most, sizeof *w->slots);
  w->entries = aligned_alloc(64, most * sizeof *w->entries);
  if (w->slots != NULL && w->entries != NULL) return w;
  shelfrank_words_close(w);
  return NULL;
}

/* The bytes of a word with zeros behind them; nothing beyond its end is read. */
static inline __m512i load(const uint8_t *word, int bytes) {
  return _mm512_maskz_loadu_epi8(bytes == WORD ? ~0ULL : (1ULL << bytes) - 1, word);
}

static inline uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Seeded, so that nobody can send words that all share a slot. */
static inline uint64_t hash(const Words *w, __m512i word, int bytes) {
  uint64_t parts[WORD / 8], h = w->seed;
  _mm512_storeu_si512(parts, word);
  for (int i = 0; 8 * i < bytes; i++) h = mix(parts[i] ^ h, w->seed ^ 0x9E3779B97F4A7C15ULL);
  return mix(h ^ (uint64_t)bytes, w->seed ^ 0xD1B54A32D192ED03ULL);
}

/* The slot of a word, or the empty one where it would be. */
static inline uint32_t *find(const Words *w, __m512i word, int bytes) {
  uint32_t at = (uint32_t)hash(w, word, bytes) & w->mask;
  while (w->slots[at] != 0) {
    const Entry *entry = w->entries + w->slots[at] - 1;
    if (_mm512_cmpneq_epi8_mask(_mm512_loadu_si512(entry->text), word) == 0) break;
    at = (at + 1) & w->mask;
  }
  return w->slots + at;
}

/* Keep the ids of a word; all are forgotten when the table is full. What is too long is not kept. */
void shelfrank_words_keep(Words *w, const uint8_t *word, int32_t bytes, const int32_t *ids, int32_t count) {
  if (bytes < 1 || bytes > WORD || count > IDS) return;
  if (w->used == w->most) {
    memset(w->slots, 0, 2 * (size_t)w->most * sizeof *w->slots);
    w->used = 0;
  }
  const __m512i text = load(word, bytes);
  uint32_t *slot = find(w, text, bytes);
  if (*slot != 0) return;
  Entry *entry = w->entries + w->used;
  _mm512_storeu_si512(entry->text, text);
  entry->count = count;
  memcpy(entry->ids, ids, (size_t)count * sizeof *ids);
  *slot = ++w->used;
}

/* Where the first `chars` characters of a text end. */
static const uint8_t *clip(const uint8_t *text, const uint8_t *end, int32_t chars) {
  if (end - text <= chars) return end;
  for (; text < end; text++)
    if ((*text & 0xC0) != 0x80 && chars-- == 0) return text;
  return end;
}

/* The next space or newline, or the end. */
static inline const uint8_t *word_end(const uint8_t *text, const uint8_t *end) {
  for (; text < end; text += WORD) {
    const int64_t left = end - text;
    const uint64_t valid = left >= WORD ? ~0ULL : (1ULL << left) - 1;
    const __m512i bytes = _mm512_maskz_loadu_epi8(valid, text);
    const uint64_t stops = (_mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(' ')) |
                            _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\n'))) & valid;
    if (stops) return text + __builtin_ctzll(stops);
  }
  return end;
}

/* Writes the ids of the texts of products, one product after the other, and returns how many words are unknown.
 *
 * A text ends with a zero byte; `texts` holds `fields` of them for each product. Of a product at most `room` ids are
 * written to `ids`; `counts` says how many, and `states` READ, CUT if any text was not read to its end, or UNKNOWN.
 * `unknown` takes the place and the bytes of unknown words that could be kept, `most_unknown` of them at most.
 */
int32_t shelfrank_words_read(const Words *w, const uint8_t *texts, int32_t products, int32_t fields, const Limit *limits,
                             int32_t room, int32_t *ids, int32_t *counts, uint8_t *states, int32_t *unknown,
                             int32_t most_unknown) {
  const uint8_t *text = texts;
  int32_t found = 0;
  for (int p = 0; p < products; p++) {
    int32_t total = 0, has_room = 1;
    uint8_t state = READ;
    for (int f = 0; f < fields; f++) {
      const uint8_t *stop = text + strlen((const char *)text), *end = clip(text, stop, limits[f].chars);
      int32_t read = 0, is_within = 1; /* this field's limit */
      if (end < stop && state == READ) state = CUT;
      while (text < end && is_within && has_room) {
        const uint8_t *next = word_end(text, end);
        const int64_t bytes = next - text;
        if (bytes > 0) {
          const __m512i word = load(text, bytes > WORD ? WORD : (int)bytes);
          const uint32_t place = bytes > WORD ? 0 : *find(w, word, (int)bytes);
          if (place == 0) {
            state = UNKNOWN;
            if (bytes <= WORD && found < most_unknown) {
              unknown[2 * found] = (int32_t)(text - texts);
              unknown[2 * found++ + 1] = (int32_t)bytes;
            }
          } else if (state != UNKNOWN) {
            const Entry *entry = w->entries + place - 1;
            for (int i = 0; i < entry->count; i++) {
              is_within = read < limits[f].tokens, has_room = total < room;
              if (!is_within || !has_room) {
                state = CUT;
                break;
              }
              *ids++ = entry->ids[i];
              read++, total++;
            }
          }
        }
        text = next + 1;
      }
      text = stop + 1;
    }
    counts[p] = total;
    states[p] = state;
  }
  return found;
}
