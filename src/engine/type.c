/* The type: an engine's birth, end and attributes.

   Lives here: what Python sees of one. Must never live here: what its calls do. */

#include "engine.h"

#define HUGE_LIMIT (UINT64_C(1) << 60)

static uint64_t
clamped(PyObject *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow > 0 || value > (long long)HUGE_LIMIT) {
        return HUGE_LIMIT;
    }
    return overflow < 0 || value < 0 ? 0 : (uint64_t)value;
}

/* The tuple of those that are enabled, NULL if there are none; -1 with an exception. */
static int
enabled(PyObject *extensions, PyObject **found)
{
    PyObject *all = PySequence_List(extensions);
    PyObject *kept = all == NULL ? NULL : PyList_New(0);
    int failed = kept == NULL;
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(all); i++) {
        PyObject *extension = PyList_GET_ITEM(all, i);
        PyObject *answer = PyObject_CallMethod(extension, "enabled", NULL);
        int truth = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
        failed = truth < 0 || (truth && PyList_Append(kept, extension) < 0);
    }
    if (!failed && PyList_GET_SIZE(kept)) {
        *found = PyList_AsTuple(kept);
        failed = *found == NULL;
    }
    Py_XDECREF(all);
    Py_XDECREF(kept);
    return failed ? -1 : 0;
}

static PyObject *
Engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"client", "extensions", "trailing_data", "max_message",
                            "max_fragments", NULL};
    int client;
    PyObject *extensions, *trailing, *max_message, *max_fragments;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$pOSO!O:Engine", names, &client, &extensions,
                                     &trailing, &PyLong_Type, &max_message, &max_fragments)) {
        return NULL;
    }
    if (max_fragments != Py_None && !PyLong_Check(max_fragments)) {
        PyErr_SetString(PyExc_TypeError, "max_fragments is an int or None");
        return NULL;
    }
    Engine *self = (Engine *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->client = (uint8_t)(client != 0);
    self->state = OPEN;
    self->max_message = Py_NewRef(max_message);
    self->limit = clamped(max_message);
    self->max_frames = max_fragments == Py_None ? UINT64_MAX : clamped(max_fragments);
    if (PyBytes_GET_SIZE(trailing)) {
        self->chunk = PyBytes_FromObject(trailing);
    }
    if (PyErr_Occurred() || enabled(extensions, &self->extensions) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Engine_traverse(Engine *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extensions);
    return 0;
}

static int
Engine_clear(Engine *self)
{
    /* Calls under way read this; they hold the engine, so a collector does not come here. */
    Py_CLEAR(self->extensions);
    return 0;
}

static void
Engine_dealloc(Engine *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Engine_clear(self);
    Py_CLEAR(self->max_message);
    Py_CLEAR(self->verdict);
    Py_CLEAR(self->chunk);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
Engine_state(Engine *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(state_of(self)->states[self->state]);
}

static PyObject *
Engine_missing(Engine *self, void *Py_UNUSED(closure))
{
    uint64_t missing = 0;
    if (!self->over && self->in_frame && self->head.opcode < 8) {
        missing = self->head.length - self->consumed;
    }
    return PyLong_FromUnsignedLongLong(missing);
}

static PyObject *
Engine_verdict(Engine *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->verdict != NULL ? self->verdict : Py_None);
}

static PyObject *
Engine_peer_said_1014(Engine *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->said_1014);
}

static PyGetSetDef getset[] = {
    {"state", (getter)Engine_state, NULL, "As wsproto's `Connection.state`.", NULL},
    {"missing", (getter)Engine_missing, NULL,
     "Payload bytes of the data frame in hand that have not been parsed.", NULL},
    {"verdict", (getter)Engine_verdict, NULL, "Why a limit refused a frame; None before.", NULL},
    {"peer_said_1014", (getter)Engine_peer_said_1014, NULL,
     "The peer's Close had code 1014, which its event calls 1013.", NULL},
    {NULL},
};

PyDoc_STRVAR(receive_data_doc,
"receive_data(data, /)\n--\n\nTake in bytes from the peer; None: its bytes have ended.");

PyDoc_STRVAR(events_doc,
"events(/)\n--\n\nAn iterator over what the bytes so far mean.");

PyDoc_STRVAR(take_doc,
"take(messages, limit, /)\n--\n\n"
"Append the whole messages that come next to a list, `limit` at most; return an upper bound of\n"
"the bytes they take in memory. Stops in front of everything else, which `events` tells.");

PyDoc_STRVAR(feed_doc,
"feed(data, messages, limit, /)\n--\n\n"
"`receive_data` and `take` in one. Return what `take` does if that was all, None if something is\n"
"left for `take` or `events`.");

PyDoc_STRVAR(encode_doc,
"encode(message, final, /)\n--\n\n"
"One data frame, as `send` makes it of a `TextMessage` or a `BytesMessage`.");

PyDoc_STRVAR(send_doc,
"send(event, /)\n--\n\n"
"The frame of an event, as wsproto's `Connection.send`. Extensions do not see control frames.");

#define CALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"receive_data", CALL(Engine_receive_data), METH_O, receive_data_doc},
    {"events", CALL(Engine_events), METH_NOARGS, events_doc},
    {"take", CALL(Engine_take), METH_FASTCALL, take_doc},
    {"feed", CALL(Engine_feed), METH_FASTCALL, feed_doc},
    {"encode", CALL(Engine_encode), METH_FASTCALL, encode_doc},
    {"send", CALL(Engine_send), METH_O, send_doc},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The compiled engine of one connection; `trio_ws._engine` opens it."},
    {Py_tp_new, Engine_new},
    {Py_tp_dealloc, Engine_dealloc},
    {Py_tp_traverse, Engine_traverse},
    {Py_tp_clear, Engine_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Engine_iternext},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "trio_ws._speedups.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
