/* The end of parsing: what a peer did wrong becomes an event, in wsproto's words.

   Lives here: the making of such events. Must never live here: the finding of a fault. */

#include "engine.h"

void
stop_parsing(Engine *self)
{
    self->over = 1;
    self->pos = 0;
    Py_CLEAR(self->chunk);
}

/* The event of a fault; steals `reason`, which may be NULL with an exception set. */
static PyObject *
fail_with(Engine *self, PyObject *code, PyObject *reason)
{
    PyObject *event = NULL;
    stop_parsing(self);
    if (reason != NULL) {
        event = PyObject_CallFunctionObjArgs(
            state_of(self)->CloseConnection, code, reason, NULL);
        Py_DECREF(reason);
    }
    return event;
}

PyObject *
fail(Engine *self, int code, PyObject *reason)
{
    PyObject *event = NULL;
    PyObject *kind = PyObject_CallFunction(state_of(self)->CloseReason, "i", code);
    if (kind == NULL) {
        Py_XDECREF(reason);
        stop_parsing(self);
        return NULL;
    }
    event = fail_with(self, kind, reason);
    Py_DECREF(kind);
    return event;
}

PyObject *
fail_1002(Engine *self, const char *words)
{
    return fail(self, 1002, PyUnicode_FromString(words));
}

PyObject *
fail_in_extension(Engine *self, PyObject *code)
{
    return fail_with(self, code, PyUnicode_FromString("error in extension"));
}

/* The event of the UnicodeDecodeError that is set; any other exception is left as it is. */
PyObject *
fail_undecoded(Engine *self, const char *prefix)
{
    if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        stop_parsing(self);
        return NULL;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *reason = PyUnicode_FromFormat("%s%S", prefix, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return fail(self, 1007, reason);
}
