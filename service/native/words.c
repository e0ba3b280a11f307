/* Makes the rows of token ids of a query and products, whose words were tokenized before.
 *
 * Knows texts, spaces and a table of words; does not know a tokenizer, nor what UTF-8 means beyond where characters
 * begin. Invariant: ids are those that were kept for just these words; what is not known here is told, never guessed.
 */
#include "objects.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WORD = 64, IDS = 15 }; /* most bytes and most ids of a word that is kept */
enum { READ = 0, CUT = 1, UNKNOWN = 2, UNREAD = 4 }; /* bits of what became of a text: a word is unknown, or cannot be kept */

typedef struct {
  uint8_t text[WORD]; /* zeros at the end, and no zero before */
} Word;

typedef struct {
  Word word;
  int32_t count, ids[IDS];
} Entry;

typedef struct {
  uint64_t seed;
  uint32_t most, used, mask;
  uint32_t *slots; /* place of an entry + 1, 0 for none */
  Entry *entries;
} Words;

typedef struct {
  int32_t place, chars, tokens; /* of a field in a product, and most that are read of it */
} Limit;

/* How a pair is read: the text contract of a bundle. */
typedef struct {
  Limit query;
  int32_t fields, longest, number_bytes; /* most tokens of a row; bytes of a number of a payload */
  int32_t prefix, middle, suffix;        /* how many ids there are before the query, after it, and at the end */
  const int32_t *fixed;                  /* those ids, one after the other */
  const Limit *limits;                   /* [fields] */
} Contract;

/* Where rows go, and the words that were not known, `most` of them at most. */
typedef struct {
  int32_t *ids, *lengths; /* [rows * longest], [rows] */
  uint8_t *states;        /* [rows] */
  uint8_t *words;         /* [most][WORD] */
  int32_t *word_bytes;    /* [most] */
  int32_t most, unknown, query_tokens, tokens;
} Rows;

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
static inline Word load(const uint8_t *text, int bytes) {
  Word word = {{0}};
  memcpy(word.text, text, (size_t)bytes);
  return word;
}

static inline uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Seeded, so that nobody can send words that all share a slot. */
static inline uint64_t hash(const Words *w, const Word *word, int bytes) {
  uint64_t parts[WORD / 8], h = w->seed;
  memcpy(parts, word->text, WORD);
  for (int i = 0; 8 * i < bytes; i++) h = mix(parts[i] ^ h, w->seed ^ 0x9E3779B97F4A7C15ULL);
  return mix(h ^ (uint64_t)bytes, w->seed ^ 0xD1B54A32D192ED03ULL);
}

/* The slot of a word, or the empty one where it would be. */
static inline uint32_t *find(const Words *w, const Word *word, int bytes) {
  uint32_t at = (uint32_t)hash(w, word, bytes) & w->mask;
  while (w->slots[at] != 0) {
    if (memcmp(&w->entries[w->slots[at] - 1].word, word, sizeof *word) == 0) break;
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
  const Word text = load(word, bytes);
  uint32_t *slot = find(w, &text, bytes);
  if (*slot != 0) return;
  Entry *entry = w->entries + w->used;
  entry->word = text;
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
  while (text < end && *text != ' ' && *text != '\n') text++;
  return text;
}

/* Notes a word that is not known. */
static void note(Rows *rows, const Word *word, int32_t bytes) {
  if (rows->unknown == rows->most) return;
  memcpy(rows->words + (size_t)WORD * rows->unknown, word, sizeof *word);
  rows->word_bytes[rows->unknown++] = bytes;
}

/* Writes at most `room` ids of a text and moves `*ids` behind them; returns what became of it. */
static uint8_t read_text(const Words *w, PyObject *object, Limit limit, int32_t room, int32_t **ids, Rows *rows) {
  Py_ssize_t size;
  const uint8_t *text = (const uint8_t *)PyUnicode_AsUTF8AndSize(object, &size);
  if (text == NULL) { /* half of a surrogate pair */
    PyErr_Clear();
    return UNREAD;
  }
  const uint8_t *stop = text + size, *end = clip(text, stop, limit.chars);
  if (memchr(text, 0, end - text) != NULL) return UNREAD; /* words are told apart by the zeros at their end */
  uint8_t state = end < stop ? CUT : READ;
  int32_t read = 0;
  for (const uint8_t *next; text < end; text = next + 1) {
    next = word_end(text, end);
    const int64_t bytes = next - text;
    if (bytes == 0) continue;
    if (bytes > WORD) return UNREAD;
    const Word word = load(text, (int)bytes);
    const uint32_t place = *find(w, &word, (int)bytes);
    if (place == 0) {
      note(rows, &word, (int32_t)bytes);
      state |= UNKNOWN;
    } else if (!(state & UNKNOWN)) {
      const Entry *entry = w->entries + place - 1;
      for (int i = 0; i < entry->count; i++) {
        if (read == limit.tokens || read == room) return state | CUT;
        *(*ids)++ = entry->ids[i];
        read++;
      }
    }
  }
  return state;
}

/* The same of a product that is packed, as bundle/packed.py does it. */
static uint8_t read_payload(const Contract *c, PyObject *object, int32_t room, int32_t **ids) {
  char *bytes;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(object, &bytes, &size) != 0) {
    PyErr_Clear();
    return UNREAD;
  }
  const Py_ssize_t numbers = size / c->number_bytes, count = numbers - c->fields;
  if (size % c->number_bytes != 0 || count < 0) return UNREAD;
  uint8_t state = READ;
  Py_ssize_t told = 0;
  for (Py_ssize_t i = 0; i < numbers; i++) {
    uint32_t number = 0;
    memcpy(&number, bytes + i * c->number_bytes, c->number_bytes);
    if (i < c->fields) {
      told += number >> 1;
      state |= number & 1 ? CUT : READ;
    } else if (i - c->fields < room) {
      *(*ids)++ = (int32_t)number;
    }
  }
  return told != count ? UNREAD : count > room ? state | CUT : state;
}

static int32_t *put(int32_t *to, const int32_t *from, int32_t count) {
  memcpy(to, from, (size_t)count * sizeof *to);
  return to + count;
}

/* Makes the rows of products, which are tuples of texts, payloads, or None for one that is not to be read.
 *
 * Row by row `states` says READ, CUT if not all of it was read, or else that there is no row: with UNKNOWN there is one
 * once the words are kept. Returns 0, or -1 if the query has no ids. */
int32_t shelfrank_words_rows(const Words *w, const Contract *c, PyObject *query, PyObject *products, int32_t first,
                             int32_t count, Rows *rows) {
  const int32_t *middle = c->fixed + c->prefix, *suffix = middle + c->middle;
  int32_t *ids = rows->ids, *start = ids;
  ids = put(ids, c->fixed, c->prefix);
  const uint8_t of_query = read_text(w, query, c->query, c->longest, &ids, rows);
  ids = put(ids, middle, c->middle);
  const int32_t head = rows->query_tokens = (int32_t)(ids - start), room = c->longest - head - c->suffix;
  if (of_query > CUT || room < 1) return -1;
  for (int32_t p = 0; p < count; p++) {
    PyObject *product = PyList_GetItem(products, first + p);
    int32_t *row = start;
    uint8_t state = of_query;
    ids = p == 0 ? row + head : put(row, rows->ids, head);
    if (product == &_Py_NoneStruct) {
      state |= UNREAD;
    } else if (PyObject_IsInstance(product, &PyTuple_Type) == 1) {
      for (int f = 0; f < c->fields; f++) {
        const int32_t left = room - (int32_t)(ids - row - head);
        state |= read_text(w, PyTuple_GetItem(product, c->limits[f].place), c->limits[f], left, &ids, rows);
      }
    } else {
      state |= read_payload(c, product, room, &ids);
    }
    ids = put(ids, suffix, c->suffix);
    rows->lengths[p] = (int32_t)(ids - row);
    rows->states[p] = state;
    start = ids;
  }
  rows->tokens = (int32_t)(start - rows->ids);
  return 0;
}

/* How often an id is among n. */
int64_t shelfrank_words_count(const int32_t *ids, int64_t n, int32_t id) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; i++) found += ids[i] == id;
  return found;
}
