/* Frames out.

   Lives here: data frames, and when what may be sent. Must never live here: the bytes of control
   frames (wsproto writes them: they are rare), a decision when to close. */

#include "engine.h"

static PyObject *
frame_of(Engine *self, int opcode, int fin, int rsv, const uint8_t *payload, Py_ssize_t size)
{
    uint8_t head[WS_MAX_HEAD], mask[4];
    if (size > PY_SSIZE_T_MAX - WS_MAX_HEAD) {
        return PyErr_NoMemory();
    }
    if (self->client && draw_key(self, mask) < 0) {
        return NULL;
    }
    size_t skip =
        ws_write_head(head, opcode, fin, rsv, (uint64_t)size, self->client ? mask : NULL);
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)skip + size);
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    memcpy(out, head, skip);
    if (size && self->client) {
        ws_mask(out + skip, payload, (size_t)size, mask, 0);
    }
    else if (size) {
        memcpy(out + skip, payload, (size_t)size);
    }
    return frame;
}

/* The bytes of a message, and what keeps them where they are. */
typedef struct {
    int opcode;
    const uint8_t *bytes;
    Py_ssize_t size;
    PyObject *copy; /* NULL if they are the message's own */
    Py_buffer view;
} Payload;

static void
let_go(Payload *payload)
{
    Py_CLEAR(payload->copy);
    if (payload->view.obj != NULL) {
        PyBuffer_Release(&payload->view);
    }
}

/* `payload` is all zeros, and is let go by the caller in any case. -1 with an exception. */
static int
look_into(PyObject *message, Payload *payload)
{
    payload->opcode = PyUnicode_Check(message) ? WS_TEXT : WS_BINARY;
    if (payload->opcode == WS_TEXT) {
        if (PyUnicode_IS_COMPACT_ASCII(message)) {
            payload->bytes = PyUnicode_DATA(message);
            payload->size = PyUnicode_GET_LENGTH(message);
            return 0;
        }
        payload->copy = PyUnicode_AsUTF8String(message);
    }
    else if (PyBytes_Check(message)) {
        payload->bytes = bytes_of(message);
        payload->size = PyBytes_GET_SIZE(message);
        return 0;
    }
    else if (PyByteArray_Check(message) || PyMemoryView_Check(message)) {
        if (PyObject_GetBuffer(message, &payload->view, PyBUF_SIMPLE) == 0) {
            payload->bytes = payload->view.buf;
            payload->size = payload->view.len;
            return 0;
        }
        PyErr_Clear(); /* not contiguous */
        payload->copy = PyBytes_FromObject(message);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "Must provide bytes or text");
    }
    if (payload->copy == NULL) {
        return -1;
    }
    payload->bytes = bytes_of(payload->copy);
    payload->size = PyBytes_GET_SIZE(payload->copy);
    return 0;
}

static PyObject *
extended_frame(Engine *self, int opcode, int fin, PyObject *message, const Payload *payload)
{
    PyObject *whole = PyBytes_CheckExact(message)
                          ? Py_NewRef(message)
                          : PyBytes_FromStringAndSize((const char *)payload->bytes, payload->size);
    int bits = 0;
    if (whole != NULL) {
        whole = out_through_extensions(self, opcode, fin, whole, &bits);
    }
    if (whole == NULL) {
        return NULL;
    }
    PyObject *frame =
        frame_of(self, opcode, fin, bits, bytes_of(whole), PyBytes_GET_SIZE(whole));
    Py_DECREF(whole);
    return frame;
}

/* A message that cannot be sent changes nothing. */
static PyObject *
data_frame(Engine *self, PyObject *message, int fin)
{
    PyObject *frame = NULL;
    Payload payload = {0};
    if (look_into(message, &payload) < 0) {
        goto done;
    }
    if (self->sending != 0 && self->sending != payload.opcode) {
        PyErr_SetString(PyExc_TypeError, "Data type mismatch inside message");
        goto done;
    }
    int opcode = self->sending != 0 ? WS_CONTINUATION : payload.opcode;
    self->sending = fin ? 0 : (uint8_t)payload.opcode;
    frame = self->extensions == NULL
                ? frame_of(self, opcode, fin, 0, payload.bytes, payload.size)
                : extended_frame(self, opcode, fin, message, &payload);
done:
    let_go(&payload);
    return frame;
}

static PyObject *
cannot_send(Engine *self, PyObject *what)
{
    State *st = state_of(self);
    return PyErr_Format(st->LocalProtocolError, "Event %S cannot be sent in state %S.", what,
                        st->states[self->state]);
}

PyObject *
Engine_encode(Engine *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "encode(message, final)");
        return NULL;
    }
    int fin = PyObject_IsTrue(args[1]);
    if (fin < 0) {
        return NULL;
    }
    return self->state == OPEN ? data_frame(self, args[0], fin) : cannot_send(self, args[0]);
}

/* A control frame, from wsproto's framer; steals the arguments, of which the second may be NULL. */
static PyObject *
control_frame(Engine *self, PyObject *method, PyObject *first, PyObject *second)
{
    PyObject *frame = NULL;
    if (first != NULL) {
        PyObject *array = PyObject_CallMethodObjArgs(state_of(self)->framers[self->client], method,
                                                     first, second, NULL);
        if (array != NULL) {
            frame = PyBytes_FromObject(array);
            Py_DECREF(array);
        }
    }
    Py_XDECREF(first);
    Py_XDECREF(second);
    return frame;
}

static PyObject *
close_frame(Engine *self, PyObject *event)
{
    State *st = state_of(self);
    PyObject *code = PyObject_GetAttr(event, st->s_code);
    PyObject *reason = code == NULL ? NULL : PyObject_GetAttr(event, st->s_reason);
    if (reason == NULL) {
        Py_XDECREF(code);
        return NULL;
    }
    PyObject *frame = control_frame(self, st->s_close, code, reason);
    if (frame != NULL) {
        self->state = self->state == REMOTE_CLOSING ? CLOSED : LOCAL_CLOSING;
    }
    return frame;
}

PyObject *
Engine_send(Engine *self, PyObject *event)
{
    State *st = state_of(self);
    int is;
    if ((is = PyObject_IsInstance(event, st->Message)) > 0 && self->state == OPEN) {
        PyObject *data = PyObject_GetAttr(event, st->s_data);
        PyObject *last = data == NULL ? NULL : PyObject_GetAttr(event, st->s_finished);
        int fin = last == NULL ? -1 : PyObject_IsTrue(last);
        PyObject *frame = fin < 0 ? NULL : data_frame(self, data, fin);
        Py_XDECREF(data);
        Py_XDECREF(last);
        return frame;
    }
    if (is == 0 && (is = PyObject_IsInstance(event, st->Ping)) > 0 && self->state == OPEN) {
        return control_frame(self, st->s_ping, PyObject_GetAttr(event, st->s_payload), NULL);
    }
    if (is == 0 && (is = PyObject_IsInstance(event, st->Pong)) > 0 && self->state == OPEN) {
        return control_frame(self, st->s_pong, PyObject_GetAttr(event, st->s_payload), NULL);
    }
    if (is == 0 && (is = PyObject_IsInstance(event, st->CloseConnection)) > 0 &&
        (self->state == OPEN || self->state == REMOTE_CLOSING)) {
        return close_frame(self, event);
    }
    return is < 0 ? NULL : cannot_send(self, event);
}
