/* Events of frames: pieces of messages, pings, pongs, the peer's Close.

   Lives here: what a payload means. Must never live here: where a frame begins or ends
   (inbound.c). */

#include "payload.h"

static PyObject *
message_event(PyObject *kind, PyObject *data, int frame_finished, int message_finished)
{
    if (data == NULL) {
        return NULL;
    }
    PyObject *event =
        PyObject_CallFunctionObjArgs(kind, data, frame_finished ? Py_True : Py_False,
                                     message_finished ? Py_True : Py_False, NULL);
    Py_DECREF(data);
    return event;
}

/* The next piece of the message in hand: `payload`, which is stolen, as extensions have left it, or
   NULL if there are none. NULL with an exception. */
static PyObject *
message_data(Engine *self, PyObject *payload, Py_ssize_t size, int last)
{
    if (self->message == WS_BINARY) {
        return payload != NULL ? payload : next_bytes(self, size);
    }
    if (payload == NULL) {
        return next_text(self, size, last);
    }
    PyObject *text = decode(self, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), last);
    Py_DECREF(payload);
    return text;
}

/* The event of the next piece, `size` bytes, of a data frame; `done`: it is the frame's last. */
PyObject *
data_event(Engine *self, Py_ssize_t size, int done)
{
    State *st = state_of(self);
    PyObject *payload = NULL, *event = NULL;
    int opcode = self->pieces ? WS_CONTINUATION : self->head.opcode;
    int last = done && self->head.fin;
    if (self->extensions != NULL) {
        payload = next_bytes(self, size);
        if (payload != NULL) {
            payload = in_through_extensions(self, payload, done, &event);
        }
        if (payload == NULL) {
            return event;
        }
    }
    if (done) {
        self->frames++;
        self->total += self->head.length;
    }
    if (opcode != WS_CONTINUATION) { /* `guard` has seen that it is in order */
        self->message = (uint8_t)opcode;
    }
    PyObject *kind = self->message == WS_BINARY ? st->BytesMessage : st->TextMessage;
    PyObject *data = message_data(self, payload, size, last);
    if (data == NULL) {
        return fail_undecoded(self, "");
    }
    self->pieces = 1;
    self->in_frame = (uint8_t)!done;
    if (last) {
        self->message = 0;
    }
    return message_event(kind, data, done, last);
}

/* What is wrong with a Close frame's code (RFC 6455 section 7.4), in wsproto's words, or NULL. */
static const char *
wrong_code(int code)
{
    if (code < 1000 || code > 4999) {
        return "CLOSE with invalid code";
    }
    if (code == 1005 || code == 1006 || code == 1015) {
        return "remote CLOSE with local-only reason";
    }
    if (code == 1004 || (code > 1013 && code < 3000)) {
        return "CLOSE with unknown reserved code";
    }
    return NULL;
}

/* The event of a Close frame's payload, which is stolen. */
static PyObject *
close_event(Engine *self, PyObject *payload)
{
    State *st = state_of(self);
    const uint8_t *bytes = bytes_of(payload);
    Py_ssize_t size = PyBytes_GET_SIZE(payload);
    int code = 1005;
    const char *words = size == 1 ? "CLOSE with 1 byte payload" : NULL;
    PyObject *reason = NULL, *event = NULL, *number = NULL;
    if (size > 1) {
        code = bytes[0] << 8 | bytes[1];
        if (code == 1014) { /* registered since RFC 6455 was written; wsproto refuses it */
            self->said_1014 = 1;
            code = 1013;
        }
        words = wrong_code(code);
    }
    if (words != NULL) {
        event = fail_1002(self, words);
        goto done;
    }
    reason = size ? PyUnicode_DecodeUTF8((const char *)bytes + 2, size - 2, NULL)
                  : PyUnicode_FromString("");
    if (reason == NULL) {
        event = fail_undecoded(self, "Error decoding CLOSE reason: ");
        goto done;
    }
    number = code < 3000 ? PyObject_CallFunction(st->CloseReason, "i", code)
                         : PyLong_FromLong(code);
    if (number == NULL) {
        goto done;
    }
    self->state = self->state == LOCAL_CLOSING ? CLOSED : REMOTE_CLOSING;
    stop_parsing(self);
    event = PyObject_CallFunctionObjArgs(st->CloseConnection, number, reason, NULL);
done:
    Py_XDECREF(number);
    Py_XDECREF(reason);
    Py_DECREF(payload);
    return event;
}

PyObject *
control_event(Engine *self)
{
    State *st = state_of(self);
    PyObject *event = NULL;
    PyObject *payload = next_bytes(self, (Py_ssize_t)self->head.length);
    if (payload != NULL && self->extensions != NULL) {
        payload = in_through_extensions(self, payload, 1, &event);
    }
    if (payload == NULL) {
        return event;
    }
    self->in_frame = 0;
    if (self->head.opcode == WS_CLOSE) {
        return close_event(self, payload);
    }
    event = PyObject_CallFunctionObjArgs(self->head.opcode == WS_PING ? st->Ping : st->Pong,
                                         payload, NULL);
    Py_DECREF(payload);
    return event;
}
