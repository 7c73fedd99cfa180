/* Bytes in, whole messages out: the way of nearly every message.

   Lives here: taking bytes in, and moving messages that came whole, one frame each, into a list.
   Must never live here: any fault. In front of whatever is not a whole, good, unfragmented message
   this stops, and the machine of inbound.c has the say. */

#include "payload.h"

#define OVERHEAD 64 /* `_inbox._OBJECT` */

/* The message at `bytes` if it is there whole in one good frame, and the frame's size; NULL
   otherwise, then perhaps with an exception set. */
static PyObject *
whole_message(Engine *self, const uint8_t *bytes, Py_ssize_t available, Py_ssize_t *frame)
{
    ws_head head;
    if (available < 2 || (bytes[0] != 0x81 && bytes[0] != 0x82) ||
        bytes[1] >> 7 == self->client ||
        ws_read_head(bytes, (size_t)available, &head) != WS_HEAD_OK ||
        head.length > self->limit || self->max_frames == 0) {
        return NULL;
    }
    Py_ssize_t skip = (Py_ssize_t)head.size + (head.masked ? 4 : 0);
    if (available < skip || head.length > (uint64_t)(available - skip)) {
        return NULL;
    }
    const uint8_t *in = bytes + skip;
    const uint8_t *mask = in - 4; /* if it is masked */
    Py_ssize_t size = (Py_ssize_t)head.length;
    *frame = skip + size;
    if (head.opcode == WS_TEXT) {
        return head.masked ? decode_masked(self, in, size, mask, 0, 1)
                           : PyUnicode_DecodeUTF8((const char *)in, size, NULL);
    }
    PyObject *message = PyBytes_FromStringAndSize(head.masked ? NULL : (const char *)in, size);
    if (message != NULL && head.masked && size) {
        ws_mask((uint8_t *)PyBytes_AS_STRING(message), in, (size_t)size, mask, 0);
    }
    return message;
}

static Py_ssize_t
take(Engine *self, PyObject *messages, Py_ssize_t limit)
{
    Py_ssize_t taken = 0;
    PyObject *chunk = Py_NewRef(self->chunk);
    while (limit-- > 0) {
        Py_ssize_t frame = 0;
        PyObject *message = whole_message(self, bytes_of(chunk) + self->pos,
                                          PyBytes_GET_SIZE(chunk) - self->pos, &frame);
        if (message == NULL) {
            if (PyErr_Occurred()) {
                if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                    taken = -1;
                    break;
                }
                PyErr_Clear(); /* it is found again, and reported, by `events` */
            }
            break;
        }
        Py_ssize_t size = PyBytes_Check(message) ? PyBytes_GET_SIZE(message)
                          : PyUnicode_IS_ASCII(message)
                              ? PyUnicode_GET_LENGTH(message)
                              : 4 * PyUnicode_GET_LENGTH(message);
        int failed = PyList_Append(messages, message);
        Py_DECREF(message);
        if (failed) {
            taken = -1;
            break;
        }
        self->pos += frame;
        taken += size + OVERHEAD;
    }
    Py_DECREF(chunk);
    return taken;
}

/* `take`, unless it is the machine's turn. -1 with an exception. */
static Py_ssize_t
take_whole(Engine *self, PyObject *messages, Py_ssize_t limit)
{
    if (!left(self) || self->lost || self->in_frame || self->message || self->extensions != NULL) {
        return 0;
    }
    if (!enter(self)) {
        return -1;
    }
    Py_ssize_t taken = take(self, messages, limit);
    self->busy = 0;
    if (!left(self)) { /* an idle connection holds no read */
        self->pos = 0;
        Py_CLEAR(self->chunk);
    }
    return taken;
}

/* Take bytes in; -1 with an exception. */
static int
receive(Engine *self, PyObject *data)
{
    if (self->state == CLOSED) {
        PyErr_SetString(state_of(self)->LocalProtocolError, "Connection already closed.");
        return -1;
    }
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "bytes are needed, not %s", Py_TYPE(data)->tp_name);
        return -1;
    }
    if (self->over || self->state == REMOTE_CLOSING) {
        return 0;
    }
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL || !at_rest(self)) {
        Py_XDECREF(bytes);
        return -1;
    }
    Py_ssize_t old = left(self), new = PyBytes_GET_SIZE(bytes);
    if (new == 0) {
        Py_DECREF(bytes);
        return 0;
    }
    if (old) {
        PyObject *joined =
            new > PY_SSIZE_T_MAX - old ? PyErr_NoMemory()
                                       : PyBytes_FromStringAndSize(NULL, old + new);
        if (joined != NULL) {
            memcpy(PyBytes_AS_STRING(joined), bytes_of(self->chunk) + self->pos, (size_t)old);
            memcpy(PyBytes_AS_STRING(joined) + old, bytes_of(bytes), (size_t)new);
        }
        Py_SETREF(bytes, joined);
        if (bytes == NULL) {
            return -1;
        }
    }
    self->pos = 0;
    Py_XSETREF(self->chunk, bytes);
    return 0;
}

/* The list and the number that `take` and `feed` end with; 0 with an exception. */
static int
target(PyObject *const *args, Py_ssize_t *limit)
{
    if (!PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "messages go into a list");
        return 0;
    }
    *limit = PyLong_AsSsize_t(args[1]);
    return *limit != -1 || !PyErr_Occurred();
}

/* -- what Python calls ------------------------------------------------------------------------- */

PyObject *
Engine_receive_data(Engine *self, PyObject *data)
{
    if (data == Py_None) {
        self->lost++;
        self->state = CLOSED;
        Py_RETURN_NONE;
    }
    return receive(self, data) < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
Engine_take(Engine *self, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t limit;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "take(messages, limit)");
        return NULL;
    }
    if (!target(args, &limit)) {
        return NULL;
    }
    Py_ssize_t taken = take_whole(self, args[0], limit);
    return taken < 0 ? NULL : PyLong_FromSsize_t(taken);
}

PyObject *
Engine_feed(Engine *self, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t limit;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "feed(data, messages, limit)");
        return NULL;
    }
    if (!target(args + 1, &limit) || receive(self, args[0]) < 0) {
        return NULL;
    }
    Py_ssize_t taken = take_whole(self, args[1], limit);
    if (taken < 0) {
        return NULL;
    }
    return left(self) || self->lost ? Py_NewRef(Py_None) : PyLong_FromSsize_t(taken);
}
