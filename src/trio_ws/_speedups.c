/* The compiled engine: wsproto's `Connection` over again, for one connection's frames.

   Lives here: the parser and its state, the limits on what a peer may send, data frames out.
   Must never live here: bytes as such (`_frames.h`), the bytes of control frames we send (wsproto
   writes them: they are rare), negotiation, a decision when to close.

   The theory. wsproto is the reference: for the same bytes in the same pieces the same events come
   out, words of errors included; tests/test_engine.py holds the two together. `take` is the one
   addition: it moves messages that came whole, one frame each, straight into a list, and stops in
   front of everything else, faults included, which `events` then reports.

   What keeps it safe. Bytes that came are one immutable `bytes` object and a position; every read
   is preceded by a comparison with what is left behind the position. Pointers into it live only
   while a reference to it is held, and never across a call into Python that could replace it.
   Memory is owned by Python objects alone. Extensions are Python code and might call back: `busy`
   turns that away. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_frames.h"

#define OVERHEAD 64 /* `_inbox._OBJECT` */
#define HUGE_LIMIT (UINT64_C(1) << 60)

/* What a compressed message may take on the wire beyond the limit; `_guard` says why. */
#define DEFLATE_SHARE 4
#define DEFLATE_SLACK 1024
#define DEFLATE_SLACK_PER_FRAME 64

enum { OPEN = 1, REMOTE_CLOSING = 2, LOCAL_CLOSING = 3, CLOSED = 4 }; /* of ConnectionState */

typedef struct {
    PyObject *TextMessage, *BytesMessage, *Message, *Ping, *Pong, *CloseConnection;
    PyObject *CloseReason, *LocalProtocolError, *urandom, *four;
    PyObject *opcodes[16]; /* NULL where there is none */
    PyObject *states[8];
    PyObject *rsv[8];
    PyObject *framers[2]; /* of a server, of a client */
    PyObject *s_inbound_header, *s_inbound_payload, *s_inbound_complete, *s_outbound;
    PyObject *s_code, *s_reason, *s_data, *s_payload, *s_finished, *s_ping, *s_pong, *s_close;
} State;

typedef struct {
    PyObject_HEAD
    PyObject *extensions;  /* a tuple, or NULL if there are none */
    PyObject *max_message; /* as given, for the words of a refusal */
    PyObject *verdict;     /* why a limit refused a frame, or NULL */
    PyObject *chunk;       /* what came and is not parsed: a bytes object from `pos` on, or NULL */
    Py_ssize_t pos;
    uint64_t consumed; /* payload bytes of the frame in hand */
    uint64_t limit, max_frames, total, frames;
    ws_head head; /* of the frame in hand */
    unsigned lost; /* times `receive_data(None)` has been called and not been reported */
    uint8_t client, state, over, busy, in_frame, pieces, compressed, said_1014;
    uint8_t message;  /* opcode of the message in hand, 0: none */
    uint8_t sending;  /* opcode of the message being sent in fragments, 0: none */
    uint8_t rest_size;
    uint8_t rest[4]; /* the beginning of a character whose end has not come */
} Engine;

static inline State *
state_of(Engine *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

static inline const uint8_t *
bytes_of(PyObject *bytes)
{
    return (const uint8_t *)PyBytes_AS_STRING(bytes);
}

static inline Py_ssize_t
left(Engine *self)
{
    return self->chunk == NULL ? 0 : PyBytes_GET_SIZE(self->chunk) - self->pos;
}

/* -- the end of parsing ------------------------------------------------------------------------ */

static void
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

static PyObject *
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

static PyObject *
fail_1002(Engine *self, const char *words)
{
    return fail(self, 1002, PyUnicode_FromString(words));
}

static PyObject *
fail_in_extension(Engine *self, PyObject *code)
{
    return fail_with(self, code, PyUnicode_FromString("error in extension"));
}

/* The event of the UnicodeDecodeError that is set; any other exception is left as it is. */
static PyObject *
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

/* -- heads ------------------------------------------------------------------------------------- */

static const char *const faults[] = {
    [WS_HEAD_FRAGMENTED_CONTROL] = "Invalid attempt to fragment control frame",
    [WS_HEAD_LONG_CONTROL] = "Control frame with payload len > 125",
    [WS_HEAD_WASTED_2] = "Payload length used 2 bytes when 1 would have sufficed",
    [WS_HEAD_WASTED_8] = "Payload length used 8 bytes when 2 would have sufficed",
    [WS_HEAD_MSB] = "8-byte payload length with non-zero MSB",
};

/* Show a head to the extensions. 1: go on, with the bits they use in `used`; 0: `*event` is the
   fault, or NULL with an exception set. */
static int
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
        for (Py_ssize_t bit = 0; refused == 0 && bit < 3; bit++) {
            PyObject *flag = PySequence_GetItem(answer, bit);
            int truth = flag == NULL ? -1 : PyObject_IsTrue(flag);
            Py_XDECREF(flag);
            refused = truth < 0 ? -1 : 0;
            *used |= (uint8_t)(truth > 0 ? WS_RSV1 >> bit : 0);
        }
        Py_XDECREF(answer);
        if (refused) {
            Py_DECREF(length);
            return 0;
        }
    }
    Py_XDECREF(length);
    return 1;
}

/* Hold a head to the limits. Shown again while its mask is incomplete, it must change nothing that
   it does not change again. 1: go on; 0: as above. */
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

/* -- payloads ---------------------------------------------------------------------------------- */

/* The next `size` payload bytes, which are there, as a bytes object; they are consumed. */
static PyObject *
next_bytes(Engine *self, Py_ssize_t size)
{
    PyObject *payload = PyBytes_FromStringAndSize(NULL, size);
    if (payload == NULL) {
        return NULL;
    }
    if (size) {
        uint8_t *out = (uint8_t *)PyBytes_AS_STRING(payload);
        const uint8_t *in = bytes_of(self->chunk) + self->pos;
        if (self->head.masked) {
            ws_mask(out, in, (size_t)size, self->head.mask, self->consumed);
        }
        else {
            memcpy(out, in, (size_t)size);
        }
    }
    self->pos += size;
    self->consumed += (uint64_t)size;
    return payload;
}

/* Decode a piece of a text message, as codecs' incremental decoder does: what is not a whole
   character at its end is kept for the next piece, unless it is the last. */
static PyObject *
decode(Engine *self, const char *bytes, Py_ssize_t size, int last)
{
    PyObject *joined = NULL;
    if (self->rest_size) {
        joined = PyBytes_FromStringAndSize(NULL, self->rest_size + size);
        if (joined == NULL) {
            return NULL;
        }
        char *out = PyBytes_AS_STRING(joined);
        memcpy(out, self->rest, self->rest_size);
        memcpy(out + self->rest_size, bytes, (size_t)size);
        bytes = out;
        size += self->rest_size;
        self->rest_size = 0;
    }
    Py_ssize_t done = size;
    PyObject *text = PyUnicode_DecodeUTF8Stateful(bytes, size, NULL, last ? NULL : &done);
    if (text != NULL && done < size) {
        assert(size - done < (Py_ssize_t)sizeof(self->rest));
        self->rest_size = (uint8_t)(size - done);
        memcpy(self->rest, bytes + done, self->rest_size);
    }
    Py_XDECREF(joined);
    return text;
}

/* A masked text of `size` bytes, unmasked straight into a string where it is ASCII. */
static PyObject *
decode_masked(Engine *self, const uint8_t *in, Py_ssize_t size, const uint8_t mask[4],
              uint64_t phase, int last)
{
    if (size < 2) { /* strings of no or one character are shared: they must not be written to */
        char byte = size ? (char)(in[0] ^ mask[phase & 3]) : 0;
        return decode(self, &byte, size, last);
    }
    PyObject *ascii = PyUnicode_New(size, 127);
    if (ascii == NULL) {
        return NULL;
    }
    char *out = PyUnicode_DATA(ascii);
    int other = ws_mask((uint8_t *)out, in, (size_t)size, mask, phase);
    if (!other && !self->rest_size) {
        return ascii;
    }
    PyObject *text = decode(self, out, size, last); /* the string was memory only */
    Py_DECREF(ascii);
    return text;
}

/* The next `size` bytes of a text message, which are there and are consumed, as a string. */
static PyObject *
next_text(Engine *self, Py_ssize_t size, int last)
{
    static const uint8_t nothing[1];
    PyObject *chunk = self->chunk;
    Py_XINCREF(chunk);
    const uint8_t *in = size ? bytes_of(chunk) + self->pos : nothing;
    uint64_t phase = self->consumed;
    self->pos += size;
    self->consumed += (uint64_t)size;
    PyObject *text = self->head.masked
                         ? decode_masked(self, in, size, self->head.mask, phase, last)
                         : decode(self, (const char *)in, size, last);
    Py_XDECREF(chunk);
    return text;
}

/* Pass a payload, which is stolen, through the extensions. NULL: `*event`, or an exception. */
static PyObject *
through_extensions(Engine *self, PyObject *payload, int finished, PyObject **event)
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

/* -- events ------------------------------------------------------------------------------------ */

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

/* The event of the next piece, `size` bytes, of a data frame; `done`: it is the frame's last. */
static PyObject *
data_event(Engine *self, Py_ssize_t size, int done)
{
    State *st = state_of(self);
    PyObject *payload = NULL, *event = NULL;
    int opcode = self->pieces ? WS_CONTINUATION : self->head.opcode;
    int last = done && self->head.fin;
    if (self->extensions != NULL) {
        payload = next_bytes(self, size);
        if (payload != NULL) {
            payload = through_extensions(self, payload, done, &event);
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
    PyObject *kind = st->BytesMessage;
    if (self->message == WS_BINARY) {
        payload = payload != NULL ? payload : next_bytes(self, size);
    }
    else {
        kind = st->TextMessage;
        PyObject *bytes = payload;
        payload = bytes != NULL
                      ? decode(self, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), last)
                      : next_text(self, size, last);
        Py_XDECREF(bytes);
        if (payload == NULL) {
            return fail_undecoded(self, "");
        }
    }
    self->pieces = 1;
    if (done) {
        self->in_frame = 0;
    }
    if (last) {
        self->message = 0;
    }
    return message_event(kind, payload, done, last);
}

/* The event of a Close frame's payload, which is stolen. */
static PyObject *
close_event(Engine *self, PyObject *payload)
{
    State *st = state_of(self);
    const uint8_t *bytes = bytes_of(payload);
    Py_ssize_t size = PyBytes_GET_SIZE(payload);
    int code = 1005;
    PyObject *reason = NULL, *event = NULL, *number = NULL;
    if (size == 1) {
        event = fail_1002(self, "CLOSE with 1 byte payload");
        goto done;
    }
    if (size) {
        code = bytes[0] << 8 | bytes[1];
        if (code == 1014) { /* registered since RFC 6455 was written; wsproto refuses it */
            self->said_1014 = 1;
            code = 1013;
        }
        const char *words = NULL;
        if (code < 1000 || code > 4999) {
            words = "CLOSE with invalid code";
        }
        else if (code == 1005 || code == 1006 || code == 1015) {
            words = "remote CLOSE with local-only reason";
        }
        else if (code == 1004 || (code > 1013 && code < 3000)) {
            words = "CLOSE with unknown reserved code";
        }
        if (words != NULL) {
            event = fail_1002(self, words);
            goto done;
        }
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

static PyObject *
control_event(Engine *self)
{
    State *st = state_of(self);
    PyObject *event = NULL;
    PyObject *payload = next_bytes(self, (Py_ssize_t)self->head.length);
    if (payload != NULL && self->extensions != NULL) {
        payload = through_extensions(self, payload, 1, &event);
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

static int
enter(Engine *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the engine is at work");
        return 0;
    }
    self->busy = 1;
    return 1;
}

static PyObject *
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

static PyObject *
Engine_events(Engine *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef((PyObject *)self);
}

/* -- whole messages ---------------------------------------------------------------------------- */

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

PyDoc_STRVAR(take_doc,
"take(messages, limit, /)\n--\n\n"
"Append the whole messages that come next to a list, `limit` at most; return an upper bound of the\n"
"bytes they take in memory. Stops in front of everything else, which `events` tells.");

static PyObject *
Engine_take(Engine *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "take(messages: list, limit: int)");
        return NULL;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(args[1]);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Py_ssize_t taken = 0;
    if (left(self) && !self->lost && !self->in_frame && !self->message &&
        self->extensions == NULL) {
        if (!enter(self)) {
            return NULL;
        }
        taken = take(self, args[0], limit);
        self->busy = 0;
        if (taken < 0) {
            return NULL;
        }
    }
    return PyLong_FromSsize_t(taken);
}

PyDoc_STRVAR(receive_data_doc,
"receive_data(data, /)\n--\n\nTake in bytes from the peer; None: its bytes have ended.");

static PyObject *
Engine_receive_data(Engine *self, PyObject *data)
{
    if (data == Py_None) {
        self->lost++;
        self->state = CLOSED;
        Py_RETURN_NONE;
    }
    if (self->state == CLOSED) {
        PyErr_SetString(state_of(self)->LocalProtocolError, "Connection already closed.");
        return NULL;
    }
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "bytes are needed, not %s", Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (self->over || self->state == REMOTE_CLOSING) {
        Py_RETURN_NONE;
    }
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL || !enter(self)) {
        Py_XDECREF(bytes);
        return NULL;
    }
    Py_ssize_t old = left(self), new = PyBytes_GET_SIZE(bytes);
    if (old && new) {
        PyObject *joined =
            new > PY_SSIZE_T_MAX - old ? PyErr_NoMemory()
                                       : PyBytes_FromStringAndSize(NULL, old + new);
        if (joined != NULL) {
            memcpy(PyBytes_AS_STRING(joined), bytes_of(self->chunk) + self->pos, (size_t)old);
            memcpy(PyBytes_AS_STRING(joined) + old, bytes_of(bytes), (size_t)new);
        }
        Py_SETREF(bytes, joined);
    }
    self->busy = 0;
    if (bytes == NULL) {
        return NULL;
    }
    if (new) {
        self->pos = 0;
        Py_XSETREF(self->chunk, bytes);
    }
    else {
        Py_DECREF(bytes);
    }
    Py_RETURN_NONE;
}

/* -- outbound ---------------------------------------------------------------------------------- */

static PyObject *
random_mask(Engine *self, uint8_t mask[4])
{
    State *st = state_of(self);
    PyObject *bytes = PyObject_CallFunctionObjArgs(st->urandom, st->four, NULL);
    if (bytes != NULL && (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != 4)) {
        Py_CLEAR(bytes);
        PyErr_SetString(PyExc_RuntimeError, "os.urandom(4) did not return 4 bytes");
    }
    if (bytes != NULL) {
        memcpy(mask, bytes_of(bytes), 4);
    }
    return bytes;
}

static PyObject *
frame_of(Engine *self, int opcode, int fin, int rsv, const uint8_t *payload, Py_ssize_t size)
{
    uint8_t head[WS_MAX_HEAD], mask[4];
    if (size > PY_SSIZE_T_MAX - WS_MAX_HEAD) {
        return PyErr_NoMemory();
    }
    if (self->client) {
        PyObject *drawn = random_mask(self, mask);
        if (drawn == NULL) {
            return NULL;
        }
        Py_DECREF(drawn);
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

/* The frame of a payload that extensions may change; `payload` is stolen. */
static PyObject *
frame_through_extensions(Engine *self, int opcode, int fin, PyObject *payload)
{
    State *st = state_of(self);
    PyObject *rsv = Py_NewRef(st->rsv[0]), *frame = NULL;
    for (Py_ssize_t i = PyTuple_GET_SIZE(self->extensions); i-- > 0;) {
        PyObject *pair = PyObject_CallMethodObjArgs(
            PyTuple_GET_ITEM(self->extensions, i), st->s_outbound, (PyObject *)self,
            st->opcodes[opcode], rsv, payload, fin ? Py_True : Py_False, NULL);
        if (pair == NULL || !PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            if (pair != NULL) {
                PyErr_SetString(PyExc_TypeError, "frame_outbound must return a pair");
            }
            Py_XDECREF(pair);
            goto done;
        }
        Py_SETREF(rsv, Py_NewRef(PyTuple_GET_ITEM(pair, 0)));
        Py_SETREF(payload, PyBytes_FromObject(PyTuple_GET_ITEM(pair, 1)));
        Py_DECREF(pair);
        if (payload == NULL) {
            goto done;
        }
    }
    int bits = 0;
    for (Py_ssize_t bit = 0; bit < 3; bit++) {
        PyObject *flag = PySequence_GetItem(rsv, bit);
        int truth = flag == NULL ? -1 : PyObject_IsTrue(flag);
        Py_XDECREF(flag);
        if (truth < 0) {
            goto done;
        }
        bits |= truth ? WS_RSV1 >> bit : 0;
    }
    frame = frame_of(self, opcode, fin, bits, bytes_of(payload), PyBytes_GET_SIZE(payload));
done:
    Py_XDECREF(payload);
    Py_DECREF(rsv);
    return frame;
}

/* One data frame, or NULL with an exception and nothing changed. */
static PyObject *
data_frame(Engine *self, PyObject *message, int fin)
{
    int opcode;
    PyObject *bytes = NULL; /* what keeps `payload` alive, if it is not `message` */
    Py_buffer view = {0};
    const uint8_t *payload = NULL;
    Py_ssize_t size = 0;
    if (PyUnicode_Check(message)) {
        opcode = WS_TEXT;
        if (PyUnicode_IS_COMPACT_ASCII(message)) {
            payload = PyUnicode_DATA(message);
            size = PyUnicode_GET_LENGTH(message);
        }
        else {
            bytes = PyUnicode_AsUTF8String(message);
        }
    }
    else if (PyBytes_Check(message)) {
        opcode = WS_BINARY;
        payload = bytes_of(message);
        size = PyBytes_GET_SIZE(message);
    }
    else if (PyByteArray_Check(message) || PyMemoryView_Check(message)) {
        opcode = WS_BINARY;
        if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) == 0) {
            payload = view.buf;
            size = view.len;
        }
        else {
            PyErr_Clear(); /* not contiguous */
            bytes = PyBytes_FromObject(message);
        }
    }
    else {
        PyErr_SetString(PyExc_TypeError, "Must provide bytes or text");
        return NULL;
    }
    if (bytes != NULL) {
        payload = bytes_of(bytes);
        size = PyBytes_GET_SIZE(bytes);
    }
    else if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *frame = NULL;
    if (self->sending != 0 && self->sending != opcode) {
        PyErr_SetString(PyExc_TypeError, "Data type mismatch inside message");
        goto done;
    }
    int used = self->sending != 0 ? WS_CONTINUATION : opcode;
    self->sending = fin ? 0 : (uint8_t)opcode;
    if (self->extensions == NULL) {
        frame = frame_of(self, used, fin, 0, payload, size);
    }
    else {
        PyObject *whole = PyBytes_CheckExact(message)
                              ? Py_NewRef(message)
                              : PyBytes_FromStringAndSize((const char *)payload, size);
        frame = whole == NULL ? NULL : frame_through_extensions(self, used, fin, whole);
    }
done:
    Py_XDECREF(bytes);
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    return frame;
}

static PyObject *
cannot_send(Engine *self, PyObject *what)
{
    State *st = state_of(self);
    return PyErr_Format(st->LocalProtocolError, "Event %S cannot be sent in state %S.", what,
                        st->states[self->state]);
}

PyDoc_STRVAR(encode_doc,
"encode(message, final, /)\n--\n\n"
"One data frame, as `send` makes it of a `TextMessage` or a `BytesMessage`.");

static PyObject *
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

PyDoc_STRVAR(send_doc,
"send(event, /)\n--\n\n"
"The frame of an event, as wsproto's `Connection.send`. Extensions do not see control frames.");

static PyObject *
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

/* -- the type ---------------------------------------------------------------------------------- */

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

static PyMethodDef methods[] = {
    {"receive_data", (PyCFunction)Engine_receive_data, METH_O, receive_data_doc},
    {"events", (PyCFunction)Engine_events, METH_NOARGS,
     "events($self, /)\n--\n\nAn iterator over what the bytes so far mean."},
    {"take", (PyCFunction)(void (*)(void))Engine_take, METH_FASTCALL, take_doc},
    {"encode", (PyCFunction)(void (*)(void))Engine_encode, METH_FASTCALL, encode_doc},
    {"send", (PyCFunction)Engine_send, METH_O, send_doc},
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

static PyType_Spec spec = {
    .name = "trio_ws._speedups.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

/* -- the module -------------------------------------------------------------------------------- */

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
    st->four = PyLong_FromLong(4);
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
    if (learn_words(st) < 0 || learn_values(st) < 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(self, &spec, NULL);
    int failed = type == NULL || PyModule_AddObjectRef(self, "Engine", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

/* The state is nothing but references, one after the other. */
static int
module_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyObject **all = PyModule_GetState(self);
    for (size_t i = 0; all != NULL && i < sizeof(State) / sizeof(PyObject *); i++) {
        Py_VISIT(all[i]);
    }
    return 0;
}

static int
module_clear(PyObject *self)
{
    PyObject **all = PyModule_GetState(self);
    for (size_t i = 0; all != NULL && i < sizeof(State) / sizeof(PyObject *); i++) {
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
