/* Orders the products of a request by their logits, and writes an order as JSON.
 *
 * Knows calibration, the causes of a missing score and Python's lists; does not know tokens, models or requests.
 * Invariant: what comes out is what service/scoring/ranking.py and service/api/answer.py make of the same input.
 */
#include "objects.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCORED = 0, NONFINITE = 2, CAUSES = 6 }; /* of `Cause` */
enum { RESULT = 96, ESCAPED = 6, NUMBER = 24 }; /* most bytes of a result beside its texts, of a character, of a number */

#define DECIMALS 1e6 /* scores are rounded to so many parts */
#define LEAST 1e-6   /* the smallest score that is computed */

/* Calibration of bundle/score.py: thresholds and `gaps` [classes - 1], `gains` [classes]. */
typedef struct {
  int32_t classes;
  double slope;
  const double *thresholds, *gaps, *gains;
} Scale;

typedef struct {
  double score;
  int32_t index, label; /* -1 for one without a score */
} Place;

/* Score and most probable class of a finite logit; of equals, the less relevant one. */
static Place place(const Scale *s, double logit, int32_t index) {
  double score = 0.0, most = -1.0, above_before = 0.0;
  int32_t label = 0;
  for (int32_t k = 0; k < s->classes; k++) {
    double probability = above_before, above = 0.0;
    if (k < s->classes - 1) {
      const double margin = s->slope * logit - s->thresholds[k], decay = exp(-fabs(margin));
      const double larger = 1.0 / (1.0 + decay), smaller = decay / (1.0 + decay);
      const double below = margin >= 0.0 ? smaller : larger;
      above = margin >= 0.0 ? larger : smaller;
      probability = k == 0 ? below : above_before * below * s->gaps[k - 1];
    }
    if (probability > most) most = probability, label = k;
    score += s->gains[k] * probability;
    above_before = above;
  }
  score = rint(fmin(fmax(score, 0.0), 1.0) * DECIMALS) / DECIMALS;
  return (Place){fmax(score, LEAST), index, label};
}

static int better(const void *a, const void *b) {
  const Place *one = a, *other = b;
  if (one->score != other->score) return one->score > other->score ? -1 : 1;
  return one->index < other->index ? -1 : 1;
}

/* A list of n objects that `make` gives, which it may fail to. */
#define LIST(to, n, make)                                  \
  PyObject *to = PyList_New(n);                            \
  for (Py_ssize_t i = 0; to != NULL && i < (n); i++) {     \
    PyObject *made = make;                                 \
    if (made == NULL || PyList_SetItem(to, i, made) != 0) { \
      Py_DecRef(to);                                       \
      to = NULL;                                           \
    }                                                      \
  }

static PyObject *taken(PyObject *object) {
  Py_IncRef(object);
  return object;
}

/* A tuple of four lists, best first: indices, scores and labels, and the count of each cause. `names` is the tuple of
 * the labels' names with None at its end. Causes are `causes` [n], and NONFINITE for a scored one without a logit. */
PyObject *shelfrank_rank(const Scale *s, int32_t n, const float *logits, const int8_t *causes, PyObject *names) {
  Place *places = malloc((n ? n : 1) * sizeof *places);
  if (places == NULL) return PyErr_NoMemory();
  int32_t counts[CAUSES] = {0}, scored = 0, rest = n;
  for (int32_t i = n; i-- > 0;) {
    const int is_missing = causes[i] == SCORED && !isfinite(logits[i]);
    const int cause = is_missing ? NONFINITE : causes[i];
    counts[cause >= 0 && cause < CAUSES ? cause : NONFINITE]++;
    if (cause != SCORED) places[--rest] = (Place){0.0, i, -1};
  }
  for (int32_t i = 0; i < n; i++)
    if (causes[i] == SCORED && isfinite(logits[i])) places[scored++] = place(s, logits[i], i);
  qsort(places, scored, sizeof *places, better);
  for (int32_t i = scored; i < n; i++) places[i].score = LEAST * (n - i) / (n - scored + 1);
  LIST(indices, n, PyLong_FromLong(places[i].index))
  LIST(scores, n, PyFloat_FromDouble(places[i].score))
  LIST(labels, n, taken(PyTuple_GetItem(names, places[i].label < 0 ? s->classes : places[i].label)))
  LIST(by_cause, CAUSES, PyLong_FromLong(counts[i]))
  free(places);
  PyObject *parts[] = {indices, scores, labels, by_cause}, *all = PyTuple_New(4);
  for (int i = 0; i < 4; i++) {
    if (all != NULL && parts[i] != NULL) {
      PyTuple_SetItem(all, i, parts[i]);
    } else {
      Py_DecRef(parts[i]);
      Py_DecRef(all);
      all = NULL;
    }
  }
  return all;
}

/* -- JSON ----------------------------------------------------------------------------------------------------- */

static char *put(char *to, const char *text) {
  const size_t size = strlen(text);
  memcpy(to, text, size);
  return to + size;
}

/* A text as a JSON string; characters beyond ASCII stay as they are. */
static char *put_string(char *to, const char *text, Py_ssize_t size) {
  static const char hex[] = "0123456789abcdef";
  *to++ = '"';
  for (Py_ssize_t i = 0; i < size; i++) {
    const unsigned char c = (unsigned char)text[i];
    const char *found = c < 0x20 ? memchr("\b\t\n\f\r", c, 5) : NULL;
    if (c == '"' || c == '\\' || found != NULL) {
      *to++ = '\\';
      *to++ = c == '"' || c == '\\' ? (char)c : c == '\b' ? 'b' : c == '\t' ? 't' : c == '\n' ? 'n' : c == '\f' ? 'f' : 'r';
    } else if (c < 0x20) {
      to = put(to, "\\u00");
      *to++ = hex[c >> 4];
      *to++ = hex[c & 15];
    } else {
      *to++ = (char)c;
    }
  }
  *to++ = '"';
  return to;
}

static char *put_number(char *to, long value) {
  char digits[NUMBER];
  int n = 0;
  do digits[n++] = (char)('0' + value % 10);
  while (value /= 10);
  while (n) *to++ = digits[--n];
  return to;
}

/* Six decimals, and twelve below the least score; never an exponent. */
static char *put_score(char *to, double value) {
  if (value > 0.0 && value < LEAST) return to + sprintf(to, "%.12f", value);
  const long parts = lrint(value * DECIMALS);
  to = put_number(to, parts / 1000000);
  *to++ = '.';
  long left = parts % 1000000;
  for (int i = 6; i-- > 0; left /= 10) to[i] = (char)('0' + left % 10);
  return to + 6;
}

/* The UTF-8 of a text or of an integer's digits, which `*owner` keeps alive; NULL if it has none. */
static const char *text_of(PyObject *object, Py_ssize_t *size, PyObject **owner, int *is_text) {
  *is_text = PyObject_IsInstance(object, &PyUnicode_Type) == 1;
  *owner = *is_text ? taken(object) : PyObject_Str(object);
  return *owner == NULL ? NULL : PyUnicode_AsUTF8AndSize(*owner, size);
}

typedef struct {
  char *start, *to, *end; /* of what is written, and of the memory for it */
} Buffer;

/* Have at least so many bytes behind what is written; 0 if there is no memory. */
static int make_room(Buffer *b, size_t bytes) {
  if ((size_t)(b->end - b->to) >= bytes) return 1;
  const size_t used = b->to - b->start, size = 2 * (used + bytes);
  char *moved = realloc(b->start, size);
  if (moved == NULL) return 0;
  b->start = moved, b->to = moved + used, b->end = moved + size;
  return 1;
}

/* A name, and a text, a number or null; 0 if that cannot be done. */
static int put_value(Buffer *b, const char *name, PyObject *object) {
  if (object == &_Py_NoneStruct) {
    if (!make_room(b, RESULT)) return 0;
    b->to = put(put(b->to, name), "null");
    return 1;
  }
  PyObject *owner;
  Py_ssize_t size = 0;
  int is_text;
  const char *text = text_of(object, &size, &owner, &is_text);
  const int can = text != NULL && make_room(b, RESULT + ESCAPED * (size_t)size);
  if (can) {
    b->to = put(b->to, name);
    if (is_text) {
      b->to = put_string(b->to, text, size);
    } else {
      memcpy(b->to, text, size);
      b->to += size;
    }
  }
  Py_DecRef(owner);
  return can;
}

/* The JSON of the first `count` results as bytes. All are lists: of indices, scores and labels in the order of the
 * places, and of ids (texts, integers or None) in that of the request. NULL with an error set if it fails. */
PyObject *shelfrank_results(PyObject *indices, PyObject *scores, PyObject *labels, PyObject *ids, Py_ssize_t count) {
  const size_t size = RESULT * (size_t)(count + 1);
  char *start = malloc(size);
  Buffer b = {start, start, start + size};
  int is_fine = start != NULL;
  if (is_fine) *b.to++ = '[';
  for (Py_ssize_t i = 0; is_fine && i < count; i++) {
    const long index = PyLong_AsLong(PyList_GetItem(indices, i));
    if (!(is_fine = make_room(&b, RESULT))) break;
    b.to = put_number(put(b.to, i ? ",{\"index\":" : "{\"index\":"), index);
    PyObject *id = PyList_GetItem(ids, index);
    if (id != &_Py_NoneStruct && !(is_fine = id != NULL && put_value(&b, ",\"id\":", id))) break;
    if (!(is_fine = make_room(&b, RESULT))) break;
    b.to = put_score(put(b.to, ",\"relevance_score\":"), PyFloat_AsDouble(PyList_GetItem(scores, i)));
    if (!(is_fine = put_value(&b, ",\"label\":", PyList_GetItem(labels, i)))) break;
    if ((is_fine = make_room(&b, RESULT))) *b.to++ = '}';
  }
  if (is_fine) *b.to++ = ']'; /* make_room left some */
  PyObject *made = NULL;
  if (is_fine) made = PyBytes_FromStringAndSize(b.start, b.to - b.start);
  else if (PyErr_Occurred() == NULL) PyErr_NoMemory();
  free(b.start);
  return made;
}
