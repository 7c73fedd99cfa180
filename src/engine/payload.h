/* Payloads as Python objects: unmasked, decoded, in pieces or whole.

   Lives here: the way from bytes on the wire to `bytes` and `str`. In a header, because both ways
   in use it and the fast one (whole.c) must not pay a call for it. Must never live here: which
   frame a payload is of and what it means. */

#ifndef TRIO_WS_PAYLOAD_H
#define TRIO_WS_PAYLOAD_H

#include "engine.h"

/* The next `size` payload bytes, which are there, as a bytes object; they are consumed. */
static inline PyObject *
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
static inline PyObject *
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
static inline PyObject *
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
static inline PyObject *
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

#endif
