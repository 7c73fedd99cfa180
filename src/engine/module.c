/* The module: wsproto's classes and values, learnt once, and its life.

   Lives here: what is looked up when it is imported. Must never live here: anything about one
   connection. */

#include <stddef.h>

#include "engine.h"

static PyObject *
attribute(PyObject *from, const char *name)
{
    return from == NULL ? NULL : PyObject_GetAttrString(from, name);
}

static int
learn_words(State *st)
{
    PyObject *events = PyImport_ImportModule("wsproto.events");
    PyObject *utilities = PyImport_ImportModule("wsproto.utilities");
    PyObject *os = PyImport_ImportModule("os");
    st->TextMessage = attribute(events, "TextMessage");
    st->BytesMessage = attribute(events, "BytesMessage");
    st->Message = attribute(events, "Message");
    st->Ping = attribute(events, "Ping");
    st->Pong = attribute(events, "Pong");
    st->CloseConnection = attribute(events, "CloseConnection");
    st->LocalProtocolError = attribute(utilities, "LocalProtocolError");
    st->urandom = attribute(os, "urandom");
    st->pool_size = PyLong_FromSize_t(sizeof(st->keys));
    Py_XDECREF(events);
    Py_XDECREF(utilities);
    Py_XDECREF(os);
    st->s_inbound_header = PyUnicode_InternFromString("frame_inbound_header");
    st->s_inbound_payload = PyUnicode_InternFromString("frame_inbound_payload_data");
    st->s_inbound_complete = PyUnicode_InternFromString("frame_inbound_complete");
    st->s_outbound = PyUnicode_InternFromString("frame_outbound");
    st->s_code = PyUnicode_InternFromString("code");
    st->s_reason = PyUnicode_InternFromString("reason");
    st->s_data = PyUnicode_InternFromString("data");
    st->s_payload = PyUnicode_InternFromString("payload");
    st->s_finished = PyUnicode_InternFromString("message_finished");
    st->s_ping = PyUnicode_InternFromString("ping");
    st->s_pong = PyUnicode_InternFromString("pong");
    st->s_close = PyUnicode_InternFromString("close");
    return PyErr_Occurred() ? -1 : 0;
}

static int
learn_values(State *st)
{
    static const int opcodes[] = {0, 1, 2, 8, 9, 10};
    PyObject *frames = PyImport_ImportModule("wsproto.frame_protocol");
    PyObject *connection = PyImport_ImportModule("wsproto.connection");
    PyObject *opcode = attribute(frames, "Opcode"), *bits = attribute(frames, "RsvBits");
    PyObject *framer = attribute(frames, "FrameProtocol");
    PyObject *state = attribute(connection, "ConnectionState");
    st->CloseReason = attribute(frames, "CloseReason");
    if (opcode != NULL && bits != NULL && framer != NULL && state != NULL) {
        for (size_t i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
            st->opcodes[opcodes[i]] = PyObject_CallFunction(opcode, "i", opcodes[i]);
        }
        for (int i = OPEN; i <= CLOSED; i++) {
            st->states[i] = PyObject_CallFunction(state, "i", i);
        }
        for (int i = 0; i < 8; i++) {
            st->rsv[i] = PyObject_CallFunction(
                bits, "OOO", i & WS_RSV1 ? Py_True : Py_False, i & WS_RSV2 ? Py_True : Py_False,
                i & WS_RSV3 ? Py_True : Py_False);
        }
        st->framers[0] = PyObject_CallFunction(framer, "O[]", Py_False);
        st->framers[1] = PyObject_CallFunction(framer, "O[]", Py_True);
    }
    Py_XDECREF(frames);
    Py_XDECREF(connection);
    Py_XDECREF(opcode);
    Py_XDECREF(bits);
    Py_XDECREF(framer);
    Py_XDECREF(state);
    return PyErr_Occurred() ? -1 : 0;
}

static int
module_exec(PyObject *self)
{
    State *st = PyModule_GetState(self);
    if (keys_init() < 0 || learn_words(st) < 0 || learn_values(st) < 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(self, &engine_spec, NULL);
    int failed = type == NULL || PyModule_AddObjectRef(self, "Engine", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

/* The references of the state, one after the other. */
#define REFERENCES (offsetof(State, keys_left) / sizeof(PyObject *))

static int
module_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyObject **all = PyModule_GetState(self);
    for (size_t i = 0; all != NULL && i < REFERENCES; i++) {
        Py_VISIT(all[i]);
    }
    return 0;
}

static int
module_clear(PyObject *self)
{
    PyObject **all = PyModule_GetState(self);
    for (size_t i = 0; all != NULL && i < REFERENCES; i++) {
        Py_CLEAR(all[i]);
    }
    return 0;
}

static void
module_free(void *self)
{
    module_clear(self);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trio_ws._speedups",
    .m_doc = "The compiled engine; see `trio_ws._engine`.",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module);
}
