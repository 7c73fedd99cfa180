/* The compiled engine: wsproto's `Connection` over again, for one connection's frames.

   Lives here: what its files share: the state of an engine and of the module, and who offers what.
   Must never live here: code with a decision in it.

   The theory. wsproto is the reference: for the same bytes in the same pieces the same events come
   out, words of errors included; tests/test_engine.py holds the two together. `take` and `feed` are
   the one addition: they move messages that came whole, one frame each, straight into a list, and
   stop in front of everything else, faults included, which `events` then reports.

       bytes  ->  whole.c  --------------------------------------------->  messages    (fast)
                      \-> inbound.c -> extensions.c -> events.c, faults.c -> events    (all else)
       message -> outbound.c -> extensions.c -> keys.c -> frame

   frames.h knows bytes and no Python, payload.h makes Python objects of payloads; type.c and
   module.c are what Python sees.

   What keeps it safe. Bytes that came are one immutable `bytes` object and a position; every read
   is preceded by a comparison with what is left behind the position. Pointers into it live only
   while a reference to it is held, and never across a call into Python that could replace it.
   Memory is owned by Python objects alone. Extensions are Python code and might call back: `busy`
   turns that away. */

#ifndef TRIO_WS_ENGINE_H
#define TRIO_WS_ENGINE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "frames.h"

enum { OPEN = 1, REMOTE_CLOSING = 2, LOCAL_CLOSING = 3, CLOSED = 4 }; /* of ConnectionState */

#define KEYS 256 /* masking keys drawn at once */

typedef struct {
    /* References, one after the other, up to the pool. */
    PyObject *TextMessage, *BytesMessage, *Message, *Ping, *Pong, *CloseConnection;
    PyObject *CloseReason, *LocalProtocolError, *urandom, *pool_size;
    PyObject *opcodes[16]; /* NULL where there is none */
    PyObject *states[8];
    PyObject *rsv[8];
    PyObject *framers[2]; /* of a server, of a client */
    PyObject *s_inbound_header, *s_inbound_payload, *s_inbound_complete, *s_outbound;
    PyObject *s_code, *s_reason, *s_data, *s_payload, *s_finished, *s_ping, *s_pong, *s_close;
    unsigned keys_left, keys_process; /* the pool of keys.c */
    uint8_t keys[KEYS][4];
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

/* Whether nothing is under way that may call into Python; 0 with an exception. */
static inline int
at_rest(Engine *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the engine is at work");
    }
    return !self->busy;
}

/* Begin such a thing, if none is under way; `busy = 0` ends it. */
static inline int
enter(Engine *self)
{
    return at_rest(self) && (self->busy = 1);
}

/* No name but the module's own leaves the library. */
#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* faults.c. All but the first return an event, or NULL with an exception set. */
void stop_parsing(Engine *self);
PyObject *fail(Engine *self, int code, PyObject *reason);
PyObject *fail_1002(Engine *self, const char *words);
PyObject *fail_in_extension(Engine *self, PyObject *code);
PyObject *fail_undecoded(Engine *self, const char *prefix);

/* extensions.c */
int ask_extensions(Engine *self, const ws_head *head, uint8_t *used, PyObject **event);
PyObject *in_through_extensions(Engine *self, PyObject *payload, int finished, PyObject **event);
PyObject *out_through_extensions(Engine *self, int opcode, int fin, PyObject *payload, int *bits);

/* events.c */
PyObject *data_event(Engine *self, Py_ssize_t size, int done);
PyObject *control_event(Engine *self);

/* keys.c */
int keys_init(void);
int draw_key(Engine *self, uint8_t key[4]);

/* What Python calls: inbound.c, whole.c, outbound.c, type.c. */
PyObject *Engine_events(Engine *self, PyObject *ignored);
PyObject *Engine_iternext(Engine *self);
PyObject *Engine_receive_data(Engine *self, PyObject *data);
PyObject *Engine_take(Engine *self, PyObject *const *args, Py_ssize_t count);
PyObject *Engine_feed(Engine *self, PyObject *const *args, Py_ssize_t count);
PyObject *Engine_encode(Engine *self, PyObject *const *args, Py_ssize_t count);
PyObject *Engine_send(Engine *self, PyObject *event);
extern PyType_Spec engine_spec;

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
