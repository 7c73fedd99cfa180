/* Extensions: Python objects with wsproto's interface, called as wsproto calls them.

   Lives here: every call into one, and what its answers must be. Must never live here: what an
   extension does (`_permessage`), state of the engine; an extension might call back, so nothing is
   held across a call but references. */

#include "engine.h"

/* The bits of an `RsvBits`, -1 with an exception. */
static int
bits_of(PyObject *rsv)
{
    int bits = 0;
    for (Py_ssize_t bit = 0; bit < 3; bit++) {
        PyObject *flag = PySequence_GetItem(rsv, bit);
        int truth = flag == NULL ? -1 : PyObject_IsTrue(flag);
        Py_XDECREF(flag);
        if (truth < 0) {
            return -1;
        }
        bits |= truth ? WS_RSV1 >> bit : 0;
    }
    return bits;
}

/* Show a head to the extensions. 1: go on, with the bits they use in `used`; 0: `*event` is the
   fault, or NULL with an exception set. */
int
ask_extensions(Engine *self, const ws_head *head, uint8_t *used, PyObject **event)
{
    State *st = state_of(self);
    Py_ssize_t count = self->extensions == NULL ? 0 : PyTuple_GET_SIZE(self->extensions);
    PyObject *length = count ? PyLong_FromUnsignedLongLong(head->length) : NULL;
    if (count && length == NULL) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *answer = PyObject_CallMethodObjArgs(
            PyTuple_GET_ITEM(self->extensions, i), st->s_inbound_header, (PyObject *)self,
            st->opcodes[head->opcode], st->rsv[head->rsv], length, NULL);
        int refused = answer == NULL ? -1 : PyObject_IsInstance(answer, st->CloseReason);
        if (refused > 0) {
            *event = fail_in_extension(self, answer);
        }
        int bits = refused ? 0 : bits_of(answer);
        *used |= (uint8_t)(bits > 0 ? bits : 0);
        Py_XDECREF(answer);
        if (refused || bits < 0) {
            Py_DECREF(length);
            return 0;
        }
    }
    Py_XDECREF(length);
    return 1;
}

/* Pass a payload, which is stolen, through the extensions. NULL: `*event`, or an exception. */
PyObject *
in_through_extensions(Engine *self, PyObject *payload, int finished, PyObject **event)
{
    State *st = state_of(self);
    PyObject *answer = NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(self->extensions);
    for (Py_ssize_t i = 0; i < count; i++) {
        answer = PyObject_CallMethodObjArgs(PyTuple_GET_ITEM(self->extensions, i),
                                            st->s_inbound_payload, (PyObject *)self, payload,
                                            NULL);
        int refused = answer == NULL ? -1 : PyObject_IsInstance(answer, st->CloseReason);
        if (refused) {
            goto refused;
        }
        Py_SETREF(payload, PyBytes_FromObject(answer));
        Py_CLEAR(answer);
        if (payload == NULL) {
            return NULL;
        }
    }
    for (Py_ssize_t i = 0; finished && i < count; i++) {
        answer = PyObject_CallMethodObjArgs(PyTuple_GET_ITEM(self->extensions, i),
                                            st->s_inbound_complete, (PyObject *)self,
                                            self->head.fin ? Py_True : Py_False, NULL);
        int refused = answer == NULL ? -1 : PyObject_IsInstance(answer, st->CloseReason);
        if (refused) {
            goto refused;
        }
        if (answer != Py_None) {
            PyBytes_Concat(&payload, answer);
        }
        Py_CLEAR(answer);
        if (payload == NULL) {
            return NULL;
        }
    }
    return payload;
refused:
    Py_DECREF(payload);
    if (answer != NULL && !PyErr_Occurred()) {
        *event = fail_in_extension(self, answer);
    }
    Py_XDECREF(answer);
    return NULL;
}

/* Pass a payload on its way out, which is stolen, through the extensions; the bits they set are in
   `*bits`. NULL with an exception. */
PyObject *
out_through_extensions(Engine *self, int opcode, int fin, PyObject *payload, int *bits)
{
    State *st = state_of(self);
    PyObject *rsv = Py_NewRef(st->rsv[0]);
    for (Py_ssize_t i = PyTuple_GET_SIZE(self->extensions); payload != NULL && i-- > 0;) {
        PyObject *pair = PyObject_CallMethodObjArgs(
            PyTuple_GET_ITEM(self->extensions, i), st->s_outbound, (PyObject *)self,
            st->opcodes[opcode], rsv, payload, fin ? Py_True : Py_False, NULL);
        if (pair != NULL && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
            Py_SETREF(rsv, Py_NewRef(PyTuple_GET_ITEM(pair, 0)));
            Py_SETREF(payload, PyBytes_FromObject(PyTuple_GET_ITEM(pair, 1)));
        }
        else {
            if (pair != NULL) {
                PyErr_SetString(PyExc_TypeError, "frame_outbound must return a pair");
            }
            Py_CLEAR(payload);
        }
        Py_XDECREF(pair);
    }
    *bits = payload == NULL ? -1 : bits_of(rsv);
    if (*bits < 0) {
        Py_CLEAR(payload);
    }
    Py_DECREF(rsv);
    return payload;
}
