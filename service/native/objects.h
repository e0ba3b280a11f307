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

extern PyObject _Py_NoneStruct, PyUnicode_Type, PyTuple_Type;

void Py_IncRef(PyObject *), Py_DecRef(PyObject *);
void PyErr_Clear(void);
PyObject *PyErr_NoMemory(void), *PyErr_Occurred(void);
int PyObject_IsInstance(PyObject *, PyObject *type);
PyObject *PyObject_Str(PyObject *);
PyObject *PyList_New(Py_ssize_t), *PyList_GetItem(PyObject *, Py_ssize_t);
int PyList_SetItem(PyObject *, Py_ssize_t, PyObject *taken);
PyObject *PyTuple_New(Py_ssize_t), *PyTuple_GetItem(PyObject *, Py_ssize_t);
int PyTuple_SetItem(PyObject *, Py_ssize_t, PyObject *taken);
PyObject *PyLong_FromLong(long), *PyFloat_FromDouble(double);
long PyLong_AsLong(PyObject *);
double PyFloat_AsDouble(PyObject *);
PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t);
int PyBytes_AsStringAndSize(PyObject *, char **, Py_ssize_t *);
const char *PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *);
Py_ssize_t PyUnicode_GetLength(PyObject *);

#endif
