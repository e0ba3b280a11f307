/* The few functions of Python's stable interface that are used here, so that nobody needs its headers.
 *
 * Knows their names and types (PEP 384, the "Stable ABI"); does not know any object's memory.
 * Invariant: whoever calls them holds the interpreter, as ctypes.PyDLL sees to.
 */
#ifndef SHELFRANK_OBJECTS_H
#define SHELFRANK_OBJECTS_H

#include <stddef.h>

typedef struct _object PyObject;
typedef ptrdiff_t Py_ssize_t; /* as wide as ssize_t on every platform that the engine is for */

extern PyObject _Py_NoneStruct, PyTuple_Type;

void PyErr_Clear(void);
int PyObject_IsInstance(PyObject *, PyObject *type);
PyObject *PyList_GetItem(PyObject *, Py_ssize_t), *PyTuple_GetItem(PyObject *, Py_ssize_t);
int PyBytes_AsStringAndSize(PyObject *, char **, Py_ssize_t *);
const char *PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *);

#endif
