/* The inbound machine: bytes that came, frame by frame, as events.

   Lives here: heads and the limits they are held to; where a frame begins, ends and waits for
   more. Must never live here: what is in a payload (events.c), the fast way (whole.c). */

#include "engine.h"

/* What a compressed message may take on the wire beyond the limit; `_guard` says why. */
#define DEFLATE_SHARE 4
#define DEFLATE_SLACK 1024
#define DEFLATE_SLACK_PER_FRAME 64

static const char *const faults[] = {
    [WS_HEAD_FRAGMENTED_CONTROL] = "Invalid attempt to fragment control frame",
    [WS_HEAD_LONG_CONTROL] = "Control frame with payload len > 125",
    [WS_HEAD_WASTED_2] = "Payload length used 2 bytes when 1 would have sufficed",
    [WS_HEAD_WASTED_8] = "Payload length used 8 bytes when 2 would have sufficed",
    [WS_HEAD_MSB] = "8-byte payload length with non-zero MSB",
};

/* Hold a head to the limits. Shown again while its mask is incomplete, it must change nothing that
   it does not change again. 1: go on; 0: `*event` is the refusal, or NULL with an exception. */
static int
guard(Engine *self, const ws_head *head, PyObject **event)
{
    if (head->opcode >= 8) { /* they may stand between fragments and never count */
        return 1;
    }
    int code = 1009;
    PyObject *words;
    if ((head->opcode == WS_CONTINUATION) != (self->message != 0)) {
        static const char *const names[] = {"continuation", "text", "binary"};
        code = 1002;
        words = PyUnicode_FromFormat("%s frame out of order", names[head->opcode]);
        goto refuse;
    }
    if (self->message == 0) {
        self->frames = self->total = 0;
        self->compressed = (head->rsv & WS_RSV1) != 0;
    }
    uint64_t bound = self->limit;
    if (self->compressed) {
        bound += bound / DEFLATE_SHARE + DEFLATE_SLACK + DEFLATE_SLACK_PER_FRAME * self->frames;
    }
    if (self->total + head->length > bound) {
        words = PyUnicode_FromFormat("message over %S bytes", self->max_message);
    }
    else if (self->frames >= self->max_frames) {
        words = PyUnicode_FromFormat("message in over %llu frames",
                                     (unsigned long long)self->max_frames);
    }
    else {
        return 1;
    }
refuse:
    if (words != NULL) {
        Py_XSETREF(self->verdict, words);
        *event = fail(self, code, PyUnicode_FromString("error in extension"));
    }
    return 0;
}

/* 1: the head is read and is the frame in hand; 0: more bytes are needed, or `*event`, or an
   exception. */
static int
read_head(Engine *self, PyObject **event)
{
    ws_head head = {0};
    Py_ssize_t available = left(self);
    if (available < 2) {
        return 0;
    }
    ws_head_status status =
        ws_read_head(bytes_of(self->chunk) + self->pos, (size_t)available, &head);
    if (status == WS_HEAD_SHORT) {
        return 0;
    }
    if (status == WS_HEAD_OPCODE) {
        *event = fail(self, 1002, PyUnicode_FromFormat("Invalid opcode 0x%x", head.opcode));
        return 0;
    }
    if (status != WS_HEAD_OK) {
        *event = fail_1002(self, faults[status]);
        return 0;
    }
    uint8_t used = 0;
    if (!ask_extensions(self, &head, &used, event) || !guard(self, &head, event)) {
        return 0;
    }
    if (head.rsv & ~used) {
        *event = fail_1002(self, "Reserved bit set unexpectedly");
        return 0;
    }
    if (head.masked == self->client) {
        *event = fail_1002(self, self->client ? "client received unexpected masked frame"
                                              : "server received unexpected unmasked frame");
        return 0;
    }
    Py_ssize_t size = (Py_ssize_t)head.size;
    if (head.masked) {
        if (left(self) < size + 4) {
            return 0;
        }
        memcpy(head.mask, bytes_of(self->chunk) + self->pos + size, 4);
        size += 4;
    }
    self->pos += size;
    self->head = head;
    self->consumed = 0;
    self->in_frame = 1;
    self->pieces = 0;
    return 1;
}

/* More bytes are needed: keep what is left, which is a head or a control frame at most, without
   the read that it came in. */
static void
settle(Engine *self)
{
    Py_ssize_t size = left(self);
    if (self->pos == 0 && size) {
        return;
    }
    PyObject *rest = NULL;
    if (size) {
        rest = PyBytes_FromStringAndSize((const char *)bytes_of(self->chunk) + self->pos, size);
        if (rest == NULL) {
            return;
        }
    }
    self->pos = 0;
    Py_XSETREF(self->chunk, rest);
}

static PyObject *
next_event(Engine *self)
{
    PyObject *event = NULL;
    if (!self->in_frame && !read_head(self, &event)) {
        if (event == NULL && !self->over && !PyErr_Occurred()) {
            settle(self);
        }
        return event;
    }
    Py_ssize_t available = left(self);
    uint64_t remaining = self->head.length - self->consumed;
    if (self->head.opcode >= 8) {
        if ((uint64_t)available < remaining) {
            settle(self);
            return NULL;
        }
        return control_event(self);
    }
    if (available == 0 && self->head.length > 0) {
        settle(self);
        return NULL;
    }
    int done = remaining <= (uint64_t)available;
    return data_event(self, done ? (Py_ssize_t)remaining : available, done);
}

PyObject *
Engine_iternext(Engine *self)
{
    if (self->lost) {
        self->lost--;
        PyObject *code = PyObject_CallFunction(state_of(self)->CloseReason, "i", 1006);
        if (code == NULL) {
            return NULL;
        }
        PyObject *event =
            PyObject_CallFunctionObjArgs(state_of(self)->CloseConnection, code, NULL);
        Py_DECREF(code);
        return event;
    }
    if (self->over || !enter(self)) {
        return NULL;
    }
    PyObject *event = next_event(self);
    self->busy = 0;
    return event;
}

PyObject *
Engine_events(Engine *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef((PyObject *)self);
}

